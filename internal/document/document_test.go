package document

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const canary = "c4nary-plaintext"

func TestField(t *testing.T) {
	const doc = `{"a": {"b": [{"c": "deep"}, 2]}, "n": 12345678901234567890.10, "t": true, "z": null, "": "empty",
		"a.b": "dotted", "o": {"y": 1.0, "x": "<&>", "w": null}, "l": [], "s": "line\nbreak", "\\": "backslash"}`
	const lines = `
a: {b: [{c: deep}, 2]}
n: 12345678901234567890.10
hex: 0x1F
t: true
z: ~
o: {y: 1.0, x: "<&>", h: 0x1F, d: 2001-01-01, t: True, w: null}
block: |
  one
  two
twice: 1
twice: 2
base: &base {k: v}
alias: *base
merged: {<<: *base}
inline: {<<: {k: v}}
inf: {v: .inf}
7: seven
bin: !!binary aGk=
`
	tests := []struct{ name, doc, field, want, err string }{
		{"deep", doc, "a.b.0.c", "deep", ""},
		{"number in a list", doc, "a.b.1", "2", ""},
		{"number as written", doc, "n", "12345678901234567890.10", ""},
		{"number beyond float64", `{"e": 1e400, "o": [1e400]}`, "e", "1e400", ""},
		{"number beyond float64 in a list", `{"e": 1e400, "o": [1e400]}`, "o", "[1e400]", ""},
		{"bool", doc, "t", "true", ""},
		{"dot in a name", doc, `a\.b`, "dotted", ""},
		{"backslash in a name", doc, `\\`, "backslash", ""},
		{"object", doc, "o", `{"w":null,"x":"<&>","y":1.0}`, ""},
		{"list", doc, "a.b", `[{"c":"deep"},2]`, ""},
		{"empty list", doc, "l", `[]`, ""},
		{"escapes", doc, "s", "line\nbreak", ""},
		{"missing", doc, "a.x.y", "", `field "a.x" does not exist`},
		{"null", doc, "z", "", `field "z" is null`},
		{"below null", doc, "z.x", "", `field "z.x" does not exist: its parent is a single value`},
		{"below a text", doc, "a.b.0.c.d", "", `its parent is a single value`},
		{"beyond a list", doc, "a.b.2", "", `the list has 2 items`},
		{"no index", doc, "a.b.x", "", `its parent is a list`},
		{"index with a zero", doc, "a.b.00", "", `its parent is a list`},
		{"negative index", doc, "a.b.-1", "", `its parent is a list`},

		{"YAML deep", lines, "a.b.0.c", "deep", ""},
		{"YAML number as written", lines, "n", "12345678901234567890.10", ""},
		{"YAML hex as written", lines, "hex", "0x1F", ""},
		{"YAML bool", lines, "t", "true", ""},
		{"YAML block", lines, "block", "one\ntwo\n", ""},
		{"YAML object", lines, "o", `{"d":"2001-01-01","h":31,"t":true,"w":null,"x":"<&>","y":1.0}`, ""},
		{"YAML number as a name", lines, "7", "seven", ""},
		{"YAML null", lines, "z", "", `field "z" is null`},
		{"YAML missing", lines, "a.c", "", `field "a.c" does not exist`},
		{"YAML index", lines, "a.b.9", "", "the list has 2 items"},
		{"YAML below a text", lines, "t.x", "", "its parent is a single value"},
		{"YAML twice", lines, "twice", "", `field "twice" occurs twice`},
		{"YAML alias", lines, "alias", "", `field "alias" contains a YAML alias`},
		{"YAML below an alias", lines, "alias.k", "", `field "alias" contains a YAML alias`},
		{"YAML merge", lines, "merged", "", `field "merged" contains a YAML alias`},
		{"YAML inline merge", lines, "inline", "", `field "inline" contains a YAML alias or merge`},
		{"YAML number that JSON does not have", lines, "inf", "", `field "inf" contains a number`},

		{"JSON twice", `{"a": 1, "a": 2, "b": 3}`, "a", "", `field "a" occurs twice`},
		{"JSON twice elsewhere", `{"a": 1, "a": 2, "b": 3}`, "b", "3", ""},
		{"JSON twice below", `{"o": [{"x": 1, "x": 2}]}`, "o", "", `field "o" contains a name twice`},
		{"JSON half pair", `{"a": "\ud83d", "b": 1}`, "b", "", "an escape that is not a character"},
		{"JSON pair", `{"a": "\ud83d\ude00"}`, "a", "😀", ""},
		{"JSON escaped backslash", `{"a": "\\ud83d"}`, "a", `\ud83d`, ""},

		{"text", "only " + canary, "a", "", "its parent is a single value"},
		{"nothing", "", "a", "", "neither JSON nor YAML"},
		{"neither", "{" + canary, "a", "", "neither JSON nor YAML"},
		{"two documents", "a: 1\n---\na: 2", "a", "", "neither JSON nor YAML"},
		{"two JSON documents", `{"a": 1} {"a": 2}`, "a", "", "neither JSON nor YAML"},
		{"not UTF-8", "{\"a\": \"\xff\"}", "a", "", "neither JSON nor YAML"},
		{"unknown anchor", "a: *" + canary, "a", "", "neither JSON nor YAML"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			field, err := ParseField(test.field)
			if err != nil {
				t.Fatal(err)
			}
			d, err := Parse([]byte(test.doc))
			var got []byte
			if err == nil {
				got, err = d.Get(unlimited(t), field)
			}
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("got %q, %v, want error %q", got, err, test.err)
				}
				for _, value := range []string{"deep", "dotted", canary} {
					if strings.Contains(err.Error(), value) {
						t.Errorf("value %q is in the error %q", value, err)
					}
				}
				return
			}
			if err != nil || string(got) != test.want {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

// Expanded aliases would fill memory.
func TestFieldAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x]\n")
	for i := range 30 {
		n := string(rune('a' + i%26))
		b.WriteString(strings.NewReplacer("N", n).Replace("N: &N [*a0, *a0, *a0]\n"))
	}
	d, err := Parse([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Get(unlimited(t), []string{"b"}); err == nil {
		t.Error("no error")
	}
}

func FuzzField(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"a": [1, {"b": "c"}]}`, "a.1.b"}, {"a: [1, {b: c}]", "a.1"}, {"a: &x [*x]", "a.0"}, {`"x"`, "x"},
		{"? [a]: b", "a"},
		{"a: !!int x", "a"}, {"{a: {b: !!float x}}", "a"}, {"- - - 1", "0.0"}, {"a: {<<: {b: 1}}", "a"},
		{`{"a": 1e999}`, "a"},
		{"[[],[],[]]", "1"}, {`[{"":0},{"":0}]`, "0"}, {"{x: &x 1, a: [1,1,*x]}", "a"},
		{`{"0":{"1":{"2":[1,1]}}}`, "0.1"}, {"a: 1\na: 2", "a"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		field, err := ParseField(name)
		if err != nil {
			return
		}
		d, err := Parse([]byte(text))
		if err != nil {
			return
		}
		got, err := d.Get(unlimited(t), field)
		if err != nil {
			return
		}
		// A field of valid JSON is valid JSON, or the text of a scalar.
		if !utf8.Valid(got) {
			t.Errorf("%q of %q is %q", name, text, got)
		}
		if len(got) > 0 && (got[0] == '{' || got[0] == '[') && d.yaml == nil && !json.Valid(got) {
			var v any
			json.Unmarshal([]byte(text), &v)
			if _, ok := v.(string); !ok && strings.Count(text, `"`) == 0 {
				t.Errorf("%q of %q is %q", name, text, got)
			}
		}
	})
}

// TestDocumentLimits tests the limits of a plaintext that has fields.
func TestDocumentLimits(t *testing.T) {
	jsonList := func(n int) string { return "[" + strings.Repeat("0,", n-2) + "0]" }
	jsonDepth := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, test := range []struct {
		name     string
		limit    int
		document func(n int) string
		err      error
	}{
		{"values of JSON", MaxNodes, jsonList, ErrTooManyValues},
		{"depth of JSON", MaxDepth, jsonDepth, ErrTooDeep},
		{"values of YAML", MaxNodes, func(n int) string { return strings.Repeat("-\n", n-2) }, ErrTooManyValues},
		{"depth of YAML in brackets", MaxDepth, func(n int) string { return "# YAML\n" + jsonDepth(n) }, ErrTooDeep},
		{"depth of YAML in blocks", MaxDepth, func(n int) string { return strings.Repeat("- ", n) + "a" }, ErrTooDeep},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := Parse([]byte(test.document(test.limit))); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			if _, err := Parse([]byte(test.document(test.limit + 1))); !errors.Is(err, test.err) {
				t.Errorf("above the limit: %v, want %v", err, test.err)
			}
		})
	}
}

// FuzzYAMLNodes verifies that no text has more nodes than are counted before it is parsed.
func FuzzYAMLNodes(f *testing.F) {
	for _, seed := range []string{
		"- {a: ,a: }", "[&a ,&b ]", "[[],[]]", "-\n-\n", "? a\n? b", "? - a\n: - b", "[? a : b, c]", "[a: b, c: d]",
		"{a, b}", "{\"a\":b,'c':d}",
		"- - - a", "a:\n- b\n- c", "a: b: c", "-\u0085- a", "-\u2028- a", "a:\u2029b", "- !t a\n- *a",
		"%TAG ! x\n--- a", "--- a\n--- b", ": b", "{:,}", "[:,]",
		"- |\n a\n- >\n b", "- \"a, b\"", "a: &x [*x]", "<<: {a: b}", "-\t- a", "{? a}", "[a,,b]", "# a\n- b # c\n",
		"[-,-]", "{a: {b: {c: }}}", "\ufeff- a",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var doc yaml.Node
		if CheckYAML(text) != nil || yaml.Unmarshal([]byte(text), &doc) != nil {
			return
		}
		if n, bound := countNodes(&doc), YAMLNodes(text); n > bound {
			t.Errorf("%q has %d nodes, and %d were counted", text, n, bound)
		}
	})
}

func countNodes(n *yaml.Node) int {
	count := 1
	for _, child := range n.Content {
		count += countNodes(child)
	}
	return count
}

// FuzzJSONSize verifies that no JSON has more values, or deeper nesting, than is counted before it is parsed.
func FuzzJSONSize(f *testing.F) {
	for _, seed := range []string{`{}`, `[]`, `[[],[]]`, `{"a":[1,{"b":"c"}]}`, `"[,"`, `{"\"[":","}`, ` [ 1 , 2 ] `,
		`"\\"`, `[{"":0},{"":0}]`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var v any
		if json.Unmarshal([]byte(text), &v) != nil {
			return
		}
		values, depth := countValues(v)
		if gotValues, gotDepth := JSONSize([]byte(text)); gotValues < values || gotDepth < depth {
			t.Errorf("%q has %d values at depth %d, and %d at %d were counted", text, values, depth, gotValues, gotDepth)
		}
	})
}

func countValues(v any) (values, depth int) {
	var children []any
	switch v := v.(type) {
	case []any:
		children = v
	case map[string]any:
		for _, child := range v {
			children = append(children, child)
		}
	default:
		return 1, 0
	}
	values = 1
	for _, child := range children {
		n, d := countValues(child)
		values, depth = values+n, max(depth, d)
	}
	return values, depth + 1
}

func TestBudget(t *testing.T) {
	if err := NewBudget(t.Context(), 10).Spend(10); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if err := NewBudget(t.Context(), 10).Spend(11); !errors.Is(err, ErrBudget) {
		t.Errorf("above the limit: %v", err)
	}
}

// unlimited is a budget that no test exceeds.
func unlimited(t testing.TB) *Budget { return NewBudget(t.Context(), MaxWork) }

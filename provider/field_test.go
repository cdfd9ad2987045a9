package provider

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

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
		{"missing", doc, "a.x.y", "", `field "a.x" is not there`},
		{"null", doc, "z", "", `field "z" is null`},
		{"below null", doc, "z.x", "", `field "z.x" is not there: its parent is a single value`},
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
		{"YAML missing", lines, "a.c", "", `field "a.c" is not there`},
		{"YAML index", lines, "a.b.9", "", "the list has 2 items"},
		{"YAML below a text", lines, "t.x", "", "its parent is a single value"},
		{"YAML twice", lines, "twice", "", `field "twice" is there twice`},
		{"YAML alias", lines, "alias", "", `field "alias" has a YAML alias`},
		{"YAML below an alias", lines, "alias.k", "", `field "alias" has a YAML alias`},
		{"YAML merge", lines, "merged", "", `field "merged" has a YAML alias`},
		{"YAML inline merge", lines, "inline", "", `field "inline" has a YAML alias or merge`},
		{"YAML number that JSON does not have", lines, "inf", "", `field "inf" has a number in it`},

		{"text", "only " + canaryPlaintext, "a", "", "its parent is a single value"},
		{"nothing", "", "a", "", "neither JSON nor YAML"},
		{"neither", "{" + canaryPlaintext, "a", "", "neither JSON nor YAML"},
		{"two documents", "a: 1\n---\na: 2", "a", "", "neither JSON nor YAML"},
		{"two JSON documents", `{"a": 1} {"a": 2}`, "a", "", "neither JSON nor YAML"},
		{"not UTF-8", "{\"a\": \"\xff\"}", "a", "", "neither JSON nor YAML"},
		{"unknown anchor", "a: *" + canaryPlaintext, "a", "", "neither JSON nor YAML"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			field, err := parseField(test.field)
			if err != nil {
				t.Fatal(err)
			}
			d, err := parseDocument([]byte(test.doc))
			var got []byte
			if err == nil {
				got, err = d.get(unlimited(t), field)
			}
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("got %q, %v, want error %q", got, err, test.err)
				}
				clean(t, append([]string{"deep", "dotted"}, canaries...), err.Error())
				return
			}
			if err != nil || string(got) != test.want {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

// Followed aliases would fill memory.
func TestFieldAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x]\n")
	for i := range 30 {
		n := string(rune('a' + i%26))
		b.WriteString(strings.NewReplacer("N", n).Replace("N: &N [*a0, *a0, *a0]\n"))
	}
	d, err := parseDocument([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.get(unlimited(t), []string{"b"}); err == nil {
		t.Error("no error")
	}
}

func TestEncoding(t *testing.T) {
	for _, test := range []struct {
		e             encoding
		in, want, err string
	}{
		{asIs, " \xff\x00 ", " \xff\x00 ", ""},
		{"", "x\n", "x\n", ""},
		{base64d, "aGVs\nbG8=\n", "hello", ""},
		{base64d, "", "", ""},
		{base64d, canaryPlaintext, "", "not base64"},
		{hexed, " 68656C6c6f \n", "hello", ""},
		{hexed, "6", "", "not hex"},
		{hexed, canaryPlaintext, "", "not hex"},
	} {
		got, err := test.e.decode([]byte(test.in))
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s of %q: %q, %v", test.e, test.in, got, err)
				continue
			}
			clean(t, canaries, err.Error())
		} else if err != nil || string(got) != test.want {
			t.Errorf("%s of %q: %q, %v", test.e, test.in, got, err)
		}
	}
}

func FuzzField(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"a": [1, {"b": "c"}]}`, "a.1.b"}, {"a: [1, {b: c}]", "a.1"}, {"a: &x [*x]", "a.0"}, {`"x"`, "x"}, {"? [a]: b", "a"},
		{"a: !!int x", "a"}, {"{a: {b: !!float x}}", "a"}, {"- - - 1", "0.0"}, {"a: {<<: {b: 1}}", "a"}, {`{"a": 1e999}`, "a"},
		{"[[],[],[]]", "1"}, {`[{"":0},{"":0}]`, "0"}, {"{x: &x 1, a: [1,1,*x]}", "a"}, {`{"0":{"1":{"2":[1,1]}}}`, "0.1"}, {"a: 1\na: 2", "a"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		field, err := parseField(name)
		if err != nil {
			return
		}
		d, err := parseDocument([]byte(text))
		if err != nil {
			return
		}
		got, err := d.get(unlimited(t), field)
		if err != nil {
			return
		}
		// What is valid JSON as a whole gives valid JSON, or a scalar's text.
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

// unlimited is the work of a mount that is far from its limit.
func unlimited(t testing.TB) *work { return &work{ctx: t.Context(), left: maxWork} }

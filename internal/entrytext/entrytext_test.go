package entrytext

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/test/hostile"
)

func TestFormatEntries(t *testing.T) {
	for _, test := range []struct{ name, value, want string }{
		{"word", "hunter2", "a: hunter2\n"},
		{"sentence", "p@ss: w#rd", "a: \"p@ss: w#rd\"\n"},
		{"number", "123", "a: \"123\"\n"},
		{"truth", "yes", "a: \"yes\"\n"},
		{"date", "2001-02-03", "a: \"2001-02-03\"\n"},
		{"nothing", "", "a: \"\"\n"},
		{"lines", "b: c\n\n# d\n", "a: |\n  b: c\n\n  # d\n"},
		{"lines without a newline at the end", "b\nc", "a: |-\n  b\n  c\n"},
		{"lines with two", "b\n\n", "a: \"b\\n\\\n  \\n\"\n"},
		{"a newline", "\n", "a: \"\\n\"\n"},
		{"an empty line first", "\nb\n", "a: |2\n\n  b\n"},
		{"indented lines", "  b\n c", "a: |2-\n    b\n   c\n"},
		{"lines of Windows", "b\r\n  c\r\n", "a: | # lines are stored with CR LF\n  b\n    c\n"},
		{"lines of both", "b\r\n  c\n", "a: \"b\\r\\n\\\n  \\  c\\n\"\n"},
		{"a byte order mark", "\ufeffb\nc", "a: |- # stored with a byte order mark\n  b\n  c\n"},
		{"JSON", `{"b":1e400,"c":[true,{}],"b":"d, e: \"{"}`, "a: | # JSON, stored on one line\n" +
			"  {\n    \"b\": 1e400,\n    \"c\": [\n      true,\n      {}\n    ],\n    \"b\": \"d, e: \\\"{\"\n  }\n"},
		{"JSON of Python", `{"b": [1, 2]}` + "\n", "a: | # JSON, stored on one line\n" +
			"  {\n    \"b\": [\n      1,\n      2\n    ]\n  }\n"},
		{"JSON with tabs", "{\n\t\"b\": 1\n}\n", "a: | # JSON, stored with tabs\n  {\n    \"b\": 1\n  }\n"},
		{"JSON of Windows", "{\r\n\t\"b\": 1\r\n}\r\n",
			"a: | # JSON, stored with tabs; lines are stored with CR LF\n  {\n    \"b\": 1\n  }\n"},
		{"JSON on lines", "{\n \"b\": 1\n}\n", "a: |\n  {\n   \"b\": 1\n  }\n"},
		{"JSON with other spaces", `{ "b":1 }`, "a: |-\n  { \"b\":1 }\n"},
		{"JSON without a field", `{}`, "a: \"{}\"\n"},
		{"JSON with a line separator", "{\"b\":\"\u2028\"}", `a: "{\"b\":\"\u2028\"}"` + "\n"},
		{"a string of JSON", `"b"`, "a: |-\n  \"b\"\n"},
		{"YAML on a line", `b: "c"`, "a: |-\n  b: \"c\"\n"},
		{"control characters", "\x00\x1b\u0085\u2028\ufeff\uffff", "a: \"\\x00\\x1b\\x85\\u2028\\ufeff\\uffff\"\n"},
		{"quotes", `"\'`, "a: |-\n  \"\\'\n"},
		{"other alphabets", "Größe ключ 🔑", "a: \"Größe ключ 🔑\"\n"},
		{"a space at the end of a line", "b \nc\n", "a: \"b \\n\\\n  c\\n\"\n"},
		{"a tab", "b\n\tc\n", "a: \"b\\n\\\n  \\tc\\n\"\n"},
		{"bytes", "\xff\xfe", "a: !!binary |\n  //4=\n"},
		{"YAML of its own", "---\n...\n- a\n", "a: |\n  ---\n  ...\n  - a\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			entries := map[string][]byte{"a": []byte(test.value)}
			got, err := Format(entries)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got.Text); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			again, problems := got.Parse(got.Text)
			if diff := cmp.Diff(entries, again); diff != "" || problems != nil {
				t.Errorf("%v, -want +got:\n%s", problems, diff)
			}
		})
	}
	// Names too.
	entries := map[string][]byte{}
	for _, name := range []string{"1", "true", "on", "null", "1e3", ".dot", "-", "a.b-c_d", "0x1f", "2001-02-03"} {
		entries[name] = []byte(name)
	}
	text, err := Format(entries)
	if err != nil || strings.Contains(text.Text, "!!") {
		t.Errorf("%v\n%v", err, text)
	}
}

// Formatted entries are parsed to the same bytes.
func TestEntriesReadBack(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	blocks := 0
	for i := range 3000 {
		entries := map[string][]byte{}
		for n := range 1 + r.IntN(4) {
			entries[fmt.Sprint("e", n)] = hostile.Value(r, []int{3, 20, 300}[i%3])
		}
		text, err := Format(entries)
		if err != nil {
			t.Fatalf("seed %d: %v: %q", seed, err, entries)
		}
		if got, problems := text.Parse(text.Text); problems != nil || !maps.EqualFunc(got, entries, bytes.Equal) {
			t.Fatalf("seed %d: %v: %q became %q by\n%s", seed, problems, entries, got, text.Text)
		}
		blocks += strings.Count(text.Text, ": |")
	}
	if blocks < 100 {
		t.Errorf("only %d values were shown as lines", blocks)
	}
}

// editors are changes that editors make to a whole file by themselves when they save it.
var editors = map[string]func(string) string{
	"nothing":                 func(text string) string { return text },
	"trims lines":             trimLines,
	"adds a newline":          func(text string) string { return text + "\n" },
	"adds many newlines":      func(text string) string { return text + "\n\n\n" },
	"removes the newline":     func(text string) string { return strings.TrimRight(text, "\n") },
	"lines end as on Windows": func(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") },
	"byte order mark":         func(text string) string { return "\ufeff" + text },
	"replaces tabs":           func(text string) string { return strings.ReplaceAll(text, "\t", "    ") },
	"all that Windows does": func(text string) string {
		return "\ufeff" + strings.ReplaceAll(strings.TrimRight(trimLines(text), "\n"), "\n", "\r\n")
	},
}

func trimLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRightFunc(line, unicode.IsSpace)
	}
	return strings.Join(lines, "\n")
}

// An editor that changes the whole file changes no value.
func TestEditorsChangeNothing(t *testing.T) {
	for name, saved := range editors {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64()
			r := rand.New(rand.NewPCG(seed, 0))
			for i := range 300 {
				entries := map[string][]byte{}
				for n := range 1 + r.IntN(4) {
					entries[fmt.Sprint("e", n)] = hostile.Value(r, []int{3, 20, 300}[i%3])
					if r.IntN(2) == 0 {
						entries[fmt.Sprint("e", n)] = lines(r)
					}
				}
				text, err := Format(entries)
				if err != nil {
					t.Fatalf("seed %d: %v: %q", seed, err, entries)
				}
				again := saved(text.Text)
				if got, problems := text.Parse(again); problems != nil || !maps.EqualFunc(got, entries, bytes.Equal) {
					t.Fatalf("seed %d: %v: %q became %q by\n%q", seed, problems, entries, got, again)
				}
			}
		})
	}
}

// lines returns a text like a configuration file, with white space where editors look for it.
func lines(r *rand.Rand) []byte {
	var b []byte
	parts := []string{"key: value", "\t", " ", "  ", "\n", "\n", "#", "\u00a0", "\u3000", "\r\n", "|", "\\"}
	for range r.IntN(20) {
		b = append(b, parts[r.IntN(len(parts))]...)
	}
	return b
}

func FuzzEntriesReadBack(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		f.Add(hostile.Value(r, 50), hostile.Value(r, 50))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		entries := map[string][]byte{"a": a, "b": b}
		text, err := Format(entries)
		if err != nil {
			t.Fatal(err)
		}
		if got, problems := text.Parse(text.Text); problems != nil || !maps.EqualFunc(got, entries, bytes.Equal) {
			t.Fatalf("%v: %q became %q by\n%s", problems, entries, got, text.Text)
		}
	})
}

func TestParseEntries(t *testing.T) {
	got, problems := Parse("# c\nport: 5432\non: no\nhex: 0x1F\nfolded: >\n  a\n  b\nword: !!str x # c\n")
	want := map[string][]byte{"port": []byte("5432"), "on": []byte("no"), "hex": []byte("0x1F"),
		"folded": []byte("a b\n"), "word": []byte("x")}
	if diff := cmp.Diff(want, got); diff != "" || problems != nil {
		t.Errorf("%v, -want +got:\n%s", problems, diff)
	}
	for _, empty := range []string{"", "\n\n", "# c\n", "{}\n", "---\n"} {
		if got, problems := Parse(empty); len(got) != 0 || problems != nil {
			t.Errorf("%q: %v, %v", empty, got, problems)
		}
	}
	for _, test := range []struct {
		name, text string
		want       []Problem
	}{
		{"not YAML", "a: b\nb: 'hunter2", []Problem{{2, "it is not YAML: found unexpected end of stream"}}},
		{"a tab", "a: b\n\tc: hunter2", []Problem{{2, "it is not YAML: found a tab character that violates indentation"}}},
		{"an alias", "a: *hunter2\n", []Problem{{0, "it is not YAML: a value begins with *: put it in quotes"}}},
		{"bytes", "a: b\nb: hunter2\xff\n", []Problem{{2, "invalid UTF-8: write the value in base64, after !!binary"}}},
		{"a control character", "a: b\n# c\nb: hunter2\x1b\n",
			[]Problem{{3, `control character U+001B: write it as \x1b, in double quotes`}}},
		{"two documents", "a: b\n---\nc: hunter2\n",
			[]Problem{{2, "a second document begins with ---: indent it if it is part of a value"}}},
		{"a list", "- hunter2\n", []Problem{{1, "it is not a mapping: write NAME: VALUE"}}},
		{"a word", "hunter2\n", []Problem{{1, "it is not a mapping: write NAME: VALUE"}}},
		{"a value that is not indented", "a: |\nhunter2 is: x\n",
			[]Problem{
				{2, "the name of an entry can only have letters, digits, -, _ and .: indent it if it is part of a value"}}},
		{"all at once", "a:\nb: ~\nc: {hunter2: x}\nd: [hunter2]\ne: 1\ne: hunter2\nf: !!binary '%'\ng: &x " +
			"hunter2\nh: !x hunter2\n? [i]\n: hunter2\n", []Problem{
			{1, `entry "a": it has no value: write "" for an empty one`},
			{2, `entry "b": it has no value: write "" for an empty one`},
			{3, `entry "c": its value is a list or a mapping: put it in quotes, or below a | and indented`},
			{4, `entry "d": its value is a list or a mapping: put it in quotes, or below a | and indented`},
			{6, `entry "e" is duplicated`},
			{7, `entry "f": its value is not base64, as !!binary says`},
			{8, `entry "g": its value begins with * or &: put it in quotes`},
			{9, `entry "h": its value begins with !: put it in quotes`},
			{10, "the name of an entry is not a text"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, problems := Parse(test.text)
			if diff := cmp.Diff(test.want, problems, cmp.AllowUnexported(Problem{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if strings.Contains(fmt.Sprint(problems), "hunter2") {
				t.Errorf("a value is repeated: %v", problems)
			}
		})
	}
}

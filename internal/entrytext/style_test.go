package entrytext

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// mark is in each random document once, as a value.
const mark = "MARK"

// jsonValue draws JSON without white space outside of strings.
func jsonValue(t *rapid.T, depth int) string {
	kinds := []string{"string", "number", "word"}
	if depth < 4 {
		kinds = append(kinds, "object", "object", "array")
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "object":
		var fields []string
		for range rapid.IntRange(0, 4).Draw(t, "fields") {
			// Few names, so that some occur twice.
			name := rapid.SampledFrom([]string{"a", "b", "", "ключ", "x y", `q\"`, "c:d", "e,f", "{", "\\u00e9"}).
				Draw(t, "name")
			fields = append(fields, `"`+name+`":`+jsonValue(t, depth+1))
		}
		return "{" + strings.Join(fields, ",") + "}"
	case "array":
		var items []string
		for range rapid.IntRange(0, 4).Draw(t, "items") {
			items = append(items, jsonValue(t, depth+1))
		}
		return "[" + strings.Join(items, ",") + "]"
	case "number":
		return rapid.SampledFrom([]string{"0", "-1", "1.50", "1e400", "123456789012345678901234567890", "-0.0", "1E+2"}).
			Draw(t, "number")
	case "word":
		return rapid.SampledFrom([]string{"true", "false", "null"}).Draw(t, "word")
	}
	text, err := json.Marshal(rapid.String().Draw(t, "text"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// written returns a JSON document as a program may write it.
func written(t *rapid.T, compact string) string {
	s := style{json: true, comma: rapid.SampledFrom([]string{",", ", ", " ,"}).Draw(t, "comma"),
		colon: rapid.SampledFrom([]string{":", ": ", " : "}).Draw(t, "colon")}
	text := s.render(compact)
	indentation := rapid.SampledFrom([]string{"", "", " ", "  ", "    ", "\t"}).Draw(t, "indentation")
	if indentation != "" {
		s = style{tabs: true}
		text = strings.ReplaceAll(s.render(compact), "\t", indentation)
	}
	text += rapid.SampledFrom([]string{"", "", "\n", "\n\n", " ", "\n  "}).Draw(t, "end")
	if rapid.Bool().Draw(t, "Windows") {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	return rapid.SampledFrom([]string{"", "", bom, " "}).Draw(t, "beginning") + text
}

// TestDocuments verifies random JSON and YAML documents: an entry that is not edited keeps its bytes, whatever an
// editor does to the file, and one that is edited differs only there.
func TestDocuments(t *testing.T) {
	styles := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		entries := map[string][]byte{}
		for i := range rapid.IntRange(1, 3).Draw(t, "entries") {
			var text string
			if rapid.IntRange(0, 3).Draw(t, "format") > 0 {
				text = written(t, `{"x":`+jsonValue(t, 0)+`,"y":"`+mark+`","z":`+jsonValue(t, 0)+"}")
			} else {
				lines := rapid.SliceOf(rapid.SampledFrom([]string{"a: b", "- c", "  d: 'e'", "# f", "", "---", "g: |", "\th",
					"i: "})).Draw(t, "lines")
				lines = append(lines, "y: "+mark)
				text = strings.Join(lines, rapid.SampledFrom([]string{"\n", "\n", "\r\n"}).Draw(t, "line end"))
			}
			entries[fmt.Sprint("e", i)] = []byte(text)
		}
		d, err := Format(entries)
		if err != nil {
			t.Fatalf("%v: %q", err, entries)
		}
		for _, s := range d.shown {
			styles[s.comment()]++
		}
		names := make([]string, 0, len(editors))
		for name := range editors {
			names = append(names, name)
		}
		slices.Sort(names)
		saved := editors[rapid.SampledFrom(names).Draw(t, "editor")]
		for name, value := range entries {
			// Only this entry is edited.
			edited := saved(replaceIn(d.Text, name, mark, "CHANGED"))
			got, problems := d.Parse(edited)
			if problems != nil {
				t.Fatalf("%v: %q", problems, edited)
			}
			for other, before := range entries {
				want := string(before)
				if other == name {
					want = strings.Replace(string(value), mark, "CHANGED", 1)
				}
				if string(got[other]) != want {
					t.Fatalf("%s is %q, want %q, after %s was edited in\n%s", other, got[other], want, name, edited)
				}
			}
		}
	})
	if len(styles) < 6 {
		t.Errorf("only these styles: %v", styles)
	}
}

// replaceIn replaces a text in the value of one entry.
func replaceIn(document, entry, from, to string) string {
	var lines []string
	in := false
	for line := range strings.Lines(document) {
		if line[0] == 'e' {
			in = strings.HasPrefix(line, entry+":")
		}
		if in {
			line = strings.Replace(line, from, to, 1)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "")
}

// TestEditedJSON verifies what is stored for edited JSON.
func TestEditedJSON(t *testing.T) {
	for _, test := range []struct{ stored, edited, want, problem string }{
		{`{"a":1}`, "e: |\n  {\n    \"a\": 1,\n    \"b\": [ 2 ]\n  }\n", `{"a":1,"b":[2]}`, ""},
		{`{"a": 1}` + "\n", "e: |\n  {\"a\": 2,\n  \"b\":3}\n", `{"a": 2, "b": 3}` + "\n", ""},
		{"{\n\t\"a\": 1\n}", "e: |\n  {\n    \"a\": 2\n  }\n", "{\n\t\"a\": 2\n}", ""},
		{"a\r\nb\r\n", "e: |\n  a\n  c\n", "a\r\nc\r\n", ""},
		{bom + "a\nb\n", "e: |\n  a\n  c\n", bom + "a\nc\n", ""},
		{`{"a":1}`, "e: '{\"a\": 2}'\n", `{"a": 2}`, ""},  // in quotes: as it is written
		{`{"a":1}`, "e: other\n", "other", ""},            // not JSON, and not a block
		{`{"a":1}`, "f: |\n  {\"a\": 1}\n", "", ""},       // another entry
		{`{"a":1}`, "e: |\n  [\n    1\n  ]\n", `[1]`, ""}, // other JSON
		{`{"a":1}`, "e: |\n  hunter2\n", "", "line 1: it was JSON, and is not any more"},
		{`{"a":1}`, "e: |\n  {\"a\": 1,}\n", "", "it was JSON, and is not any more"},
	} {
		d, err := Format(map[string][]byte{"e": []byte(test.stored)})
		if err != nil {
			t.Fatal(err)
		}
		got, problems := d.Parse(test.edited)
		if test.problem != "" {
			if len(problems) != 1 || !strings.Contains(problems[0].Text, strings.TrimPrefix(test.problem, "line 1: ")) ||
				strings.Contains(problems[0].Text, "hunter2") {
				t.Errorf("%q: %v", test.edited, problems)
			}
			continue
		}
		if problems != nil || string(got["e"]) != test.want {
			t.Errorf("%q: %q, want %q (%v)", test.edited, got["e"], test.want, problems)
		}
	}
}

// TestDeepJSON verifies that indenting does not make a value much longer.
func TestDeepJSON(t *testing.T) {
	deep := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
	d, err := Format(map[string][]byte{"e": []byte(deep)})
	if err != nil || len(d.Text) > 2*len(deep) {
		t.Errorf("%d bytes became %d, %v", len(deep), len(d.Text), err)
	}
}

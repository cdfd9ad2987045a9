package manifest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// editOf sets the entries of a text such as "a c" to {{new …}} of their names.
func editOf(f *File, set, remove string) ([]byte, error) {
	texts := map[string][]byte{}
	for _, name := range strings.Fields(set) {
		texts[name] = []byte(textOf(12, strings.Trim(name, "_")))
	}
	return f.Edit(f.Secrets[len(f.Secrets)-1], texts, strings.Fields(remove))
}

func TestEdit(t *testing.T) {
	for _, test := range []struct{ name, before, set, remove, after string }{
		{"set one", "data:\n  a: {{b64 old a}} # one\n  b: {{b64 old b}}\n", "a", "",
			"data:\n  a: {{b64 new a}} # one\n  b: {{b64 old b}}\n"},
		{"add", "# head\ndata:\n    a: '{{b64 old a}}' # one\n    # two\n    b: '{{b64 old b}}' # three\n# end\n", "c d", "",
			"# head\ndata:\n    a: '{{b64 old a}}' # one\n    # two\n    b: '{{b64 old b}}' # three\n" +
				"    c: '{{b64 new c}}'\n    d: '{{b64 new d}}'\n# end\n"},
		{"add to what ends without a newline", "data:\n  a: {{b64 old a}}", "c", "",
			"data:\n  a: {{b64 old a}}\n  c: {{b64 new c}}\n"},
		{"remove the first, the last and one between",
			"data:\n  a: {{b64 old a}}\n  b: {{b64 old b}} # gone\n  # stays\n  c: {{b64 old c}}\n  d: {{b64 old d}}\n" +
				"type: x\n", "", "a b d",
			"data:\n  # stays\n  c: {{b64 old c}}\ntype: x\n"},
		{"all at once", "data:\n  a: {{b64 old a}}\n  b: {{b64 old b}}\n  c: {{b64 old c}}\n", "b d", "a c",
			"data:\n  b: {{b64 new b}}\n  d: {{b64 new d}}\n"},
		{"all for another", "data:\n  a: {{b64 old a}}\n", "b", "a", "data:\n  b: {{b64 new b}}\n"},
		{"in blocks", "stringData:\n  a: |-\n    {{old a}}\n  b: |-\n    {{old b}}\n\ntype: x\n", "c",
			"a", "stringData:\n  b: |-\n    {{old b}}\n  c: {{new c}}\n\ntype: x\n"},
		{"in lines of base64", "data:\n  a: |-\n    {{b64 old a}}\n  b: \"{{b64 old b}}\"\n", "c", "a",
			"data:\n  b: \"{{b64 old b}}\"\n  c: \"{{b64 new c}}\"\n"},
		{"value below its name", "data:\n  a:\n    {{b64 old a}}\n  b:\n    {{b64 old b}}\n", "c", "a",
			"data:\n  b:\n    {{b64 old b}}\n  c: {{b64 new c}}\n"},
		{"data before stringData", "stringData:\n  a: {{old a}}\ndata:\n  b: {{b64 old b}}\n", "c", "a",
			"stringData:\ndata:\n  b: {{b64 old b}}\n  c: {{b64 new c}}\n"},
		{"the same in both", "stringData:\n  a: {{old a}}\ndata:\n  a: {{b64 old a}}\n", "a", "",
			"stringData:\n  a: {{new a}}\ndata:\n  a: {{b64 new a}}\n"},
		{"names that are no texts in YAML", "data:\n  a: {{b64 old a}}\n", "true 1e3 -- .inf x.y", "",
			"data:\n  a: {{b64 old a}}\n  \"--\": {{b64 new --}}\n  \".inf\": {{b64 new .inf}}\n" +
				"  \"1e3\": {{b64 new 1e3}}\n  \"true\": {{b64 new true}}\n  x.y: {{b64 new x.y}}\n"},
		{"flow", "data: {a: {{b64 old a}}, b: {{b64 old b}}, c: {{b64 old c}}}\n", "d", "a c",
			"data: {b: {{b64 old b}}, d: {{b64 new d}}}\n"},
		{"flow with one", "data: {a: {{b64 old a}}}\n", "d", "", "data: {a: {{b64 old a}}, d: {{b64 new d}}}\n"},
		{"flow, all for another", "data: { a: {{b64 old a}} }\n", "d", "a", "data: { d: {{b64 new d}} }\n"},
		{"empty flow", "data: {}\n", "d e", "", "data: {d: {{b64 new d}}, e: {{b64 new e}}}\n"},
		{"version hint", "data: {a: {{b64 old a}}, b: {{b64 new b}}}\n", "c", "a",
			"data: {b: {{b64 new b}}, c: {{b64 new c}}}\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			hinted := strings.Replace(head, "secretmanager.io/transit-key",
				`secretmanager.io/key-version: "<1>", secretmanager.io/transit-key`, 1)
			old := strings.Contains(test.after, "old ")
			for _, crlf := range []bool{false, true} {
				// The hint follows the oldest remaining version.
				before, after := expand(hinted+test.before, false), strings.ReplaceAll(hinted, "<1>",
					map[bool]string{true: "1", false: "12"}[old])+expand2(test.after)
				if crlf {
					before, after = strings.ReplaceAll(before, "\n", "\r\n"), strings.ReplaceAll(after, "\n", "\r\n")
				}
				f, err := parse([]byte(before))
				if err != nil {
					t.Fatal(err)
				}
				got, err := editOf(f, test.set, test.remove)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(after, string(got)); diff != "" {
					t.Errorf("CRLF %t: -want +got:\n%s", crlf, diff)
				}
				if string(f.source) != before {
					t.Error("the file itself changed")
				}
			}
		})
	}
}

// expand2 is expand for names that are not words.
func expand2(layout string) string {
	for _, name := range []string{"--", ".inf", "x.y"} {
		layout = strings.ReplaceAll(layout, "{{b64 new "+name+"}}", b64(textOf(12, name)))
	}
	return expand(layout, false)
}

func TestEditJSON(t *testing.T) {
	const start = `{"apiVersion": "v1", "kind": "Secret", "metadata": ` +
		`{"name": "matrix", "labels": {"secretmanager.io/transit-key": "matrix"}}, `
	for _, test := range []struct{ name, before, set, remove, after string }{
		{"pretty", "\"data\": {\n    \"a\": \"{{b64 old a}}\",\n    \"b\": \"{{b64 old b}}\"\n  }\n}\n", "c",
			"", "\"data\": {\n    \"a\": \"{{b64 old a}}\",\n    \"b\": \"{{b64 old b}}\",\n    \"c\": \"{{b64 " +
				"new c}}\"\n  }\n}\n"},
		{"pretty with one", "\"data\": {\n\t\t\"a\": \"{{b64 old a}}\"\n\t}\n}\n", "c d", "",
			"\"data\": {\n\t\t\"a\": \"{{b64 old a}}\",\n\t\t\"c\": \"{{b64 new c}}\",\n\t\t\"d\": \"{{b64 new d}}\"\n" +
				"\t}\n}\n"},
		{"pretty, first gone", "\"data\": {\n    \"a\": \"{{b64 old a}}\",\n    \"b\": \"{{b64 old b}}\"\n  }\n}\n", "",
			"a", "\"data\": {\n    \"b\": \"{{b64 old b}}\"\n  }\n}\n"},
		{"pretty, last gone", "\"data\": {\n    \"a\": \"{{b64 old a}}\",\n    \"b\": \"{{b64 old b}}\"\n  }\n}\n",
			"", "b", "\"data\": {\n    \"a\": \"{{b64 old a}}\"\n  }\n}\n"},
		{"pretty, last gone for another",
			"\"data\": {\n    \"a\": \"{{b64 old a}}\",\n    \"b\": \"{{b64 old b}}\"\n  }\n}\n", "a c", "b",
			"\"data\": {\n    \"a\": \"{{b64 new a}}\",\n    \"c\": \"{{b64 new c}}\"\n  }\n}\n"},
		{"compact", `"data":{"a":"{{b64 old a}}","b":"{{b64 old b}}","c":"{{b64 old c}}"}}`, "d", "b",
			`"data":{"a":"{{b64 old a}}","c":"{{b64 old c}}","d":"{{b64 new d}}"}}`},
		{"empty", `"data":{ }}`, "d true", "", `"data":{"d": "{{b64 new d}}", "true": "{{b64 new true}}" }}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := parse([]byte(start + expand(test.before, false)))
			if err != nil {
				t.Fatal(err)
			}
			got, err := editOf(f, test.set, test.remove)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(start+expand(test.after, false), string(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if _, err := f.Append([]byte("a: b\n")); err == nil || !strings.Contains(err.Error(), "it is JSON") {
				t.Errorf("another document: %v", err)
			}
		})
	}
}

func TestEditErrors(t *testing.T) {
	for _, test := range []struct{ name, source, set, remove, want string }{
		{"no data", "type: x\n", "a", "", `it has neither data nor stringData: write "data: {}" in it first`},
		{"absent", "data: {a: {{b64 old a}}}\n", "", "x", `line 1: Secret demo/matrix: entry "x": it does not exist`},
		{"anchor", "data:\n  a: &x {{b64 old a}}\n  b: {{b64 old b}}\n", "", "a", `entry "a": its value is an anchor`},
		{"comment between", "data: {a: {{b64 old a}}, # of b\n b: {{b64 old b}}}\n", "", "a",
			"there is a comment between its entries"},
		{"name that does not begin its line", "data:\n  ? a\n  : {{b64 old a}}\n  ? b\n  : {{b64 old b}}\n", "", "a",
			"does not begin its line"},
		{"a kept newline", "data:\n  a: {{b64 old a}}\nx: |+\n  y\n", "", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := parse([]byte(expand(head+test.source, false)))
			if err != nil {
				t.Fatal(err)
			}
			out, err := editOf(f, test.set, test.remove)
			if test.want == "" {
				if err != nil || !bytes.Equal(out, f.source) {
					t.Errorf("nothing to do: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || out != nil {
				t.Errorf("error %v, not %q", err, test.want)
			}
		})
	}
	t.Run("not ciphertext", func(t *testing.T) {
		f, err := parse([]byte(expand(head+"data: {a: {{b64 old a}}}\n", false)))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b"} {
			_, err = f.Edit(f.Secrets[0], map[string][]byte{name: []byte("hunter2")}, nil)
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %v", err)
			}
		}
	})
	// An entry whose end is unknown does not prevent changes of others.
	t.Run("add beside an anchor", func(t *testing.T) {
		f, err := parse([]byte(expand(head+"data:\n  a: &x {{b64 old a}}\n", false)))
		if err != nil {
			t.Fatal(err)
		}
		out, err := editOf(f, "c", "")
		if want := expand(head+"data:\n  c: {{b64 new c}}\n  a: &x {{b64 old a}}\n", false); err != nil ||
			string(out) != want {
			t.Errorf("%v:\n%s", err, out)
		}
	})
}

func TestAppend(t *testing.T) {
	more := expand(head+"data:\n  z: {{b64 new z}}\n", false)
	for _, test := range []struct{ name, before, between string }{
		{"after one", "a: b # c\n", "---\n"},
		{"after two", "a: b\n---\nc: d\n", "---\n"},
		{"no newline at the end", "a: b", "\n---\n"},
		{"nothing", "", ""},
		{"a comment", "# c\n", ""},
		{"CRLF", "a: b\r\n", "---\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := parse([]byte(test.before))
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.Append([]byte(more))
			want := test.before + test.between + more
			if test.name == "CRLF" {
				want = test.before + test.between + strings.ReplaceAll(more, "\n", "\r\n")
			}
			if err != nil || string(got) != want {
				t.Errorf("%v:\n%s", err, got)
			}
		})
	}
	// Another newline would change the existing value.
	f, err := parse([]byte("a: |+\n  b"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Append([]byte(more)); err == nil || got != nil {
		t.Errorf("%v:\n%s", err, got)
	}
}

// Secrets with other content are recognized, with their entries.
func TestPlain(t *testing.T) {
	f, err := parse(
		[]byte(
			expand(head+"data: {a: {{b64 old a}}}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: p, namespace: "+
				"n}\nstringData: {a: hunter2}\n", false)))
	if err != nil || len(f.Secrets) != 1 || len(f.Plain) != 1 {
		t.Fatalf("%d and %d, %v", len(f.Secrets), len(f.Plain), err)
	}
	if p := f.Plain[0]; p.Name != "p" || p.Namespace != "n" || p.Line != 6 || len(p.Entries) != 1 ||
		p.Entries[0].Problem == nil || p.Entries[0].Problem.Kind != Plaintext {
		t.Errorf("%+v", p)
	}
}

// FuzzEdit removes an entry, sets one and adds one, and compares the results of kubectl's
// parser: no other value may differ.
func FuzzEdit(f *testing.F) {
	for _, layout := range layouts(f) {
		text := expand(layout, false)
		for n := range byte(4) {
			f.Add([]byte(text), n)
			f.Add([]byte(strings.ReplaceAll(text, "\n", "\r\n")), n)
		}
	}
	f.Fuzz(func(t *testing.T, source []byte, n byte) {
		file, err := parse(source)
		if err != nil || len(file.Secrets) == 0 {
			return
		}
		before, err := objects(source)
		if err != nil {
			return // of a kind that this package reads and kubectl does not
		}
		s := file.Secrets[int(n)%len(file.Secrets)]
		set := map[string][]byte{"fuzz-new": []byte(textOf(7, "new"))}
		var remove []string
		if len(s.Entries) > 0 {
			e := s.Entries[int(n)%len(s.Entries)]
			remove = append(remove, e.Name)
			if other := s.Entries[0]; other.Name != e.Name {
				set[other.Name] = []byte(textOf(7, "set"))
			}
		}
		if slices.Contains(remove, "fuzz-new") {
			return
		}
		result, err := file.Edit(s, set, remove)
		if err != nil {
			if strings.Contains(err.Error(), "please report") && !bytes.ContainsAny(source, "&*?|>!") {
				t.Errorf("found by the last check only: %v", err)
			}
			return
		}
		after, err := objects(result)
		if err != nil {
			t.Fatalf("the result does not parse: %v\n%s", err, result)
		}
		if len(after) != len(before) {
			t.Fatalf("%d objects became %d", len(before), len(after))
		}
		changed := 0
		for i := range before {
			if !cmp.Equal(before[i], after[i]) {
				changed++
			}
		}
		if changed != 1 {
			t.Errorf("%d documents changed\n%s", changed, result)
		}
		again, err := parse(result)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, e := range again.Secrets[int(n)%len(file.Secrets)].Entries {
			got[e.Name] = string(e.Text)
		}
		expect := map[string]string{"fuzz-new": textOf(7, "new")}
		for _, e := range s.Entries {
			expect[e.Name] = string(e.Text)
			if text, ok := set[e.Name]; ok {
				expect[e.Name] = string(text)
			}
		}
		for _, name := range remove {
			delete(expect, name)
		}
		if diff := cmp.Diff(expect, got); diff != "" {
			t.Errorf("entries, -want +got:\n%s", diff)
		}
	})
}

// objects are the documents as kubectl reads them.
func objects(source []byte) (all []any, err error) {
	for docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(source))); ; {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		var object any
		if err := yaml.Unmarshal(doc, &object); err != nil {
			return nil, err
		}
		all = append(all, object)
	}
}

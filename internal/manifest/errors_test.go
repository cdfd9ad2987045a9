package manifest

import (
	"strings"
	"testing"
)

const head = "apiVersion: v1\nkind: Secret\nmetadata: {name: matrix, namespace: demo, labels: " +
	"{secretmanager.io/transit-key: matrix}}\n"

func TestParseErrors(t *testing.T) {
	for _, test := range []struct {
		name, source string
		want         []string // all of them, in one error
	}{
		{"not YAML", "a: b: c", []string{"it is not YAML: mapping values are not allowed"}},
		{"not YAML but plaintext", "stringData:\n  a: *hunter2\n",
			[]string{"it is not YAML: unknown anchor (removed) referenced"}},
		{"not text", "a: \xff", []string{"not UTF-8"}},
		{"several problems at once", head + "data:\n  a: aHVudGVyMg==\n  b: '***'\n  c: {d: e}\n  f:\nstringData:\n  " +
			"g: hunter2\n", []string{
			`line 5: Secret demo/matrix: entry "a": is not ciphertext`,
			`line 6: Secret demo/matrix: entry "b": is not base64`,
			`line 7: Secret demo/matrix: entry "c": its value is not a string in YAML`,
			`line 8: Secret demo/matrix: entry "f": is empty`,
			`line 10: Secret demo/matrix: entry "g": is not ciphertext`,
		}},
		{"folded over lines", expand(head+"data:\n  a: >\n    {{b64 old a /40}}\n", false),
			[]string{`line 5: Secret demo/matrix: entry "a": is not base64`}},
		{"newline after the text", expand(head+"stringData:\n  a: |\n    {{old a}}\n", false),
			[]string{`entry "a": has white space around the ciphertext`}},
		{"no label", "apiVersion: v1\nkind: Secret\ntype: secretmanager.io/ciphertext\nmetadata: {name: matrix, " +
			"annotations: {secretmanager.io/scope: loose}}\n", []string{
			"line 1: Secret matrix: label secretmanager.io/transit-key is missing", `unknown scope "loose"`,
		}},
		{"no name", "apiVersion: v1\nkind: Secret\nmetadata: {labels: {secretmanager.io/transit-key: matrix}}\n",
			[]string{"line 1: a ciphertext Secret without a name"}},
		{"the same entry twice", expand(head+"data: {a: {{b64 old a}}, a: {{b64 old b}}}\n", false),
			[]string{`line 4: Secret demo/matrix: entry "a": is duplicated in data`}},
		{"the same label twice", "apiVersion: v1\nkind: Secret\nmetadata: {name: m, labels: " +
			"{secretmanager.io/transit-key: m, a: b, a: c}}\n", []string{`line 3: Secret m: "a" is duplicated`}},
		{"label that is a number", "apiVersion: v1\nkind: Secret\nmetadata: {name: m, labels: " +
			"{secretmanager.io/transit-key: 3}}\n", []string{"line 3: Secret m: labels: the value of " +
			"secretmanager.io/transit-key is not a string in YAML"}},
		{"alias for data", expand("x: 1\n---\n"+head+"other: &d {a: {{b64 old a}}}\ndata: *d\n", false),
			[]string{"Secret demo/matrix: data is not a plain mapping"}},
		{"alias for a key", expand(head+"other: &k a\ndata: {*k : {{b64 old a}}}\n", false),
			[]string{"data has a key that is not a plain name"}},
		{"merge with data", expand(head+"other: &o {data: {a: {{b64 old a}}}}\n<<: *o\n", false),
			[]string{"data is not a plain mapping"}},
		{"merge in data", expand(head+"other: &d {a: {{b64 old a}}}\ndata: {<<: *d}\n", false),
			[]string{"data has a key that is not a plain name"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := parse([]byte(test.source))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in:\n%s", want, err)
				}
			}
			for _, secret := range []string{"hunter2", "aHVudGVyMg", "+/v7", "***"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error repeats %q:\n%s", secret, err)
				}
			}
		})
	}
}

// Values that can be read but not written are an error of Replace, and only if they
// are to be replaced.
func TestReplaceErrors(t *testing.T) {
	for _, test := range []struct{ name, source, want string }{
		{"anchor", "data: {a: &x {{b64 old a}}}\n", `line 4: Secret demo/matrix: entry "a": its value is an anchor`},
		{"tag", "data: {a: !!str {{b64 old a}}}\n", "has a tag"},
		{"alias", "x: &x {{b64 old a}}\ndata: {a: *x}\n", "an alias"},
		{"quotes over lines", "data:\n  a: \"\\\n    {{b64 old a}}\"\n", "several lines"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := parse([]byte(expand(head+test.source, false)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Replace(nil); err != nil {
				t.Errorf("replacing nothing: %v", err)
			}
			out, err := renew(f)
			if err == nil || !strings.Contains(err.Error(), test.want) || out != nil {
				t.Errorf("error %v, not %q", err, test.want)
			}
		})
	}
	t.Run("immutable", func(t *testing.T) {
		for _, value := range []string{"true", "True", "yes", "on"} {
			f, err := parse([]byte(expand(head+"data: {a: {{b64 old a}}, b: {{b64 new b}}}\nimmutable: "+value+"\n", false)))
			if err != nil {
				t.Fatal(err)
			}
			s := f.Secrets[0]
			if _, err := f.Replace(nil); err != nil {
				t.Errorf("replacing nothing: %v", err)
			}
			_, replaced := renew(f)
			_, removed := f.Edit(s, nil, []string{"b"})
			_, added := f.Edit(s, map[string][]byte{"c": []byte(textOf(12, "c"))}, nil)
			for _, err := range []error{replaced, removed, added} {
				if err == nil || !strings.Contains(err.Error(), "line 1: Secret demo/matrix is immutable") {
					t.Errorf("%s: error %v", value, err)
				}
			}
		}
		for _, value := range []string{"false", `"true"`} {
			f, err := parse([]byte(expand(head+"data: {a: {{b64 old a}}}\nimmutable: "+value+"\n", false)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := renew(f); err != nil {
				t.Errorf("%s: %v", value, err)
			}
		}
	})
	t.Run("not ciphertext", func(t *testing.T) {
		f, err := parse([]byte(expand(head+"data: {a: {{b64 old a}}}\n", false)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Replace(map[*Entry][]byte{f.Secrets[0].Entries[0]: []byte("hunter2")})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %v", err)
		}
	})
	// Whatever the reason, only the location of the value itself is written.
	t.Run("wrong place", func(t *testing.T) {
		f, err := parse([]byte(expand(head+"data: {a: {{b64 old a}}, b: {{b64 old a}}}\n", false)))
		if err != nil {
			t.Fatal(err)
		}
		a, b := f.Secrets[0].Entries[0], f.Secrets[0].Entries[1]
		a.node.Column = b.node.Column
		if out, err := f.Replace(map[*Entry][]byte{a: []byte(textOf(12, "a"))}); err == nil || out != nil {
			t.Errorf("error %v", err)
		}
	})
	t.Run("check sees a wrong result", func(t *testing.T) {
		f, err := parse([]byte(expand(head+"data: {a: {{b64 old a}}, b: {{b64 new b}}}\n", false)))
		if err != nil {
			t.Fatal(err)
		}
		p := plan{texts: map[*Entry][]byte{f.Secrets[0].Entries[0]: []byte(textOf(12, "a"))}}
		edits, err := f.edits(p)
		if err != nil {
			t.Fatal(err)
		}
		right := expand(head+"data: {a: {{b64 old a}}, b: {{b64 new b}}}\n", true)
		if err := f.check([]byte(right), edits, p); err != nil {
			t.Errorf("the right result: %v", err)
		}
		for name, wrong := range map[string]string{
			"unchanged":      string(f.source),
			"other entry":    strings.Replace(right, ", b: ", ", c: ", 1),
			"more documents": right + "---\na: b\n",
			"more entries":   strings.Replace(right, "data: {", "data: {z: y, ", 1),
			"other value":    strings.Replace(right, b64(textOf(12, "b")), b64(textOf(12, "c")), 1),
			"quotes":         strings.Replace(right, "namespace: demo", "namespace: 'demo'", 1),
			"not YAML":       "{",
		} {
			if err := f.check([]byte(wrong), edits, p); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
	})
}

// FuzzReplace replaces every entry by ciphertext of the same length and compares the
// texts: only characters of ciphertext may differ.
func FuzzReplace(f *testing.F) {
	for _, layout := range layouts(f) {
		text := expand(layout, false)
		f.Add([]byte(text))
		f.Add([]byte(strings.ReplaceAll(text, "\n", "\r\n")))
		f.Add([]byte(strings.ReplaceAll(text, "\n", "\r")))
		f.Add([]byte(bom + strings.ReplaceAll(text, "#", "\u2028#")))
	}
	f.Fuzz(func(t *testing.T, source []byte) {
		file, err := parse(source)
		if err != nil {
			return
		}
		texts := map[*Entry][]byte{}
		for _, s := range file.Secrets {
			for _, e := range s.Entries {
				texts[e] = []byte(strings.Map(other, string(e.Text)))
			}
			s.hint = nil
		}
		result, err := file.Replace(texts)
		if err != nil {
			if strings.Contains(err.Error(), "please report") {
				t.Errorf("detected only by the last check: %v", err)
			}
			return
		}
		again, err := parse(result)
		if err != nil {
			t.Fatalf("the result does not parse: %v", err)
		}
		for i, s := range file.Secrets {
			for j, e := range s.Entries {
				if got := again.Secrets[i].Entries[j]; got.Name != e.Name || string(got.Text) != string(texts[e]) {
					t.Errorf("%s: entry %q does not have the written value", s, e.Name)
				}
			}
		}
		if strings.Contains(string(source), `\`) {
			return // an escape in a JSON string is removed with the value
		}
		if len(result) != len(source) {
			t.Fatalf("%d bytes became %d", len(source), len(result))
		}
		for i := range source {
			if source[i] != result[i] && (!payload(source[i]) || !payload(result[i])) {
				t.Fatalf("byte %d was %q and is %q", i, source[i], result[i])
			}
		}
	})
}

// other replaces characters of base64, so that the text remains ciphertext.
func other(r rune) rune {
	switch r {
	case '+':
		return '/'
	case '/':
		return '+'
	}
	return r
}

func payload(c byte) bool {
	return c == '+' || c == '/' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

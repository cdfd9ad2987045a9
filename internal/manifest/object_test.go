package manifest

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/encoding/unicode"
)

// Every Secret that kubectl would create is found, however a file describes it.
func TestObjectsThatKubectlCreates(t *testing.T) {
	label := "labels: {secretmanager.io/transit-key: k}"
	secret := "apiVersion: v1, kind: Secret, metadata: {name: a, " + label + "}"
	for _, test := range []struct {
		name, source string
		want         []string // name:line
	}{
		{"item with merged fields", "apiVersion: v1\nkind: List\nitems:\n- &s {" +
			secret + "}\n- <<: *s\n  metadata: {name: b, " +
			label + "}\n", []string{"a:4", "b:5"}},
		{"only the kind is merged",
			"kind: List\nx: &x {apiVersion: v1, kind: Secret}\nitems:\n- {<<: *x, metadata: {name: a, " +
				label + "}}\n", []string{"a:4"}},
		{"merges of merges",
			"x: &x {kind: Secret}\ny: &y {<<: *x, apiVersion: v1}\nitems:\n- {<<: [*y], metadata: {name: a, " +
				label + "}}\n", []string{"a:4"}},
		{"item is an alias", "kind: List\nx: &s {" + secret + "}\nitems: [*s]\n", []string{"a:3"}},
		{"items are an alias", "kind: List\nx: &l [{" + secret + "}]\nitems: *l\n", []string{"a:2"}},
		{"items are merged", "x: &l {items: [{" + secret + "}], kind: List}\n<<: *l\n", []string{"a:1"}},
		{"kind is an alias", "x: &k Secret\napiVersion: v1\nkind: *k\nmetadata: {name: a, " + label + "}\n", []string{"a:1"}},
		{"list in a list", "kind: List\nitems: [{kind: List, items: [{" + secret + "}]}]\n", []string{"a:2"}},
		{"items without a kind", "apiVersion: v1\nkind: SecretList\nitems: [{metadata: {name: a, " + label + "}}]\n",
			[]string{"a:3"}},
		{"list of another name", "apiVersion: v1\nkind: Thing\nitems: [{" + secret + "}]\n", []string{"a:3"}},
		{"the same item twice", "kind: List\nitems: [&s {" + secret + "}, *s]\n", []string{"a:2"}},
		{"a list that contains itself", "kind: List\nitems: &l [*l, {" + secret + "}]\n", []string{"a:2"}},
		{"an item that is its list", "kind: List\nitems: [&l {kind: List, items: [*l, {" +
			secret + "}]}]\n", []string{"a:2"}},
		{"items of another list", "apiVersion: v1\nkind: ConfigMapList\nitems: [{metadata: {name: a, " +
			label + "}}]\n", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := Parse([]byte(test.source))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range f.Secrets {
				got = append(got, s.Name+":"+string(rune('0'+s.Line)))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// A file can have many JSON objects. Reading it takes time in proportion to its length.
func TestManyJSONObjects(t *testing.T) {
	const n = 50_000
	secret := `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a","labels":{"secretmanager.io/transit-key":"k"}}}`
	f, err := Parse([]byte(strings.Repeat("{} {\"é\":1}\n", n) + "{} " + secret))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Objects) != 2*n+2 || len(f.Secrets) != 1 || f.Secrets[0].Line != n+1 {
		t.Errorf("%d objects, %d Secrets", len(f.Objects), len(f.Secrets))
	}
}

// Data that is merged into an item is found, and not written.
func TestMergedDataIsNotWritten(t *testing.T) {
	f, err := Parse(
		[]byte(expand("apiVersion: v1\nkind: List\nitems:\n- &s {apiVersion: v1, kind: Secret, metadata: {name: a, "+
			"labels: {secretmanager.io/transit-key: k}}, data: {a: {{b64 old a}}}}\n- <<: *s\n  metadata: {name: b, "+
			"labels: {secretmanager.io/transit-key: k}}\n", false)),
	)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(f.Secrets[1].Entries); n != 1 {
		t.Errorf("%d entries", n)
	}
	if err := f.Check(); err == nil || !strings.Contains(err.Error(), "Secret b: data is not a plain mapping") {
		t.Errorf("error %v", err)
	}
}

func TestUTF16(t *testing.T) {
	source := expand(head+"# größer\ndata: {a: {{b64 old a}}}\n", false)
	for _, order := range []unicode.Endianness{unicode.LittleEndian, unicode.BigEndian} {
		encoded, err := unicode.UTF16(order, unicode.UseBOM).NewEncoder().Bytes([]byte(source))
		if err != nil {
			t.Fatal(err)
		}
		f, err := Parse(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Secrets) != 1 || len(f.Secrets[0].Entries) != 1 || f.Secrets[0].Entries[0].Version() != 1 {
			t.Errorf("Secrets %+v", f.Secrets)
		}
		if err := f.Check(); err == nil || !strings.Contains(err.Error(), "it is UTF-16") {
			t.Errorf("error %v", err)
		}
	}
}

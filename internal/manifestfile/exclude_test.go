package manifestfile

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestExclude compares patterns with what git check-ignore matches.
func TestExclude(t *testing.T) {
	for _, test := range []struct {
		pattern, path string
		want          bool
	}{
		{"a.yaml", "a.yaml", true},
		{"a.yaml", "d/e/a.yaml", true},
		{"a.yaml", "ba.yaml", false},
		{"a.yaml", "axyaml", false},
		{"*.yaml", "d/a.yaml", true},
		{"*.json", "d/a.yaml", false},
		{"d", "d/a.yaml", true},
		{"d/", "d/a.yaml", true},
		{"d/", "x/d/e/a.yaml", true},
		{"a.yaml/", "d/a.yaml", false},
		{"/d", "d/a.yaml", true},
		{"/d", "x/d/a.yaml", false},
		{"d/e", "d/e/a.yaml", true},
		{"d/e", "x/d/e/a.yaml", false},
		{"./d/e", "d/e/a.yaml", true},
		{"**/d/e", "x/y/d/e/a.yaml", true},
		{"**/d/e", "d/e/a.yaml", true},
		{"d/**", "d/e/a.yaml", true},
		{"d/**/a.yaml", "d/a.yaml", true},
		{"d/**/a.yaml", "d/e/f/a.yaml", true},
		{"d/*.yaml", "d/e/a.yaml", false},
		{"d/*", "d/e/a.yaml", true},
		{"d?", "de/a.yaml", true},
		{"d?", "d/a.yaml", false},
		{"[ab].yaml", "b.yaml", true},
		{"[!ab].yaml", "b.yaml", false},
		{"[!ab].yaml", "c.yaml", true},
		{"[]].yaml", "].yaml", true},
		{"[a-c].yaml", "b.yaml", true},
		{"a[.yaml", "a[.yaml", true},
		{`\*.yaml`, "a.yaml", false},
		{`\*.yaml`, "*.yaml", true},
		{"d+.yaml", "dd.yaml", false},
		{"d", "../d/a.yaml", true},
	} {
		p, err := ParsePattern(test.pattern)
		if err != nil {
			t.Errorf("%s: %v", test.pattern, err)
			continue
		}
		o := Options{Exclude: []*Pattern{p}}
		if got := o.excludes(test.path, false); got != test.want {
			t.Errorf("%s, %s: %v", test.pattern, test.path, got)
		}
		if unmatched := len(Unmatched(o.Exclude)) == 1; unmatched == test.want {
			t.Errorf("%s, %s: unmatched %v", test.pattern, test.path, unmatched)
		}
	}
	for _, invalid := range []string{"", "/", "!a", "[b-a]"} {
		if _, err := ParsePattern(invalid); err == nil {
			t.Errorf("%q: no error", invalid)
		}
	}
}

// TestOpenTemplates verifies which files are skipped as templates, and that nothing is that kubectl would accept.
func TestOpenTemplates(t *testing.T) {
	t.Chdir(t.TempDir())
	secret := strings.ReplaceAll(string(manifestOf(1)), "\t", "  ")
	class := "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\nmetadata: {name: m}\n" +
		"spec: {provider: secretmanager, parameters: {secretName: '{{ .Values.name }}'}}\n"
	chart := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: '{{ .Values.x }}'}\n"
	files := map[string]string{
		"template/control.yaml":       "{{- if .Values.x }}\n" + secret + "{{- end }}\n",
		"template/values.yaml":        "metadata: {name: {{ .Release.Name }}}\n",
		"template/name.yaml":          "kind: Secret\napiVersion: v1\nmetadata: {name: '{{ .Values.name }}-x'}\n",
		"template/label.yaml":         "kind: Secret\napiVersion: v1\nmetadata: {labels: {a: '{{ .x }}'}}\n",
		"template/data.yaml":          "kind: Secret\napiVersion: v1\nmetadata: {name: x}\ndata: {a: '{{ .x }}'}\n",
		"template/class.yaml":         class,
		"chart/Chart.yaml":            "name: x\n",
		"chart/templates/x.yaml":      chart,
		"manifest/config.yaml":        chart,
		"manifest/string.yaml":        "kind: Secret\napiVersion: v1\nmetadata: {name: x}\nstringData: {a: '{{ x }}'}\n",
		"manifest/annotation.yaml":    "kind: Secret\napiVersion: v1\nmetadata: {name: x, annotations: {a: '{{ x }}'}}\n",
		"manifest/templates/x.yaml":   chart,
		"manifest/other.yaml":         strings.Replace(class, "provider: secretmanager", "provider: aws", 1),
		"excluded/broken/broken.yaml": "a: *b\n",
	}
	// kubectl apply creates the Secret, and only reports the rest.
	plain := "kind: Secret\napiVersion: v1\nmetadata: {name: x}\nstringData: {a: b}\n"
	for name, text := range map[string]string{
		"name.yaml": plain + "---\nkind: ConfigMap\napiVersion: v1\nmetadata: {name: '{{ x }}'}\n",
		"key.yaml":  "{{ x }}: a\n---\n" + plain,
		"list.yaml": "kind: List\napiVersion: v1\nitems:\n- {kind: Secret, apiVersion: v1, metadata: {name: '{{ x }}'}}\n- " +
			strings.ReplaceAll(plain, "\n", "\n  "),
		"duplicate.yaml":             strings.Replace(plain, "{name: x}", "{name: x, labels: {a: '{{ x }}', a: b}}", 1),
		"chart/Chart.yaml":           "name: x\n",
		"chart/templates/plain.yaml": "# {{ x }}\n" + plain,
	} {
		files["manifest/hidden/"+name] = text
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	exclude, err := ParsePattern("broken/")
	if err != nil {
		t.Fatal(err)
	}
	progress := 0
	o := Options{Recursive: true, Exclude: []*Pattern{exclude}, SkipTemplates: true,
		Progress: func() error { progress++; return nil }}
	opened, err := o.Open(nil, []string{"."})
	if err != nil {
		t.Fatal(err)
	}
	want := Opened{Excluded: 1}
	var read, wantRead []string
	for name := range files {
		switch {
		case strings.HasPrefix(name, "template/"), name == "chart/templates/x.yaml":
			want.Templates = append(want.Templates, name)
		case !strings.HasPrefix(name, "excluded/"):
			wantRead = append(wantRead, name)
		}
	}
	for _, f := range opened.Files {
		read = append(read, filepath.Clean(f.Name))
	}
	for i, name := range opened.Templates {
		opened.Templates[i] = filepath.Clean(name)
	}
	slices.Sort(want.Templates)
	slices.Sort(wantRead)
	slices.Sort(read)
	slices.Sort(opened.Templates)
	if diff := cmp.Diff(want.Templates, opened.Templates); diff != "" {
		t.Errorf("templates: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(wantRead, read); diff != "" || opened.Excluded != 1 {
		t.Errorf("%d excluded; read: -want +got:\n%s", opened.Excluded, diff)
	}
	if progress != len(wantRead)+len(want.Templates) {
		t.Errorf("progress was reported %d times", progress)
	}

	// No YAML after a Secret, or a list, which kubectl creates.
	for name, first := range map[string]string{"secret": plain, "list": "items: []\n", "class": class} {
		text := first + "---\n{{- if .x }}\na: b\n"
		if err := os.WriteFile("late.yaml", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if opened, err := o.Open(nil, []string{"late.yaml"}); err == nil {
			t.Errorf("%s: %+v", name, opened)
		}
	}
	if err := os.Remove("late.yaml"); err != nil {
		t.Fatal(err)
	}

	// Files that are named explicitly are excluded and skipped too, as a pre-commit hook names them.
	opened, err = o.Open(nil, []string{"excluded/broken/broken.yaml", "template/values.yaml"})
	if err != nil || len(opened.Files) != 0 || opened.Excluded != 1 || len(opened.Templates) != 1 {
		t.Errorf("%+v, %v", opened, err)
	}
}

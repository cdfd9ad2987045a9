package inputs

import (
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
)

func key(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := New()
	if err := h.AddModule(dir); err != nil {
		t.Fatal(err)
	}
	return h.Key()
}

func TestModule(t *testing.T) {
	base := map[string]string{"go.mod": "module m", "go.sum": "", "main.go": "package main",
		"pause/main.go": "package main"}
	with := func(name, content string) map[string]string {
		files := map[string]string{name: content}
		for n, c := range base {
			if n != name {
				files[n] = c
			}
		}
		return files
	}
	want := key(t, base)
	for _, name := range []string{"main_test.go", "README.md", "testdata/x.txt"} {
		if got := key(t, with(name, "new")); got != want {
			t.Errorf("%s changes the key, but not the programs", name)
		}
	}
	for _, name := range []string{"go.mod", "go.sum", "main.go", "pause/main.go", "other.go"} {
		if got := key(t, with(name, "new")); got == want {
			t.Errorf("%s does not change the key", name)
		}
	}
}

// A part of one input must not count as part of the next.
func TestInputsAreKeptApart(t *testing.T) {
	a, b := New(), New()
	a.Add("x", []byte("12"))
	a.Add("y", []byte("3"))
	b.Add("x", []byte("1"))
	b.Add("y", []byte("23"))
	if a.Key() == b.Key() {
		t.Error("different inputs have one key")
	}
	c := New()
	if err := c.AddFS(fstest.MapFS{"x": {Data: []byte("12")}, "y": {Data: []byte("3")}}); err != nil {
		t.Fatal(err)
	}
	if c.Key() != a.Key() {
		t.Error("a file system has another key than its files")
	}
}

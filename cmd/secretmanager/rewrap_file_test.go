package main

import (
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/manifest"
)

// A folder that cannot be written to keeps the files elsewhere as they are, and
// nothing is left beside them.
func TestWriteAllOrNone(t *testing.T) {
	text := func(version string) []byte {
		return []byte("vault:" + version + ":" + base64.StdEncoding.EncodeToString(make([]byte, 28)))
	}
	source := "apiVersion: v1\nkind: Secret\nmetadata: {name: a, labels: {secretmanager.io/transit-key: k}}\nstringData: {a: " + string(text("v1")) + "}\n"
	open := func(path string) *rewrapFile {
		f := &rewrapFile{name: path, path: path, mode: 0o640, source: []byte(source), texts: map[*manifest.Entry][]byte{}}
		if err := f.parse(); err != nil {
			t.Fatal(err)
		}
		f.texts[f.manifest.Secrets[0].Entries[0]] = text("v2")
		return f
	}
	dir := t.TempDir()
	good := filepath.Join(dir, "good.yaml")
	if err := os.WriteFile(good, []byte(source), 0o640); err != nil {
		t.Fatal(err)
	}
	err := write([]*rewrapFile{open(good), open(filepath.Join(dir, "nowhere", "x.yaml"))}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "no file was written") || !strings.Contains(err.Error(), "x.yaml: ") {
		t.Errorf("error %v", err)
	}
	check := func(want string) {
		t.Helper()
		got, err := os.ReadFile(good)
		if err != nil || string(got) != want {
			t.Errorf("the file is %q (%v)", got, err)
		}
		if files, _ := os.ReadDir(dir); len(files) != 1 {
			t.Errorf("files: %v", files)
		}
	}
	check(source)
	if err := write([]*rewrapFile{open(good)}, io.Discard); err != nil {
		t.Fatal(err)
	}
	check(strings.Replace(source, "vault:v1", "vault:v2", 1))
	if info, err := os.Stat(good); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
}

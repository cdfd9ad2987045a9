package manifestfile

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// If a directory is not writable, files in other directories stay unchanged, and no temporary file
// remains.
func TestWriteAllOrNone(t *testing.T) {
	source := string(manifestOf(1))
	open := func(path string) *File {
		f := &File{Name: path, path: path, mode: 0o640, source: []byte(source)}
		if err := f.parse(); err != nil {
			t.Fatal(err)
		}
		f.Texts[f.Manifest.Secrets[0].Entries[0]] = text(2)
		return f
	}
	dir := t.TempDir()
	good := filepath.Join(dir, "good.yaml")
	if err := os.WriteFile(good, []byte(source), 0o640); err != nil {
		t.Fatal(err)
	}
	err := Write([]*File{open(good), open(filepath.Join(dir, "nowhere", "x.yaml"))}, io.Discard, os.Rename)
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

	// The file was edited during the request to Vault.
	stale := open(good)
	if err := os.WriteFile(good, []byte(source+"# more\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := Write([]*File{stale}, io.Discard, os.Rename); err == nil ||
		!strings.Contains(err.Error(), "good.yaml: the file has changed") {
		t.Errorf("error %v", err)
	}
	check(source + "# more\n")
	if err := os.WriteFile(good, []byte(source), 0o640); err != nil {
		t.Fatal(err)
	}

	if err := Write([]*File{open(good)}, io.Discard, os.Rename); err != nil {
		t.Fatal(err)
	}
	check(strings.Replace(source, "vault:v1", "vault:v2", 1))
	if info, err := os.Stat(good); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
}

// If a rename fails, the error lists which files were written.
func TestWritePartially(t *testing.T) {
	dir := t.TempDir()
	var files []*File
	for _, name := range []string{"a.yaml", "b.yaml", "c.yaml"} {
		f := &File{Name: name, path: filepath.Join(dir, name), mode: 0o640, source: manifestOf(1)}
		if err := f.parse(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.path, f.source, 0o640); err != nil {
			t.Fatal(err)
		}
		f.Texts[f.Manifest.Secrets[0].Entries[0]] = text(2)
		files = append(files, f)
	}
	err := Write(files, io.Discard, func(from, to string) error {
		if filepath.Base(to) == "b.yaml" {
			return errors.New("no space left")
		}
		return os.Rename(from, to)
	})
	want := `b.yaml: no space left
a.yaml: written
b.yaml: not written: run again
c.yaml: not written: run again`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	for i, f := range files {
		want := manifestOf(1)
		if i == 0 {
			want = manifestOf(2)
		}
		if got, err := os.ReadFile(f.path); err != nil || string(got) != string(want) {
			t.Errorf("%s is %q (%v)", f.Name, got, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != len(files) {
		t.Errorf("files: %v", left)
	}
}

// text is a well-formed ciphertext of a key version.
func text(version int) []byte {
	return fmt.Appendf(nil, "vault:v%d:%s", version, base64.StdEncoding.EncodeToString(make([]byte, 28)))
}

func manifestOf(version int) []byte {
	return fmt.Appendf(nil,
		"apiVersion: v1\nkind: Secret\n"+
			"metadata: {name: a, labels: {secretmanager.io/transit-key: k}}\nstringData: {a: %s}\n", text(version))
}

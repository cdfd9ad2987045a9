package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	testVersion = "v1.2.3-rc.1"
	testCommit  = "0123456789abcdef0123456789abcdef01234567"
	testDate    = "1700000000"
)

// here is the only platform of the tests' release, to save time. test/e2e/images
// builds and checks the others.
var here = platform{"linux", runtime.GOARCH}

var parent string // directory of files that tests share

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if parent, err = os.MkdirTemp("", "release-test-"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(parent)
		return m.Run()
	}())
}

func makeRelease(t *testing.T, root, out string) {
	t.Helper()
	err := run(t.Context(), []string{"-root", root, "-version", testVersion, "-commit", testCommit, "-date", testDate,
		"-platforms", here.String(), "-out", out})
	if err != nil {
		t.Fatal(err)
	}
}

var once sync.Once

// released returns the directory of a release, made once.
func released(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(parent, "dist")
	once.Do(func() { makeRelease(t, "../..", dir) })
	if _, err := os.Stat(filepath.Join(dir, "SHA256SUMS")); err != nil {
		t.Fatal("making the release: ", err)
	}
	return dir
}

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// unpack reads a tar, and checks owner, time and mode of each entry.
func unpack(t *testing.T, data []byte) (files map[string]file, names []string) {
	t.Helper()
	files = map[string]file{}
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if data, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
	}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.ModTime.Unix() != 1700000000 || h.Mode&0o7022 != 0 {
			t.Errorf("%s: owner %d:%d %s, time %s, mode %o", h.Name, h.Uid, h.Gid, h.Uname, h.ModTime, h.Mode)
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
			t.Errorf("%s is neither a file nor a directory", h.Name)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = file{h.Name, h.FileInfo().Mode(), content}
		names = append(names, h.Name)
	}
	// GNU tar requires the end marker; Go's reader does not.
	if len(data) < 1024 || strings.Trim(string(data[len(data)-1024:]), "\x00") != "" {
		t.Error("the end of the archive is missing")
	}
	return files, names
}

// TestSums checks that SHA256SUMS has every file and its hash.
func TestSums(t *testing.T) {
	dir := released(t)
	cmd := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS")
	cmd.Dir = dir
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, output)
	}
	var listed, there []string
	for line := range strings.Lines(string(read(t, dir, "SHA256SUMS"))) {
		_, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		listed = append(listed, name)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "SHA256SUMS" {
			there = append(there, e.Name())
		}
	}
	if diff := cmp.Diff(there, listed); diff != "" {
		t.Errorf("-there +listed:\n%s", diff)
	}
}

// TestSameBytes checks that another directory and a hostile environment result in the
// same release.
func TestSameBytes(t *testing.T) {
	first := released(t)
	other := filepath.Join(t.TempDir(), "a", "clone")
	copyRepository(t, other, func(string) bool { return true })
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("GOFLAGS", "-buildvcs=true -tags=interfering")
	t.Setenv("GOAMD64", "v3")
	t.Setenv("GOOS", "plan9")
	t.Setenv("CGO_ENABLED", "1")
	t.Setenv("TZ", "Asia/Kathmandu")
	second := filepath.Join(t.TempDir(), "dist")
	makeRelease(t, other, second)
	if diff := cmp.Diff(string(read(t, first, "SHA256SUMS")), string(read(t, second, "SHA256SUMS"))); diff != "" {
		t.Errorf("the second release differs:\n%s", diff)
	}
}

// copyRepository copies the files that git tracks or would track, and that the filter accepts.
func copyRepository(t *testing.T, to string, want func(name string) bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-co", "--exclude-standard", "-z")
	cmd.Dir = "../.."
	output, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(output), "\x00"), "\x00") {
		info, err := os.Lstat(filepath.Join("../..", name))
		if !want(name) || os.IsNotExist(err) || err == nil && !info.Mode().IsRegular() {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), read(t, "../..", name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

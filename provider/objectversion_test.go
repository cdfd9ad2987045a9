package provider

import (
	"bytes"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestObjectVersion(t *testing.T) {
	key, other := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	seen := map[string]string{}
	for name, v := range map[string]string{
		"one":                   objectVersion(key, "ns", "secret", "ab", []byte("c")),
		"another cut":           objectVersion(key, "ns", "secret", "a", []byte("bc")),
		"another path":          objectVersion(key, "ns", "secret", "ac", []byte("c")),
		"another content":       objectVersion(key, "ns", "secret", "ab", []byte("d")),
		"no content":            objectVersion(key, "ns", "secret", "ab", nil),
		"another key":           objectVersion(other, "ns", "secret", "ab", []byte("c")),
		"another namespace":     objectVersion(key, "other", "secret", "ab", []byte("c")),
		"another Secret":        objectVersion(key, "ns", "other", "ab", []byte("c")),
		"another cut of names":  objectVersion(key, "nss", "ecret", "ab", []byte("c")),
		"all of it in the path": objectVersion(key, "ns", "secret", "abc", nil),
	} {
		if twin, ok := seen[v]; ok {
			t.Errorf("%s and %s have the same version", name, twin)
		}
		seen[v] = name
	}
	// The format must never change: a change would restart every pod that is watched.
	const want = "f3acb24efbba286a"
	if got := objectVersion(key, "ns", "secret", "ab", []byte("c")); !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want %s…", got, want)
	}
}

func TestVersionKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "deep", "version-key")
	first, err := VersionKey(file)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != versionKeySize ||
		bytes.Equal(first, make([]byte, versionKeySize)) {
		t.Errorf("%v, %v", info, err)
	}
	again, err := VersionKey(file)
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("the second call returns another key, %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(file)); len(entries) != 1 {
		t.Errorf("files left in the directory: %v", entries)
	}

	t.Run("slower than another process", func(t *testing.T) {
		// It saw no key, but another process stored one before its own was ready.
		if err := createVersionKey(file); err != nil {
			t.Fatal(err)
		}
		if again, err := VersionKey(file); err != nil || !bytes.Equal(first, again) {
			t.Errorf("the key was replaced, %v", err)
		}
	})
	t.Run("readable by others", func(t *testing.T) {
		if err := os.Chmod(file, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := VersionKey(file); err == nil || !strings.Contains(err.Error(), "can be read by others") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("cut short", func(t *testing.T) {
		short := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(short, first[:8], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := VersionKey(short); err == nil || !strings.Contains(err.Error(), "has 8 bytes, not 32") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("missing directory", func(t *testing.T) {
		if _, err := VersionKey(filepath.Join(file, "x")); err == nil {
			t.Error("no error")
		}
	})
}

// TestVersionKeyRace has many processes create the key at the same time.
func TestVersionKeyRace(t *testing.T) {
	if file := os.Getenv("TEST_VERSION_KEY"); file != "" {
		os.Stdin.Read(make([]byte, 1)) // all start when the pipe is closed
		key, err := VersionKey(file)
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("key " + hex.EncodeToString(key) + "\n")
		return
	}
	file := filepath.Join(t.TempDir(), "version-key")
	start, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var processes []*exec.Cmd
	var outputs []*bytes.Buffer
	for range 8 {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestVersionKeyRace$")
		c.Env = append(os.Environ(), "TEST_VERSION_KEY="+file)
		c.Stdin = start
		var out bytes.Buffer
		c.Stdout = &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		processes, outputs = append(processes, c), append(outputs, &out)
	}
	release.Close()
	keys := map[string]bool{}
	for i, c := range processes {
		if err := c.Wait(); err != nil {
			t.Errorf("%v: %s", err, outputs[i])
		}
		line, _, _ := strings.Cut(outputs[i].String(), "\n")
		keys[line] = true
	}
	if len(keys) != 1 {
		t.Errorf("%d keys: %v", len(keys), keys)
	}
}

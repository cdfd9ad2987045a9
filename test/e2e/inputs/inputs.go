// Package inputs names an image by what it is made from, as it lies in the
// repository: the sources and the checksums of their dependencies. So it can be
// told whether a kept image is the right one before anything is built.
package inputs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Hash takes in inputs. Their order matters.
type Hash struct {
	sum hash.Hash
}

// New returns an empty Hash.
func New() *Hash { return &Hash{sum: sha256.New()} }

// Add takes in one input under a name.
func (h *Hash) Add(name string, content []byte) {
	fmt.Fprintf(h.sum, "%q %d\n", name, len(content))
	h.sum.Write(content)
}

// AddFS takes in every file of a file system.
func (h *Hash) AddFS(files fs.FS) error {
	return h.addFS(files, func(string) bool { return true })
}

// AddModule takes in what decides how the programs of the Go module in the directory
// come out: go.mod, go.sum and Go files that are not tests.
func (h *Hash) AddModule(dir string) error {
	return h.addFS(os.DirFS(dir), func(path string) bool {
		switch filepath.Base(path) {
		case "go.mod", "go.sum":
			return true
		}
		return strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go")
	})
}

func (h *Hash) addFS(files fs.FS, wanted func(path string) bool) error {
	return fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !wanted(path) {
			return err
		}
		content, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		h.Add(path, content)
		return nil
	})
}

// Key returns a short text, fit for an image's tag, that stands for the inputs.
func (h *Hash) Key() string { return hex.EncodeToString(h.sum.Sum(nil))[:12] }

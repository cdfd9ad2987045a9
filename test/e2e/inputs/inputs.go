// Package inputs derives the name of an image from its inputs in the repository: the
// sources and the checksums of their dependencies. So it is known without a build whether
// an existing image is current.
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

// A Hash is a hash of inputs. Their order matters.
type Hash struct {
	sum hash.Hash
}

// New returns an empty Hash.
func New() *Hash { return &Hash{sum: sha256.New()} }

// Add adds a named input.
func (h *Hash) Add(name string, content []byte) {
	fmt.Fprintf(h.sum, "%q %d\n", name, len(content))
	h.sum.Write(content)
}

// AddFS adds every file of a file system.
func (h *Hash) AddFS(files fs.FS) error {
	return h.addFS(files, func(string) bool { return true })
}

// AddModule adds the inputs of the programs of the Go module in the directory: go.mod,
// go.sum and Go files that are not tests.
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

// Key returns a short text that identifies the inputs and is valid as an image tag.
func (h *Hash) Key() string { return hex.EncodeToString(h.sum.Sum(nil))[:12] }

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// dist is the directory that the release is written to.
type dist struct {
	dir    string
	hashes map[string]string // by name of the file
}

// newDist makes the directory. It must be empty, because existing
// files would look like a part of the release.
func newDist(dir string) (*dist, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("%s is not empty: a release needs an empty directory", dir)
	}
	return &dist{dir: dir, hashes: map[string]string{}}, nil
}

func (d *dist) write(name string, data []byte) error {
	d.hashes[name] = hash(data)
	return os.WriteFile(filepath.Join(d.dir, name), data, 0o644)
}

// sums writes SHA256SUMS, for `sha256sum --check`.
func (d *dist) sums() error {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(d.hashes)) {
		fmt.Fprintf(&b, "%s  %s\n", d.hashes[name], name)
	}
	return os.WriteFile(filepath.Join(d.dir, "SHA256SUMS"), []byte(b.String()), 0o644)
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

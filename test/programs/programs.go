// Package programs builds the real programs that tests run against: Vault, OpenBao,
// etcd, the parts of Kubernetes, the CSI driver, Prometheus' tool.
//
// Each comes from a nested module (test/vault, test/kubernetes, …), so that
// nothing a test needs becomes a dependency of the product. A program is built
// on first use and kept in the ignored directory
// .cache/programs at the root of the repository. Beside it lies a stamp: the hash
// of everything in the repository that decides what the program is, namely the
// module's go.mod, go.sum and own sources, and how it is built. While the stamp
// is right the kept program is used, and asking costs a few milliseconds.
//
// Any number of processes may ask at once, as `go test ./...` does: builds take
// turns under a file lock, and a finished program is renamed into place, so
// nobody ever runs half of one.
//
// All programs are static, so they also run in images made from nothing.
package programs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// mainModule is the first line of the go.mod in the repository's root.
const mainModule = "module github.com/secretmanager-io/secretmanager"

// Path returns the absolute path of the named program and builds it first where
// that is needed. A build takes minutes with cold caches; it reports its progress
// on the standard error stream and ends when ctx does.
//
// Path may be called from several goroutines and processes at once.
func Path(ctx context.Context, name string) (string, error) {
	p, err := lookup(name)
	if err != nil {
		return "", err
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	return ensure(ctx, root, name, p)
}

// Build builds the named programs where needed, one after the other: the compiler
// itself uses every processor.
// It returns their paths in the order of the names.
func Build(ctx context.Context, names ...string) ([]string, error) {
	for _, name := range names {
		if _, err := lookup(name); err != nil {
			return nil, err
		}
	}
	paths := make([]string, 0, len(names))
	for _, name := range names {
		path, err := Path(ctx, name)
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// Root returns the directory of the repository: the nearest one above the current
// directory whose go.mod is the main module's. Nested modules are skipped.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("looking for the root of the repository: %w", err)
	}
	return rootAbove(dir)
}

func rootAbove(start string) (string, error) {
	for dir := start; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("looking for the root of the repository: %w", err)
		}
		line, _, _ := bytes.Cut(mod, []byte("\n"))
		if string(bytes.TrimSpace(line)) == mainModule {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("looking for the root of the repository: no go.mod at or above %s begins with %q",
				start, mainModule)
		}
	}
}

// buildMutexes has a mutex for each program, for the goroutines of this process.
// The file lock of ensure does the same for processes.
var buildMutexes sync.Map // of *sync.Mutex, by path of the program

func ensure(ctx context.Context, root, name string, p program) (string, error) {
	dir := filepath.Join(root, ".cache", "programs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making the directory for built programs: %w", err)
	}
	path := filepath.Join(dir, name)

	mutex, _ := buildMutexes.LoadOrStore(path, new(sync.Mutex))
	mutex.(*sync.Mutex).Lock()
	defer mutex.(*sync.Mutex).Unlock()

	want, err := stamp(root, p)
	if err != nil {
		return "", fmt.Errorf("hashing the sources of %s: %w", name, err)
	}
	if isCurrent(path, want) {
		return path, nil
	}

	unlock, err := lock(ctx, path+".lock", name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if isCurrent(path, want) { // another process has built it meanwhile
		return path, nil
	}
	if err := build(ctx, root, name, p, path); err != nil {
		return "", err
	}
	if err := writeStamp(path, want); err != nil {
		return "", fmt.Errorf("noting what %s was built from: %w", name, err)
	}
	return path, nil
}

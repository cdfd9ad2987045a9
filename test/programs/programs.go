// Package programs builds the real programs that tests run against: Vault, OpenBao,
// etcd, the parts of Kubernetes, the CSI driver, Prometheus' tool.
//
// Each comes from a nested module (test/vault, test/kubernetes/1.37, …), so that the product
// does not depend on what tests need. A program is built on first use, and stored in
// .cache/programs at the root of the repository, which Git ignores. Next to it is a stamp:
// the hash of the module's go.mod, go.sum and own sources, and of the build options. While
// the stamp is current, the stored program is used, which takes a few milliseconds.
//
// Kubernetes and the CSI driver have several versions. The variables K8S and DRIVER select
// one ([Component]), and each version has a directory of its own below .cache/programs.
//
// Several processes can call this package at once, as `go test ./...` does: a file lock
// serializes builds, and a finished program is renamed, so that no process runs an
// incomplete one.
//
// All programs are static, so they also run in images without a base image.
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

// mainModule is the first line of the go.mod in the root of the repository.
const mainModule = "module github.com/secretmanager-io/secretmanager"

// Path returns the absolute path of the named program, and builds it first if needed. A
// build takes minutes with cold caches. It reports its progress on standard error, and
// ends with ctx.
//
// Path is safe for concurrent use, also by several processes.
func Path(ctx context.Context, name string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	p, err := lookup(root, name)
	if err != nil {
		return "", err
	}
	return ensure(ctx, root, name, p)
}

// Build builds the named programs if needed, one after another, because the compiler uses
// every processor. It returns their paths in the order of the names.
func Build(ctx context.Context, names ...string) ([]string, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if _, err := lookup(root, name); err != nil {
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
	dir := filepath.Join(root, ".cache", "programs", p.storedIn)
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

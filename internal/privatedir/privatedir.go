// Package privatedir makes a directory in memory that only its owner can read, and wipes it.
package privatedir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Dir is a directory that only its owner can read.
type Dir struct{ Path string }

// MemoryDirs returns the directories that may be in memory: the user's own, and that of all users.
func MemoryDirs(getenv func(string) string) []string {
	return []string{getenv("XDG_RUNTIME_DIR"), "/dev/shm"}
}

// ErrNotInMemory reports that no parent is in memory.
var ErrNotInMemory = errors.New("no directory in memory for the plaintext: neither XDG_RUNTIME_DIR nor /dev/shm is one")

// New makes a directory in the first parent that is in memory.
func New(parents []string) (Dir, error) {
	var errs []error
	for _, parent := range parents {
		if parent == "" || !InMemory(parent) {
			continue
		}
		f, err := NewIn(parent)
		if err == nil {
			return f, nil
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return Dir{}, err
	}
	return Dir{}, ErrNotInMemory
}

// NewIn makes a directory in a parent that need not be in memory.
func NewIn(parent string) (Dir, error) {
	path, err := os.MkdirTemp(parent, "secretmanager-") // mode 0700
	if err != nil {
		return Dir{}, fmt.Errorf("making a directory for the plaintext: %w", err)
	}
	return Dir{path}, nil
}

// Wipe overwrites all files in the directory, those of the editor included, and removes it.
func (f Dir) Wipe() error {
	var errs []error
	err := filepath.WalkDir(f.Path, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			err = overwrite(path)
		}
		errs = append(errs, err)
		return nil
	})
	if err := errors.Join(append(errs, err, os.RemoveAll(f.Path))...); err != nil {
		return fmt.Errorf("wiping the plaintext: %w", err)
	}
	return nil
}

// overwrite fills a file with zeros.
func overwrite(path string) error {
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil {
		_, err = io.CopyN(file, zeros{}, info.Size())
	}
	return errors.Join(err, file.Sync(), file.Close())
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

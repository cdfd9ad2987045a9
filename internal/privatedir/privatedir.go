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

// Dir is a folder of our own that plaintext is in while it is edited. Others
// cannot look into it, and it is wiped.
type Dir struct{ Path string }

// MemoryDirs are where there may be a file system in memory: the user's own,
// or everybody's.
func MemoryDirs(getenv func(string) string) []string {
	return []string{getenv("XDG_RUNTIME_DIR"), "/dev/shm"}
}

var ErrNotInMemory = errors.New("there is no folder in memory for the plaintext: neither XDG_RUNTIME_DIR nor /dev/shm is one")

// New makes a folder in the first of the places that is in memory.
func New(places []string) (Dir, error) {
	var errs []error
	for _, place := range places {
		if place == "" || !InMemory(place) {
			continue
		}
		f, err := NewIn(place)
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

func NewIn(place string) (Dir, error) {
	path, err := os.MkdirTemp(place, "secretmanager-") // for its owner only
	if err != nil {
		return Dir{}, fmt.Errorf("making a folder for the plaintext: %w", err)
	}
	return Dir{path}, nil
}

// Wipe overwrites all that is in the folder, what the editor left there too, and
// removes it.
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

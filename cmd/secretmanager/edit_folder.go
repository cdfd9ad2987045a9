package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// folder is a folder of our own that plaintext is in while it is edited. Others
// cannot look into it, and it is wiped.
type folder struct{ path string }

// memoryFolders are where there may be a file system in memory: the user's own,
// or everybody's.
func memoryFolders(getenv func(string) string) []string {
	return []string{getenv("XDG_RUNTIME_DIR"), "/dev/shm"}
}

// newFolder makes a folder in the first of the places that is in memory.
func newFolder(places []string) (folder, error) {
	var errs []error
	for _, place := range places {
		if place == "" || !inMemory(place) {
			continue
		}
		f, err := newFolderIn(place)
		if err == nil {
			return f, nil
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return folder{}, err
	}
	return folder{}, hinted(errors.New("there is no folder in memory for the plaintext: neither XDG_RUNTIME_DIR nor /dev/shm is one"),
		"--temp-dir names another; if that is on a disk, so is the plaintext while it is edited, and perhaps longer")
}

func newFolderIn(place string) (folder, error) {
	path, err := os.MkdirTemp(place, "secretmanager-") // for its owner only
	if err != nil {
		return folder{}, fmt.Errorf("making a folder for the plaintext: %w", err)
	}
	return folder{path}, nil
}

// wipe overwrites all that is in the folder, what the editor left there too, and
// removes it.
func (f folder) wipe() error {
	var errs []error
	err := filepath.WalkDir(f.path, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			err = overwrite(path)
		}
		errs = append(errs, err)
		return nil
	})
	if err := errors.Join(append(errs, err, os.RemoveAll(f.path))...); err != nil {
		return hinted(fmt.Errorf("wiping the plaintext: %w", err), "look for what is left in "+f.path)
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

package manifestfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// IsJSON reports whether a file is JSON by its name.
func (f *File) IsJSON() bool { return filepath.Ext(f.path) == ".json" }

// result returns the new content.
func (f *File) result() ([]byte, error) {
	if f.Content != nil {
		return f.Content, nil
	}
	return f.Manifest.Replace(f.Texts)
}

// OpenEditable opens a file whose ciphertext can be changed.
func OpenEditable(name string) (*File, error) {
	f, err := read(name)
	if err != nil {
		return nil, err
	}
	if err := f.parse(); err != nil {
		return nil, err
	}
	return f, f.Check()
}

// ErrChanged reports that another process has changed a file since it was read.
var ErrChanged = errors.New("the file has changed since it was read: run again")

// staged is a file whose new content is in a temporary file beside it.
type staged struct {
	file      *File
	temporary string
}

// Write writes the files that have changed, and standard input to out. It renames no file before
// all have been written beside their targets.
func Write(files []*File, out io.Writer, rename func(from, to string) error) error {
	var errs []error
	var all []staged
	defer func() {
		for _, s := range all {
			os.Remove(s.temporary) // fails for those that have been renamed
		}
	}()
	for _, f := range files {
		result, err := f.result()
		switch {
		case err != nil:
			errs = append(errs, WithName(f.Name, err))
		case f.path == "":
			_, err := out.Write(result)
			return err
		case !bytes.Equal(result, f.source):
			temporary, err := stage(f, result)
			if err != nil {
				errs = append(errs, display.Errorf("%s: %w", f.Name, err))
				continue
			}
			all = append(all, staged{f, temporary})
		}
	}
	// Requests to Vault take time, in which the file may have been edited.
	for _, s := range all {
		current, err := os.ReadFile(s.file.path)
		if s.file.New && errors.Is(err, fs.ErrNotExist) {
			err = nil
		} else if err == nil && (s.file.New || !bytes.Equal(current, s.file.source)) {
			err = ErrChanged
		}
		if err != nil {
			errs = append(errs, display.Errorf("%s: %w", s.file.Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return display.Errorf("no file was written:\n%w", err)
	}
	for i, s := range all {
		if err := rename(s.temporary, s.file.path); err != nil {
			return partialError(all[:i], all[i:], err)
		}
	}
	return nil
}

// partialError returns an error that names the files that were written and those that were not.
func partialError(done, rest []staged, err error) error {
	lines := []string{fmt.Sprintf("%s: %s", rest[0].file.Name, err)}
	for _, s := range done {
		lines = append(lines, s.file.Name+": written")
	}
	for _, s := range rest {
		lines = append(lines, s.file.Name+": not written: run again")
	}
	return errors.New(strings.Join(lines, "\n"))
}

// stage writes the new content to a temporary file beside the target, for an atomic rename.
func stage(f *File, content []byte) (path string, err error) {
	t, err := os.CreateTemp(filepath.Dir(f.path), "."+filepath.Base(f.path)+".*")
	if err != nil {
		return "", err
	}
	_, err = t.Write(content)
	err = errors.Join(err, t.Chmod(f.mode), t.Sync(), t.Close())
	if err != nil {
		os.Remove(t.Name())
		return "", err
	}
	return t.Name(), nil
}

// NewFile returns a file that does not exist yet.
func NewFile(name string) (*File, error) {
	if _, err := os.Lstat(name); err == nil {
		return nil, display.Errorf("%s: is a symbolic link whose target does not exist", name)
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	return &File{Name: name, New: true, Manifest: &manifest.File{}, path: path, mode: 0o644}, nil
}

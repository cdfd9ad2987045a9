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

// Editable is a manifest that is being rewrapped.
type Editable struct {
	File
	Manifest *manifest.File
	Texts    map[*manifest.Entry][]byte // the new ones
	Content  []byte                     // the new one, where it is more than new texts
	New      bool                       // it is not there yet
}

// result is the new content.
func (f *Editable) result() ([]byte, error) {
	if f.Content != nil {
		return f.Content, nil
	}
	return f.Manifest.Replace(f.Texts)
}

func Parse(m File) (f *Editable, err error) {
	f = &Editable{File: m, Texts: map[*manifest.Entry][]byte{}}
	if f.Manifest, err = manifest.Parse(f.Source); err != nil {
		return nil, WithName(f.Name, err)
	}
	return f, nil
}

func OpenEditable(name string) (*Editable, error) {
	m, err := read(name)
	if err != nil {
		return nil, err
	}
	return Parse(m)
}

var ErrChanged = errors.New("it was changed meanwhile: run again")

// staged is a file with its new content beside it.
type staged struct {
	file      *Editable
	temporary string
}

// Write writes the files that have new texts, or standard input's to out.
// Nothing is renamed into place before everything has been written beside it.
func Write(files []*Editable, out io.Writer, rename func(from, to string) error) error {
	var errs []error
	var all []staged
	defer func() {
		for _, s := range all {
			os.Remove(s.temporary) // what was renamed is not there any more
		}
	}()
	for _, f := range files {
		result, err := f.result()
		switch {
		case err != nil:
			errs = append(errs, WithName(f.Name, err))
		case f.Path == "":
			_, err := out.Write(result)
			return err
		case !bytes.Equal(result, f.Source):
			temporary, err := stage(f, result)
			if err != nil {
				errs = append(errs, display.Errorf("%s: %w", f.Name, err))
				continue
			}
			all = append(all, staged{f, temporary})
		}
	}
	// Vault took its time: an editor may have been faster.
	for _, s := range all {
		now, err := os.ReadFile(s.file.Path)
		if s.file.New && errors.Is(err, fs.ErrNotExist) {
			err = nil
		} else if err == nil && (s.file.New || !bytes.Equal(now, s.file.Source)) {
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
		if err := rename(s.temporary, s.file.Path); err != nil {
			return broken(all[:i], all[i:], err)
		}
	}
	return nil
}

// broken says which files are written and which are not.
func broken(done, rest []staged, err error) error {
	lines := []string{fmt.Sprintf("%s: %s", rest[0].file.Name, err)}
	for _, s := range done {
		lines = append(lines, s.file.Name+": it has been written")
	}
	for _, s := range rest {
		lines = append(lines, s.file.Name+": it has not been written: run again")
	}
	return errors.New(strings.Join(lines, "\n"))
}

// stage writes the new content next to the file, so that a rename can put it
// there at once, whatever happens meanwhile.
func stage(f *Editable, content []byte) (path string, err error) {
	t, err := os.CreateTemp(filepath.Dir(f.Path), "."+filepath.Base(f.Path)+".*")
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

// NewEditable is a file that is to be made.
func NewEditable(name string) (*Editable, error) {
	if _, err := os.Lstat(name); err == nil {
		return nil, display.Errorf("%s: it is a link to what is not there", name)
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	f, err := Parse(File{Name: name, Path: path, mode: 0o644})
	if err != nil {
		return nil, err
	}
	f.New = true
	return f, nil
}

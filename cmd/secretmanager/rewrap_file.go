package main

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

// rewrapFile is a manifest that is being rewrapped.
type rewrapFile struct {
	manifestFile
	manifest *manifest.File
	texts    map[*manifest.Entry][]byte // the new ones
	content  []byte                     // the new one, where it is more than new texts
	fresh    bool                       // it is not there yet
}

// result is the new content.
func (f *rewrapFile) result() ([]byte, error) {
	if f.content != nil {
		return f.content, nil
	}
	return f.manifest.Replace(f.texts)
}

func parseRewrapFile(m manifestFile) (f *rewrapFile, err error) {
	f = &rewrapFile{manifestFile: m, texts: map[*manifest.Entry][]byte{}}
	if f.manifest, err = manifest.Parse(f.source); err != nil {
		return nil, inFile(f.name, err)
	}
	return f, nil
}

func openRewrapFile(name string) (*rewrapFile, error) {
	m, err := readManifestFile(name)
	if err != nil {
		return nil, err
	}
	return parseRewrapFile(m)
}

var errFileChanged = errors.New("it was changed meanwhile: run again")

// staged is a file with its new content beside it.
type staged struct {
	file      *rewrapFile
	temporary string
}

// write writes the files that have new texts, or standard input's to out.
// Nothing is renamed into place before everything has been written beside it.
func write(files []*rewrapFile, out io.Writer, rename func(from, to string) error) error {
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
			errs = append(errs, inFile(f.name, err))
		case f.path == "":
			_, err := out.Write(result)
			return err
		case !bytes.Equal(result, f.source):
			temporary, err := stage(f, result)
			if err != nil {
				errs = append(errs, display.Errorf("%s: %w", f.name, err))
				continue
			}
			all = append(all, staged{f, temporary})
		}
	}
	// Vault took its time: an editor may have been faster.
	for _, s := range all {
		now, err := os.ReadFile(s.file.path)
		if s.file.fresh && errors.Is(err, fs.ErrNotExist) {
			err = nil
		} else if err == nil && (s.file.fresh || !bytes.Equal(now, s.file.source)) {
			err = errFileChanged
		}
		if err != nil {
			errs = append(errs, display.Errorf("%s: %w", s.file.name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return display.Errorf("no file was written:\n%w", err)
	}
	for i, s := range all {
		if err := rename(s.temporary, s.file.path); err != nil {
			return broken(all[:i], all[i:], err)
		}
	}
	return nil
}

// broken says which files are written and which are not.
func broken(done, rest []staged, err error) error {
	lines := []string{fmt.Sprintf("%s: %s", rest[0].file.name, err)}
	for _, s := range done {
		lines = append(lines, s.file.name+": it has been written")
	}
	for _, s := range rest {
		lines = append(lines, s.file.name+": it has not been written: run again")
	}
	return errors.New(strings.Join(lines, "\n"))
}

// stage writes the new content next to the file, so that a rename can put it
// there at once, whatever happens meanwhile.
func stage(f *rewrapFile, content []byte) (path string, err error) {
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

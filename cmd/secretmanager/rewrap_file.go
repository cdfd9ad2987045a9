package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/secretmanager-io/secretmanager/manifest"
)

// rewrapFile is a manifest that is being rewrapped.
type rewrapFile struct {
	name     string // as the user calls it
	path     string // without symbolic links; empty for standard input
	mode     os.FileMode
	source   []byte
	manifest *manifest.File
	texts    map[*manifest.Entry][]byte // the new ones
}

// open reads and parses the files. All problems of all files are reported.
func (o *rewrap) open(args []string) ([]*rewrapFile, error) {
	if len(args) == 1 && args[0] == "-" {
		source, err := io.ReadAll(o.In)
		if err != nil {
			return nil, fmt.Errorf("reading standard input: %w", err)
		}
		f := &rewrapFile{name: "standard input", source: source, texts: map[*manifest.Entry][]byte{}}
		return []*rewrapFile{f}, f.parse()
	}
	var files []*rewrapFile
	var errs []error
	seen := map[string]bool{}
	for _, arg := range args {
		if arg == "-" {
			return nil, usagef("- is standard input, which cannot be mixed with files")
		}
		f, err := openFile(arg)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if seen[f.path] {
			continue // by another name
		}
		seen[f.path] = true
		files = append(files, f)
	}
	return files, errors.Join(errs...)
}

func openFile(name string) (*rewrapFile, error) {
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: it is not a file: name the manifests themselves", name)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := &rewrapFile{name: name, path: path, mode: info.Mode().Perm(), source: source, texts: map[*manifest.Entry][]byte{}}
	return f, f.parse()
}

func (f *rewrapFile) parse() (err error) {
	if f.manifest, err = manifest.Parse(f.source); err != nil {
		return inFile(f.name, err)
	}
	return nil
}

// inFile puts the name of a file before each line of an error about it.
func inFile(name string, err error) error {
	var lines []error
	for line := range bytes.SplitSeq([]byte(err.Error()), []byte("\n")) {
		lines = append(lines, fmt.Errorf("%s: %s", name, line))
	}
	return errors.Join(lines...)
}

// write writes the files that have new texts, or standard input's to out.
// Nothing is renamed into place before everything has been written beside it.
func write(files []*rewrapFile, out io.Writer) error {
	var errs []error
	staged := map[string]string{}
	defer func() {
		for temporary := range staged {
			os.Remove(temporary) // what was renamed is not there any more
		}
	}()
	for _, f := range files {
		result, err := f.manifest.Replace(f.texts)
		switch {
		case err != nil:
			errs = append(errs, inFile(f.name, err))
		case f.path == "":
			_, err := out.Write(result)
			return err
		case !bytes.Equal(result, f.source):
			temporary, err := stage(f, result)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", f.name, err))
				continue
			}
			staged[temporary] = f.path
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("no file was written:\n%w", err)
	}
	for temporary, path := range staged {
		if err := os.Rename(temporary, path); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
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

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
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

// extensions are those of the files that are looked at in a folder: kubectl's.
var extensions = []string{".json", ".yaml", ".yml"}

// open reads and parses the files. All problems of all files are reported.
func (o *rewrap) open(args []string) ([]*rewrapFile, error) {
	if slices.Contains(args, "-") {
		if len(args) > 1 {
			return nil, usagef("- is standard input, which cannot be mixed with files")
		}
		source, err := io.ReadAll(o.In)
		if err != nil {
			return nil, fmt.Errorf("reading standard input: %w", err)
		}
		f := newRewrapFile("standard input", source)
		return []*rewrapFile{f}, f.parse()
	}
	var files []*rewrapFile
	var errs []error
	seen := map[string]bool{}
	add := func(name string, found bool) {
		f, err := openFile(name)
		if f == nil {
			errs = append(errs, err)
			return
		}
		if seen[f.path] {
			return // by another name
		}
		seen[f.path] = true
		if err != nil && found && !f.mentionsUs() {
			fmt.Fprintf(o.ErrOut, "note: %s: passed over: it cannot be read as YAML, and does not mention %s\n", name, ciphertext.Prefix)
			return
		}
		files, errs = append(files, f), append(errs, err)
	}
	for _, arg := range args {
		info, err := os.Stat(arg)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !info.IsDir():
			add(arg, false)
		case !o.recursive:
			errs = append(errs, fmt.Errorf("%s: it is a folder: name the manifests themselves, or look through it with -R", arg))
		default:
			n := 0
			err := walk(arg, func(name string) { n++; add(name, true) })
			if err == nil && n == 0 {
				err = fmt.Errorf("%s: nothing in it ends in %s", arg, strings.Join(extensions, ", "))
			}
			errs = append(errs, err)
		}
	}
	return files, errors.Join(errs...)
}

// walk calls found for every manifest in a folder and those below it, in order.
// As with kubectl -R a manifest is known by its extension, and links to folders
// are not followed. Unlike there, what is hidden stays so: .git, and the like.
func walk(folder string, found func(name string)) error {
	// The separator makes a folder of a link to one.
	return filepath.WalkDir(folder+string(filepath.Separator), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == folder+string(filepath.Separator):
			return nil
		case strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
		case slices.Contains(extensions, filepath.Ext(path)):
			if info, err := os.Stat(path); d.IsDir() || err == nil && info.IsDir() {
				return nil // by its name a manifest, but a folder
			}
			found(path)
		}
		return nil
	})
}

func newRewrapFile(name string, source []byte) *rewrapFile {
	return &rewrapFile{name: name, source: source, texts: map[*manifest.Entry][]byte{}}
}

// openFile reads and parses a file. What cannot be parsed is returned with the error.
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
		return nil, fmt.Errorf("%s: it is not a file", name)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := newRewrapFile(name, source)
	f.path, f.mode = path, info.Mode().Perm()
	return f, f.parse()
}

func (f *rewrapFile) parse() (err error) {
	if f.manifest, err = manifest.Parse(f.source); err != nil {
		return inFile(f.name, err)
	}
	return nil
}

// mentionsUs is whether there may be a ciphertext Secret in a file: its label or
// its type says so. The templates of a chart are no YAML, and mostly not ours.
func (f *rewrapFile) mentionsUs() bool {
	return bytes.Contains(f.source, []byte(ciphertext.Prefix))
}

// inFile puts the name of a file before each line of an error about it.
func inFile(name string, err error) error {
	var lines []error
	for line := range bytes.SplitSeq([]byte(err.Error()), []byte("\n")) {
		lines = append(lines, fmt.Errorf("%s: %s", name, line))
	}
	return errors.Join(lines...)
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
				errs = append(errs, fmt.Errorf("%s: %w", f.name, err))
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
			errs = append(errs, fmt.Errorf("%s: %w", s.file.name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("no file was written:\n%w", err)
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

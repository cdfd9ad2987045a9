// Package manifestfile opens files and directories of manifests, and writes changed manifests
// back all at once.
package manifestfile

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// File is a file of manifests that the user named, or a folder had in it.
type File struct {
	Name   string // as the user calls it
	Path   string // without symbolic links; empty for standard input
	mode   os.FileMode
	Source []byte
}

// extensions are those of the files that are looked at in a folder: kubectl's.
var extensions = []string{".json", ".yaml", ".yml"}

// ErrMixed is a mistake in the arguments of openManifests.
var ErrMixed = errors.New("- is standard input, which cannot be mixed with files")

// Open reads and parses files, those in folders too if it is recursive.
// All problems of all files are reported; those without one are returned.
func Open[T any](in io.Reader, note io.Writer, args []string, recursive bool, parse func(File) (T, error)) (files []T, err error) {
	if slices.Contains(args, "-") {
		if len(args) > 1 {
			return nil, ErrMixed
		}
		source, err := io.ReadAll(in)
		if err != nil {
			return nil, display.Errorf("reading standard input: %w", err)
		}
		f, err := parse(File{Name: "standard input", Source: source})
		if err != nil {
			return nil, err
		}
		return []T{f}, nil
	}
	var errs []error
	seen := map[string]bool{}
	add := func(name string, found bool) {
		m, err := read(name)
		if err != nil {
			errs = append(errs, display.Error(err))
			return
		}
		if seen[m.Path] {
			return // by another name
		}
		seen[m.Path] = true
		f, err := parse(m)
		switch {
		case err == nil:
			files = append(files, f)
		case found && !m.mentionsUs():
			display.Fprintf(note, "note: %s: passed over: it cannot be read as YAML, and does not mention %s\n", name, ciphertext.Prefix)
		default:
			errs = append(errs, err)
		}
	}
	for _, arg := range args {
		info, err := os.Stat(arg)
		switch {
		case err != nil:
			errs = append(errs, display.Error(err))
		case !info.IsDir():
			add(arg, false)
		case !recursive:
			errs = append(errs, display.Errorf("%s: it is a folder: name the manifests themselves, or look through it with -R", arg))
		default:
			n := 0
			err := walkDir(arg, func(name string) { n++; add(name, true) })
			if err == nil && n == 0 {
				err = display.Errorf("%s: nothing in it ends in %s", arg, strings.Join(extensions, ", "))
			}
			errs = append(errs, display.Error(err))
		}
	}
	return files, errors.Join(errs...)
}

// walkDir calls found for every manifest in a folder and those below it, in order.
// As with kubectl -R a manifest is known by its extension, and links to folders
// are not followed. Unlike there, what is hidden stays so: .git, and the like.
func walkDir(folder string, found func(name string)) error {
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

func read(name string) (m File, err error) {
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return m, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return m, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return m, err
	}
	if !info.Mode().IsRegular() {
		return m, display.Errorf("%s: it is not a file", name)
	}
	source, err := os.ReadFile(path)
	return File{name, path, info.Mode().Perm(), source}, err
}

// mentionsUs is whether there may be a ciphertext Secret in a file: its label or
// its type says so. The templates of a chart are no YAML, and mostly not ours.
func (m File) mentionsUs() bool {
	return bytes.Contains(m.Source, []byte(ciphertext.Prefix))
}

// WithName puts the name of a file before each line of an error about it.
func WithName(name string, err error) error {
	var lines []error
	for line := range bytes.SplitSeq([]byte(err.Error()), []byte("\n")) {
		lines = append(lines, display.Errorf("%s: %s", name, string(line)))
	}
	return errors.Join(lines...)
}

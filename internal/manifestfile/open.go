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

// File is a file of manifests that the user named, or one in a directory.
type File struct {
	Name   string // as the user wrote it
	Path   string // without symbolic links; empty for standard input
	mode   os.FileMode
	Source []byte
}

// extensions are those of the files read in a directory, as in kubectl.
var extensions = []string{".json", ".yaml", ".yml"}

// ErrMixed reports that standard input and files are combined.
var ErrMixed = errors.New("- is standard input, which cannot be combined with files")

// Open reads and parses files, with recursive also those in directories. It returns the files
// without problems, and all problems of the others.
func Open[T any](in io.Reader, note io.Writer, args []string, recursive bool,
	parse func(File) (T, error)) (files []T, err error) {
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
			return // named twice
		}
		seen[m.Path] = true
		f, err := parse(m)
		switch {
		case err == nil:
			files = append(files, f)
		case found && !m.mentionsPrefix():
			display.Fprintf(note, "note: %s: skipped: it is not valid YAML, and does not contain %s\n", name, ciphertext.Prefix)
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
			errs = append(errs, display.Errorf("%s: is a directory: name the manifests, or use -R", arg))
		default:
			n := 0
			err := walkDir(arg, func(name string) { n++; add(name, true) })
			if err == nil && n == 0 {
				err = display.Errorf("%s: has no file with extension %s", arg, strings.Join(extensions, ", "))
			}
			errs = append(errs, display.Error(err))
		}
	}
	return files, errors.Join(errs...)
}

// walkDir calls found for every manifest in a directory and below it, in lexical order. As with
// kubectl -R, the extension decides, and symbolic links to directories are not followed. Unlike
// kubectl, it skips hidden files and directories, such as .git.
func walkDir(dir string, found func(name string)) error {
	// With the separator, a symbolic link to a directory is followed.
	return filepath.WalkDir(dir+string(filepath.Separator), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == dir+string(filepath.Separator):
			return nil
		case strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
		case slices.Contains(extensions, filepath.Ext(path)):
			if info, err := os.Stat(path); d.IsDir() || err == nil && info.IsDir() {
				return nil // a directory with the name of a manifest
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
		return m, display.Errorf("%s: is not a regular file", name)
	}
	source, err := os.ReadFile(path)
	return File{name, path, info.Mode().Perm(), source}, err
}

// mentionsPrefix reports whether a file may have a ciphertext Secret, by its label or type. Chart
// templates are not YAML, and mostly have none.
func (m File) mentionsPrefix() bool {
	return bytes.Contains(m.Source, []byte(ciphertext.Prefix))
}

// WithName prefixes each line of an error with the name of its file.
func WithName(name string, err error) error {
	var lines []error
	for line := range bytes.SplitSeq([]byte(err.Error()), []byte("\n")) {
		lines = append(lines, display.Errorf("%s: %s", name, string(line)))
	}
	return errors.Join(lines...)
}

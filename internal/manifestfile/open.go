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
	"unicode/utf8"

	kubeyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/ciphertextscan"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// File is a file of manifests that the user named, or one in a directory.
type File struct {
	Name     string // as the user wrote it
	Manifest *manifest.File
	Texts    map[*manifest.Entry][]byte // the new ciphertext
	Content  []byte                     // the new content, if more than ciphertext changes
	New      bool                       // the file does not exist yet

	path   string // without symbolic links; empty for standard input
	mode   os.FileMode
	source []byte
}

// extensions are those of the files read in a directory, as in kubectl.
var extensions = []string{".json", ".yaml", ".yml"}

// ErrMixed reports that standard input and files are combined.
var ErrMixed = errors.New("- is standard input, which cannot be combined with files")

// Open reads and parses files, with recursive also those in directories. It returns the files
// without problems, and all problems of the others.
func Open(in io.Reader, note io.Writer, args []string, recursive bool) (files []*File, err error) {
	if slices.Contains(args, "-") {
		if len(args) > 1 {
			return nil, ErrMixed
		}
		source, err := io.ReadAll(in)
		if err != nil {
			return nil, display.Errorf("reading standard input: %w", err)
		}
		f := &File{Name: "standard input", source: source}
		if err := f.parse(); err != nil {
			return nil, err
		}
		return []*File{f}, nil
	}
	var errs []error
	seen := map[string]bool{}
	add := func(name string, found bool) {
		f, err := read(name)
		if err != nil {
			errs = append(errs, display.Error(err))
			return
		}
		if seen[f.path] {
			return // named twice
		}
		seen[f.path] = true
		err = f.parse()
		switch {
		case err == nil:
			files = append(files, f)
		case found && f.irrelevant(): // such as a chart template
			display.Fprintf(note, "note: %s: skipped: it is not valid YAML, and does not contain %s or ciphertext\n", name,
				ciphertext.Prefix)
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

// walkDir calls found for every manifest in a directory and below it, in lexical order. As with kubectl -R, the
// extension selects files, and symbolic links to directories are not followed. Unlike kubectl, it skips hidden files
// and directories, such as .git.
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

func read(name string) (*File, error) {
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
		return nil, display.Errorf("%s: is not a regular file", name)
	}
	source, err := os.ReadFile(path)
	return &File{Name: name, path: path, mode: info.Mode().Perm(), source: source}, err
}

func (f *File) parse() (err error) {
	f.Texts = map[*manifest.Entry][]byte{}
	if f.Manifest, err = manifest.Parse(f.source); err != nil {
		return WithName(f.Name, err)
	}
	return nil
}

// irrelevant reports whether a file that cannot be parsed need not be: kubectl cannot read it
// either, and its text has neither a label or type of ours nor ciphertext. Text in an unknown
// encoding may have both.
func (f *File) irrelevant() bool {
	text, _ := manifest.Decode(f.source)
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 ||
		bytes.Contains(ciphertextscan.Unescape(text), []byte(ciphertext.Prefix)) || len(ciphertextscan.Value(text)) > 0 {
		return false
	}
	decoder := kubeyaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var object any
		switch err := decoder.Decode(&object); {
		case errors.Is(err, io.EOF):
			return false
		case err != nil:
			return true
		}
	}
}

// Check reports whether the ciphertext of the file can be changed.
func (f *File) Check() error {
	if err := f.Manifest.Check(); err != nil {
		return WithName(f.Name, err)
	}
	return nil
}

// WithName prefixes each line of an error with the name of its file.
func WithName(name string, err error) error {
	var lines []error
	for line := range bytes.SplitSeq([]byte(err.Error()), []byte("\n")) {
		lines = append(lines, display.Errorf("%s: %s", name, string(line)))
	}
	return errors.Join(lines...)
}

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
	"regexp"
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

// Options determine which files are read.
type Options struct {
	Recursive     bool      // read directories
	Note          io.Writer // for notes on skipped files; may be nil
	Exclude       []*Pattern
	SkipTemplates bool         // skip files that have to be rendered first
	Progress      func() error // called before each file is read; may be nil. An error ends the reading
}

// Opened are the files without problems, and those that were left out.
type Opened struct {
	Files     []*File
	Templates []string // names of the templates that were skipped
	Excluded  int      // number of files and directories that were excluded
}

// Open reads and parses files, with recursive also those in directories. It returns the files
// without problems, and all problems of the others.
func Open(in io.Reader, note io.Writer, args []string, recursive bool) (files []*File, err error) {
	o := Options{Recursive: recursive, Note: note}
	opened, err := o.Open(in, args)
	return opened.Files, err
}

// Open reads and parses files. It returns the files without problems, and all problems of the others.
func (o *Options) Open(in io.Reader, args []string) (Opened, error) {
	if slices.Contains(args, "-") {
		if len(args) > 1 {
			return Opened{}, ErrMixed
		}
		source, err := io.ReadAll(in)
		if err != nil {
			return Opened{}, display.Errorf("reading standard input: %w", err)
		}
		f := &File{Name: "standard input", source: source}
		if err := f.parse(); err != nil {
			return Opened{}, err
		}
		return Opened{Files: []*File{f}}, nil
	}
	r := reader{Options: o, seen: map[string]bool{}}
	for _, arg := range args {
		if err := r.readArgument(arg); err != nil {
			return r.opened, err
		}
	}
	return r.opened, errors.Join(r.errs...)
}

// reader is one call of Open.
type reader struct {
	*Options
	seen   map[string]bool // paths
	opened Opened
	errs   []error // of files
}

// readArgument reads a file or a directory. It returns an error only if Progress does.
func (r *reader) readArgument(arg string) error {
	info, err := os.Stat(arg)
	switch {
	case err != nil:
		r.errs = append(r.errs, display.Error(err))
	case r.excludes(arg, info.IsDir()):
		r.opened.Excluded++
	case !info.IsDir():
		return r.read(arg, false)
	case !r.Recursive:
		r.errs = append(r.errs, display.Errorf("%s: is a directory: name the manifests, or use -R", arg))
	default:
		n, excluded := 0, r.opened.Excluded
		var stop error
		err := r.walkDir(arg, func(name string) error {
			n++
			stop = r.read(name, true)
			return stop
		})
		switch {
		case stop != nil:
			return stop
		case err == nil && n == 0 && r.opened.Excluded == excluded:
			err = display.Errorf("%s: has no file with extension %s", arg, strings.Join(extensions, ", "))
		}
		if err != nil {
			r.errs = append(r.errs, display.Error(err))
		}
	}
	return nil
}

// read reads a file, which was found in a directory or named. It returns an error only if Progress does.
func (r *reader) read(name string, found bool) error {
	if r.Progress != nil {
		if err := r.Progress(); err != nil {
			return err
		}
	}
	f, err := read(name)
	if err != nil {
		r.errs = append(r.errs, display.Error(err))
		return nil
	}
	if r.seen[f.path] {
		return nil // named twice
	}
	r.seen[f.path] = true
	err = f.parse()
	switch {
	case r.SkipTemplates && (f.isTemplate() || err != nil && found && f.irrelevant()):
		r.opened.Templates = append(r.opened.Templates, name)
	case err == nil:
		r.opened.Files = append(r.opened.Files, f)
	case found && f.irrelevant(): // such as a chart template
		if r.Note != nil {
			display.Fprintf(r.Note, "note: %s: skipped: it is not valid YAML, and does not contain %s or ciphertext\n", name,
				ciphertext.Prefix)
		}
	default:
		r.errs = append(r.errs, err)
	}
	return nil
}

// action is a part of a template that is replaced when it is rendered.
var action = regexp.MustCompile(`(?s)\{\{.*?\}\}`)

// isTemplate reports whether a file has to be rendered before kubectl accepts it: it has {{ and }}, and is either no
// YAML, or has them where the API server does not accept them, or is a template of a Helm chart. It is none if kubectl
// would create a Secret or a class from it as it is, or {{ in another object of the file would hide that from lint.
func (f *File) isTemplate() bool {
	text, _ := manifest.Decode(f.source)
	switch {
	case !action.Match(text):
		return false
	case f.Manifest == nil:
		return !startsWithSecret(text)
	}
	return (f.Manifest.HasTemplate() || f.isInChart()) && !f.Manifest.HasSecret()
}

// isInChart reports whether the file is among the templates of a Helm chart.
func (f *File) isInChart() bool {
	for dir := filepath.Dir(f.path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if filepath.Base(dir) != "templates" {
			continue
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(dir), "Chart.yaml")); err == nil {
			return true
		}
	}
	return false
}

// startsWithSecret reports whether kubectl reads a Secret, a class or a list before it fails to read the rest of the
// file. kubectl apply creates what it has read.
func startsWithSecret(text []byte) bool {
	decoder := kubeyaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var object any
		if err := decoder.Decode(&object); err != nil {
			return false
		}
		o, _ := object.(map[string]any)
		if kind, _ := o["kind"].(string); kind == "Secret" || kind == "SecretProviderClass" || o["items"] != nil {
			return true
		}
	}
}

// walkDir calls found for every manifest in a directory and below it, in lexical order. As with kubectl -R, the
// extension selects files, and symbolic links to directories are not followed. Unlike kubectl, it skips hidden files
// and directories, such as .git.
func (r *reader) walkDir(dir string, found func(name string) error) error {
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
		case d.IsDir() && r.excludes(path, true):
			r.opened.Excluded++
			return fs.SkipDir
		case slices.Contains(extensions, filepath.Ext(path)):
			if info, err := os.Stat(path); d.IsDir() || err == nil && info.IsDir() {
				return nil // a directory with the name of a manifest
			}
			if r.excludes(path, false) {
				r.opened.Excluded++
				return nil
			}
			return found(path)
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

// irrelevant reports whether a file that cannot be parsed need not be: kubectl cannot read it either, has read no
// Secret before the mistake, and the text has neither a label or type of ours nor ciphertext. Text in an unknown
// encoding may have both.
func (f *File) irrelevant() bool {
	text, _ := manifest.Decode(f.source)
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 || startsWithSecret(text) ||
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

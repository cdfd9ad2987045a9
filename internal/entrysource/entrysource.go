// Package entrysource reads plaintext entries from the files, literals and standard input that a command line
// names.
package entrysource

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/document"
)

// Sources are the sources of entries, as in kubectl create secret. The parser of k8s.io/kubectl is not used: it takes
// the value of a line that has none from the environment, and its errors repeat lines.
type Sources struct {
	Files    []string // [NAME=]PATH, "-" being standard input
	Literals []string // NAME=VALUE
	EnvFiles []string // files of lines NAME=VALUE
	JSON     bool     // standard input is a JSON object of entries
}

// None reports whether there are no sources.
func (s Sources) None() bool {
	return len(s.Files)+len(s.Literals)+len(s.EnvFiles) == 0 && !s.JSON
}

// Prompt returns what to ask for if standard input is a terminal, and whether it has several lines; an empty text if
// no source is standard input.
func (s Sources) Prompt() (prompt string, lines bool) {
	for _, arg := range s.Files {
		if name, path, named := strings.Cut(arg, "="); named && path == "-" {
			return fmt.Sprintf("value of entry %s (not shown; Enter ends it)", name), false
		}
	}
	switch {
	case slices.Contains(s.EnvFiles, "-"):
		return "lines ENTRY=VALUE (not shown; Ctrl-D ends them)", true
	case s.JSON:
		return "JSON object of entries (not shown; Ctrl-D ends it)", true
	}
	return "", false
}

// Read returns the plaintexts by entry. The error has all problems and no values.
func (s Sources) Read(stdin io.Reader) (map[string][]byte, error) {
	r := reader{stdin: stdin, entries: map[string][]byte{}}
	for _, arg := range s.Files {
		r.file(arg)
	}
	for i, arg := range s.Literals {
		r.literal(i, arg)
	}
	for _, path := range s.EnvFiles {
		r.envFile(path)
	}
	if s.JSON {
		r.jsonEntries()
	}
	if s.None() {
		r.fail("nothing to encrypt: set --from-file, --from-env-file, --from-literal, --from-stdin-json or --from-secret")
	}
	return r.entries, errors.Join(r.errs...)
}

type reader struct {
	stdin     io.Reader
	stdinRead bool
	entries   map[string][]byte
	errs      []error
}

func (r *reader) fail(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf(format, args...))
}

func (r *reader) add(name string, value []byte, flag string) {
	if _, found := r.entries[name]; found {
		r.fail("%s: entry %q is given twice", flag, name)
		return
	}
	r.entries[name] = value
}

func (r *reader) file(arg string) {
	name, path, named := strings.Cut(arg, "=")
	if !named {
		name, path = filepath.Base(arg), arg
	}
	flag := fmt.Sprintf("--from-file %s", arg)
	switch {
	case path == "-" && !named:
		r.fail("--from-file -: standard input has no name: use NAME=-")
		return
	case name == "" || path == "":
		r.fail("%s: must have the form [NAME=]PATH", flag)
		return
	}
	value, err := r.load(path)
	if err != nil {
		r.fail("%s: %w", flag, err)
		return
	}
	r.add(name, value, flag)
}

// load reads a file or standard input, and no more than a Secret can hold.
func (r *reader) load(path string) ([]byte, error) {
	in := r.stdin
	if path == "-" {
		if r.stdinRead {
			return nil, errors.New("standard input can be read only once")
		}
		r.stdinRead = true
	} else {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.IsDir() {
			return nil, errors.New("is a directory: name its files one by one")
		}
		in = f
	}
	value, err := io.ReadAll(io.LimitReader(in, ciphertext.MaxSecretSize+1))
	if err == nil && len(value) > ciphertext.MaxSecretSize {
		err = fmt.Errorf("is longer than the %d bytes of a Kubernetes Secret", ciphertext.MaxSecretSize)
	}
	return value, err
}

func (r *reader) literal(i int, arg string) {
	name, value, ok := strings.Cut(arg, "=")
	if !ok || name == "" {
		// The message leaves the argument out: all of it may be a secret.
		r.fail("--from-literal number %d: must have the form NAME=VALUE", i+1)
		return
	}
	r.add(name, []byte(value), "--from-literal "+name)
}

// envFile reads lines of NAME=VALUE. As in kubectl, lines that are empty or begin with # are skipped,
// and quotes are part of the value.
func (r *reader) envFile(path string) {
	flag := "--from-env-file " + path
	text, err := r.load(path)
	if err != nil {
		r.fail("%s: %w", flag, err)
		return
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, ciphertext.MaxSecretSize+1)
	found := false
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimLeft(lines.Text(), " \t")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		found = true
		name, value, ok := strings.Cut(line, "=")
		if !ok || name == "" {
			r.fail("%s: line %d must have the form NAME=VALUE", flag, n)
			continue
		}
		r.add(name, []byte(value), fmt.Sprintf("%s: line %d", flag, n))
	}
	if err := lines.Err(); err != nil {
		r.fail("%s: %w", flag, err)
	} else if !found {
		r.fail("%s: no NAME=VALUE found", flag)
	}
}

// jsonEntries reads an object from standard input with a field for each entry: the characters of a
// string, and the JSON of anything else.
func (r *reader) jsonEntries() {
	const flag = "--from-stdin-json"
	text, err := r.load("-")
	if err != nil {
		r.fail("%s: %w", flag, err)
		return
	}
	// The decoder would replace invalid characters.
	if !utf8.Valid(text) {
		r.fail("%s: not UTF-8", flag)
		return
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	// The decoder's messages may quote a value.
	broken := func() { r.fail("%s: not a JSON object: see byte %d", flag, decoder.InputOffset()) }
	if t, err := decoder.Token(); err != nil || t != json.Delim('{') {
		broken()
		return
	}
	for decoder.More() {
		t, err := decoder.Token()
		name, ok := t.(string)
		var raw json.RawMessage
		if err != nil || !ok || decoder.Decode(&raw) != nil {
			broken()
			return
		}
		value, err := jsonValue(raw)
		if err != nil {
			r.fail("%s: field %q: %w", flag, name, err)
			continue
		}
		r.add(name, value, flag)
	}
	if _, err := decoder.Token(); err != nil {
		broken()
		return
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		r.fail("%s: unexpected data after the object", flag)
	} else if len(r.entries) == 0 && len(r.errs) == 0 {
		r.fail("%s: the object has no fields", flag)
	}
}

func jsonValue(raw json.RawMessage) ([]byte, error) {
	switch raw[0] {
	case 'n':
		return nil, errors.New("is null")
	case '"':
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, errors.New("is not a JSON string")
		}
		if document.HasHalfPair(raw) {
			return nil, errors.New("has an escape that is not a character: use --from-file for bytes")
		}
		return []byte(text), nil
	}
	return raw, nil
}

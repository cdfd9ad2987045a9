// Package manifest finds the ciphertext in Kubernetes manifests, YAML or JSON, and
// replaces it without changing another byte. Comments, order, indentation, quotes and line
// endings stay, so that a diff in Git shows only what was rewrapped.
//
// [Parse] reads a file, which may have several documents and lists of objects, and returns
// its ciphertext Secrets; it skips everything else. [File.Replace] replaces ciphertext,
// [File.Edit] also adds and removes entries, and [File.Append] adds a Secret. They parse
// their result before they return it, and fail if it has any other change.
//
// Only the label with the oldest key version ([ciphertext.LabelKeyVersion]) is also
// updated, if it exists.
//
// [Objects] returns all objects of a file.
package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// File is a parsed manifest.
type File struct {
	// Secrets are the ciphertext Secrets, in the order of the file.
	Secrets []*Secret
	// Plain are the other Secrets: name, namespace and line, without entries.
	Plain []*Secret

	source []byte
	lines  []int // offset of each line
	docs   []*yaml.Node
}

// Secret is a ciphertext Secret in a file.
type Secret struct {
	Namespace string // empty if the manifest has none
	Name      string
	Settings  ciphertext.Settings
	Line      int // first line, counted from 1
	Entries   []*Entry

	hint         *yaml.Node // the value of the version label; nil if there is none
	data, string *yaml.Node // the mappings; nil if there are none
}

// Entry is one ciphertext.
type Entry struct {
	Name string
	Text []byte // the ciphertext; in data, base64-decoded
	Line int    // of its value

	key     *yaml.Node
	node    *yaml.Node
	encoded bool // in data, as base64
}

// Version returns the key version of the entry.
func (e *Entry) Version() int {
	v, _ := ciphertext.Version(e.Text) // Parse has checked it
	return v
}

// Parse reads a manifest. The error joins all problems of the file and its ciphertext
// Secrets, with their lines; it contains no values.
func Parse(source []byte) (*File, error) {
	f := &File{source: source}
	docs, err := documents(source)
	if err != nil {
		return nil, err
	}
	f.docs, f.lines = docs, lineStarts(source)
	p := parser{file: f}
	for _, doc := range docs {
		for _, n := range doc.Content {
			eachObject(n, false, func(o Object) {
				if o.Kind == "Secret" && o.APIVersion == "v1" {
					p.secret(o.Node)
				}
			})
		}
	}
	return f, errors.Join(p.errs...)
}

// documents parses a file as a stream of YAML documents; JSON is YAML too.
func documents(source []byte) ([]*yaml.Node, error) {
	if !utf8.Valid(source) {
		return nil, errors.New("it is not UTF-8 text")
	}
	var docs []*yaml.Node
	for decoder := yaml.NewDecoder(bytes.NewReader(source)); ; {
		doc := new(yaml.Node)
		err := decoder.Decode(doc)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			// The error contains a value that begins with *, which is an alias in YAML.
			return nil, fmt.Errorf("it is not YAML: %s",
				anchor.ReplaceAllString(strings.TrimPrefix(err.Error(), "yaml: "), "anchor (removed)"))
		}
		docs = append(docs, doc)
	}
}

var anchor = regexp.MustCompile("(?s)anchor '.*'")

// describe returns the name of a Secret, for errors.
func describe(s *Secret) string {
	if s.Namespace == "" {
		return "Secret " + display.Name(s.Name)
	}
	return "Secret " + display.Name(s.Namespace) + "/" + display.Name(s.Name)
}

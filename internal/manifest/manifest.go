// Package manifest finds the ciphertext in Kubernetes manifests, YAML or JSON,
// and puts other ciphertext in its place without touching another byte: not a
// comment, not the order, the indentation, the quotes or the line endings, so
// that a diff in Git shows what was rewrapped and nothing else.
//
// [Parse] reads a file, which may hold several documents and lists of objects,
// and returns its ciphertext Secrets; everything else is passed over. [File.Replace]
// writes the new texts where the old ones were, [File.Edit] adds and removes entries
// too, and [File.Append] adds a Secret. They read their own result before they
// return it, and fail rather than return a file that says anything else.
//
// The one other thing that is rewritten is the label with the oldest key version
// ([ciphertext.LabelKeyVersion]), where it is there.
//
// [Objects] is for those who look at more than well-formed ciphertext.
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
	// Secrets are the ciphertext Secrets in it, in their order.
	Secrets []*Secret
	// Plain are its other Secrets: name, namespace and line, and no entries.
	Plain []*Secret

	source []byte
	lines  []int // where each line begins
	docs   []*yaml.Node
}

// Secret is a ciphertext Secret in a file.
type Secret struct {
	Namespace string // empty where the manifest has none
	Name      string
	Settings  ciphertext.Settings
	Line      int // where it begins, counted from 1
	Entries   []*Entry

	hint         *yaml.Node // the value of the version label; nil if there is none to be kept
	data, string *yaml.Node // the mappings; nil where there are none
}

// Entry is one ciphertext.
type Entry struct {
	Name string
	Text []byte // the ciphertext: of data, after base64
	Line int    // of its value

	key     *yaml.Node
	node    *yaml.Node
	encoded bool // in base64, being in data
}

// Version returns the key version of the entry.
func (e *Entry) Version() int {
	v, _ := ciphertext.Version(e.Text) // Parse has checked it
	return v
}

// Parse reads a manifest. The error joins everything that is wrong with it or
// its ciphertext Secrets, with the line; it repeats no values.
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

// documents parses a file as a stream of YAML documents, which JSON is too.
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
			// A value that begins with * is an alias to YAML, and the only one it repeats.
			return nil,
				fmt.Errorf("it is not YAML: %s", anchor.ReplaceAllString(strings.TrimPrefix(err.Error(), "yaml: "),
					"anchor (removed)"))
		}
		docs = append(docs, doc)
	}
}

var anchor = regexp.MustCompile("(?s)anchor '.*'")

func place(s *Secret) string {
	if s.Namespace == "" {
		return "Secret " + display.Name(s.Name)
	}
	return "Secret " + display.Name(s.Namespace) + "/" + display.Name(s.Name)
}

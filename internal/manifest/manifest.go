// Package manifest finds the ciphertext in Kubernetes manifests, YAML or JSON, and
// replaces it without changing another byte. Comments, order, indentation, quotes and line
// endings stay, so that a diff in Git shows only what was rewrapped.
//
// [Parse] reads a file, which may have several documents and lists of objects, and tolerates mistakes
// in its objects, for lint and verify. [File.Check] reports what prevents changes. [File.Replace]
// replaces ciphertext, [File.Edit] also adds and removes entries, and [File.Append] adds a Secret. They
// parse their result before they return it, and fail if it has any other change.
//
// Only the label with the oldest key version ([ciphertext.LabelKeyVersion]) is also
// updated, if it exists.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"golang.org/x/text/encoding/unicode"
)

// File is a parsed manifest.
type File struct {
	// Objects are all objects of the file.
	Objects []*Object
	// Secrets are the ciphertext Secrets, in the order of the file.
	Secrets []*Secret
	// Plain are the other Secrets. Their entries are rarely ciphertext.
	Plain []*Secret

	source []byte // in UTF-8
	utf16  bool   // the file itself is UTF-16
	lines  []int  // offset of each line
	docs   []*yaml.Node
}

// Parse reads a manifest. It fails if the file is not YAML or JSON. The error contains no values.
func Parse(source []byte) (*File, error) {
	text, isUTF16 := Decode(source)
	docs, err := documents(text)
	if err != nil {
		return nil, err
	}
	f := &File{source: text, utf16: isUTF16, docs: docs, lines: lineStarts(text)}
	for _, doc := range docs {
		for _, n := range doc.Content {
			eachObject(Value{n}, list{}, map[*yaml.Node]bool{}, f.add)
		}
	}
	return f, nil
}

// Decode returns a file in UTF-8. Like kubectl, it recognizes UTF-16 by its byte order mark:
// Windows PowerShell writes it when output is redirected to a file.
func Decode(source []byte) (text []byte, isUTF16 bool) {
	if !bytes.HasPrefix(source, []byte("\xff\xfe")) && !bytes.HasPrefix(source, []byte("\xfe\xff")) {
		return source, false
	}
	// The decoder replaces what it cannot decode, and returns no error.
	text, _ = unicode.UTF16(unicode.BigEndian, unicode.UseBOM).NewDecoder().Bytes(source)
	return text, true
}

func (f *File) add(o *Object) {
	f.Objects = append(f.Objects, o)
	if o.Kind != "Secret" || o.APIVersion != "v1" {
		return
	}
	if s, isCiphertext := newSecret(o); isCiphertext {
		f.Secrets = append(f.Secrets, s)
	} else {
		f.Plain = append(f.Plain, s)
	}
}

// Check reports whether the ciphertext of the file can be changed. The error joins all problems of its
// ciphertext Secrets, with their lines; it contains no values.
func (f *File) Check() error {
	var errs []error
	if f.utf16 {
		errs = append(errs, errors.New("it is UTF-16, which is read but not written: convert it to UTF-8, for example with "+
			"iconv -f UTF-16 -t UTF-8"))
	}
	for _, s := range f.Secrets {
		if s.Name == "" {
			errs = append(errs, fmt.Errorf("line %d: a ciphertext Secret without a name", s.Line))
		}
		errs = append(errs, s.readOnly...)
		problems := slices.Clone(s.Problems)
		for _, e := range s.Entries {
			if e.Problem != nil {
				problems = append(problems, *e.Problem)
			}
		}
		for _, p := range problems {
			entry := ""
			if p.Entry != "" {
				entry = fmt.Sprintf("entry %q: ", p.Entry)
			}
			errs = append(errs, fmt.Errorf("line %d: %s: %s%s", p.Line, s, entry, p.Message))
		}
	}
	return errors.Join(errs...)
}

// documents parses a file as a stream of YAML documents; JSON is YAML too.
func documents(source []byte) ([]*yaml.Node, error) {
	if !utf8.Valid(source) {
		return nil, errors.New("it is not UTF-8 text")
	}
	if docs := jsonDocuments(source); len(docs) > 1 {
		return docs, nil
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

// jsonDocuments parses a stream of JSON objects without a separator, which YAML does not have. It returns nil for
// anything else.
func jsonDocuments(source []byte) (docs []*yaml.Node) {
	if !isJSON(source) {
		return nil
	}
	source = bytes.TrimPrefix(source, []byte(bom))
	decoder := json.NewDecoder(bytes.NewReader(source))
	line, column, read := 1, 1, 0
	for {
		var object json.RawMessage
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			return nil
		}
		doc := new(yaml.Node)
		if err := yaml.Unmarshal(object, doc); err != nil {
			return nil
		}
		start := int(decoder.InputOffset()) - len(object)
		before := source[read:start]
		if starts := lineStarts(before); len(starts) > 1 {
			line, column, before = line+len(starts)-1, 1, before[starts[len(starts)-1]:]
		}
		column += utf8.RuneCount(before)
		read = start
		move(doc, line-1, column-1)
		docs = append(docs, doc)
	}
}

// move adds to the lines of a document, and to the columns of its first line.
func move(n *yaml.Node, lines, columns int) {
	if n.Line == 1 {
		n.Column += columns
	}
	n.Line += lines
	for _, c := range n.Content {
		move(c, lines, columns)
	}
}

var anchor = regexp.MustCompile("(?s)anchor '.*'")

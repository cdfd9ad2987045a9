// Package document reads fields of JSON and YAML that anybody may have written.
//
// The limits bound memory and time before anything is built from a text. No error repeats a value of the document,
// because it is the plaintext of a Secret.
package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// errNotDocument replaces the errors of the parsers, which repeat parts of the text.
var errNotDocument = errors.New("the plaintext is neither JSON nor YAML")

// Errors of a text that is too large to be parsed.
var (
	ErrTooManyValues = fmt.Errorf("the plaintext holds more values than the limit of %d", MaxNodes)
	ErrTooDeep       = fmt.Errorf("the plaintext nests deeper than the limit of %d", MaxDepth)
)

// document is a plaintext that fields are taken from. JSON is read as the YAML
// that it is not quite: see Parse.
type Document struct {
	json  any // json.Number, string, bool, nil, []any, map[string]any
	yaml  *yaml.Node
	index map[*yaml.Node]map[string]yamlValue // of the mappings that were looked into
}

type yamlValue struct {
	node      *yaml.Node
	duplicate bool // its name occurs more than once
}

// Parse reads JSON or, failing that, YAML of one document. JSON is not
// left to the YAML reader, which takes numbers, escapes and tabs differently.
func Parse(plaintext []byte) (*Document, error) {
	if !utf8.Valid(plaintext) {
		return nil, errNotDocument // the JSON reader would put something else in place
	}
	if json.Valid(plaintext) {
		switch values, depth := JSONSize(plaintext); {
		case values > MaxNodes:
			return nil, ErrTooManyValues
		case depth > MaxDepth:
			return nil, ErrTooDeep
		}
		decoder := json.NewDecoder(bytes.NewReader(plaintext))
		decoder.UseNumber() // so that numbers stay as they were written
		var d Document
		if decoder.Decode(&d.json) != nil {
			return nil, errNotDocument
		}
		return &d, nil
	}
	if YAMLNodes(string(plaintext)) > MaxNodes {
		return nil, ErrTooManyValues
	}
	var doc, next yaml.Node
	lines := yaml.NewDecoder(bytes.NewReader(plaintext))
	if lines.Decode(&doc) != nil || len(doc.Content) == 0 {
		return nil, errNotDocument
	}
	if err := lines.Decode(&next); !errors.Is(err, io.EOF) {
		return nil, errNotDocument
	}
	// The parser itself goes no deeper than 10,000.
	if deeper(doc.Content[0], MaxDepth) {
		return nil, ErrTooDeep
	}
	return &Document{yaml: doc.Content[0], index: map[*yaml.Node]map[string]yamlValue{}}, nil
}

// deeper reports whether a node has more levels than depth.
func deeper(n *yaml.Node, depth int) bool {
	if n.Kind != yaml.MappingNode && n.Kind != yaml.SequenceNode {
		return false
	}
	return depth <= 0 || slices.ContainsFunc(n.Content, func(n *yaml.Node) bool { return deeper(n, depth-1) })
}

// get returns the content of a field: a scalar as its text, exactly as written
// where it is a number, and anything else as JSON. The error names the field,
// never a value.
func (d *Document) Get(b *Budget, field []string) ([]byte, error) {
	if err := b.Spend(len(field)); err != nil {
		return nil, err
	}
	if d.yaml != nil {
		return d.yamlField(b, field)
	}
	return jsonField(d.json, field)
}

func jsonField(v any, field []string) ([]byte, error) {
	for i, name := range field {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[name]
			if !ok {
				return nil, missing(field[:i+1])
			}
			v = next
		case []any:
			n, err := index(field[:i+1], len(at))
			if err != nil {
				return nil, err
			}
			v = at[n]
		default:
			return nil, noFields(field[:i+1])
		}
	}
	switch v := v.(type) {
	case string:
		return []byte(v), nil
	case json.Number:
		return []byte(v), nil
	case bool:
		return strconv.AppendBool(nil, v), nil
	case nil:
		return nil, null(field)
	}
	return marshal(v)
}

func (d *Document) yamlField(b *Budget, field []string) ([]byte, error) {
	n := d.yaml
	for i, name := range field {
		switch n.Kind {
		case yaml.MappingNode:
			if d.index[n] == nil {
				if err := b.Spend(len(n.Content)); err != nil {
					return nil, err
				}
				d.index[n] = indexed(n)
			}
			next := d.index[n][name]
			switch {
			case next.node == nil:
				return nil, missing(field[:i+1])
			case next.duplicate:
				return nil, fmt.Errorf("field %s occurs twice", fieldName(field[:i+1]))
			}
			n = next.node
		case yaml.SequenceNode:
			at, err := index(field[:i+1], len(n.Content))
			if err != nil {
				return nil, err
			}
			n = n.Content[at]
		case yaml.AliasNode:
			return nil, alias(field[:i])
		default:
			return nil, noFields(field[:i+1])
		}
	}
	switch {
	case n.Kind != yaml.ScalarNode:
		v, err := plain(b, n, field)
		if err != nil {
			return nil, err
		}
		return marshal(v)
	case n.ShortTag() == "!!null":
		return nil, null(field)
	}
	return []byte(n.Value), nil
}

// indexed returns the values of a mapping by name.
func indexed(mapping *yaml.Node) map[string]yamlValue {
	values := make(map[string]yamlValue, len(mapping.Content)/2)
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if key := mapping.Content[i]; key.Kind == yaml.ScalarNode {
			_, duplicate := values[key.Value]
			values[key.Value] = yamlValue{mapping.Content[i+1], duplicate}
		}
	}
	return values
}

// plain turns YAML into what JSON can hold.
func plain(b *Budget, n *yaml.Node, field []string) (any, error) {
	if err := b.Spend(1); err != nil {
		return nil, err
	}
	switch n.Kind {
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, item := range n.Content {
			v, err := plain(b, item, field)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case yaml.MappingNode:
		object := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" {
				return nil, alias(field)
			}
			if _, ok := object[key.Value]; ok {
				return nil, fmt.Errorf("field %s contains a name twice", fieldName(field))
			}
			v, err := plain(b, n.Content[i+1], field)
			if err != nil {
				return nil, err
			}
			object[key.Value] = v
		}
		return object, nil
	case yaml.AliasNode:
		// Followed, a few hundred bytes of them can stand for gigabytes.
		return nil, alias(field)
	}
	return plainScalar(n, field)
}

func plainScalar(n *yaml.Node, field []string) (any, error) {
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true"), nil
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) {
			return json.Number(n.Value), nil
		}
		// Such as 0x1f, 1_000 or .5.
		var v any
		if err := n.Decode(&v); err != nil {
			return n.Value, nil
		}
		if f, ok := v.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
			return nil, fmt.Errorf("field %s contains a number that JSON does not have", fieldName(field))
		}
		return v, nil
	}
	return n.Value, nil
}

// marshal writes JSON without the escapes that are for browsers.
func marshal(v any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, errors.New("cannot be written as JSON")
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n")), nil
}

// index reads the last part of the field as a position in a list of n items.
func index(field []string, n int) (int, error) {
	last := field[len(field)-1]
	i, err := strconv.ParseUint(last, 10, 31)
	if err != nil || strconv.FormatUint(i, 10) != last {
		return 0, fmt.Errorf("field %s does not exist: its parent is a list, whose items are numbered from 0",
			fieldName(field))
	}
	if int(i) >= n {
		return 0, fmt.Errorf("field %s does not exist: the list has %d items, numbered from 0", fieldName(field), n)
	}
	return int(i), nil
}

func missing(field []string) error {
	return fmt.Errorf("field %s does not exist", fieldName(field))
}

func noFields(field []string) error {
	return fmt.Errorf("field %s does not exist: its parent is a single value", fieldName(field))
}

func null(field []string) error {
	return fmt.Errorf("field %s is null", fieldName(field))
}

func alias(field []string) error {
	return fmt.Errorf("field %s contains a YAML alias or merge, which is not followed", fieldName(field))
}

// ParseField splits the path of a field, such as "a.b.0"; a dot that is part of a name is written "\.". The error does
// not repeat the text.
func ParseField(s string) ([]string, error) {
	if len(s) > MaxField {
		return nil, fmt.Errorf("must have at most %d bytes", MaxField)
	}
	var parts []string
	var part strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '.' || s[i+1] == '\\'):
			i++
			part.WriteByte(s[i])
		case s[i] == '.':
			parts = append(parts, part.String())
			part.Reset()
		default:
			part.WriteByte(s[i])
		}
	}
	parts = append(parts, part.String())
	if slices.Contains(parts, "") {
		return nil, errors.New("must not have an empty part")
	}
	if len(parts) > MaxDepth {
		return nil, fmt.Errorf("must have at most %d parts", MaxDepth)
	}
	return parts, nil
}

// fieldName writes a field as the class has it.
func fieldName(field []string) string {
	escape := strings.NewReplacer(`\`, `\\`, `.`, `\.`)
	parts := make([]string, len(field))
	for i, part := range field {
		parts[i] = escape.Replace(part)
	}
	return strconv.Quote(strings.Join(parts, "."))
}

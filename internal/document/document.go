// Package document reads fields of untrusted JSON and YAML.
//
// Limits bound memory and time before a text is parsed. An error never quotes a value, because the document is the
// plaintext of a Secret.
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

// errNotDocument replaces the errors of the parsers, which quote the text.
var errNotDocument = errors.New("the plaintext is neither JSON nor YAML")

// Errors of a text that is too large to be parsed.
var (
	ErrTooManyValues = fmt.Errorf("the plaintext holds more values than the limit of %d", MaxNodes)
	ErrTooDeep       = fmt.Errorf("the plaintext nests deeper than the limit of %d", MaxDepth)
)

// Document is a parsed plaintext. It is not safe for concurrent use.
type Document struct {
	json  any // see parseJSON
	yaml  *yaml.Node
	index map[*yaml.Node]map[string]yamlValue // of the mappings that Get has visited
}

type yamlValue struct {
	node      *yaml.Node
	duplicate bool // its name occurs more than once
}

// Parse parses JSON, or else one YAML document. It does not parse JSON as YAML, which reads numbers, escapes and tabs
// differently.
func Parse(plaintext []byte) (*Document, error) {
	if !utf8.Valid(plaintext) {
		return nil, errNotDocument // the JSON parser would replace invalid bytes
	}
	if json.Valid(plaintext) {
		switch values, depth := JSONSize(plaintext); {
		case values > MaxNodes:
			return nil, ErrTooManyValues
		case depth > MaxDepth:
			return nil, ErrTooDeep
		}
		value, err := parseJSON(plaintext)
		if err != nil {
			return nil, err
		}
		return &Document{json: value}, nil
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
	// The recursion is bounded: the parser refuses more than 10,000 levels.
	if isDeeper(doc.Content[0], MaxDepth) {
		return nil, ErrTooDeep
	}
	return &Document{yaml: doc.Content[0], index: map[*yaml.Node]map[string]yamlValue{}}, nil
}

// isDeeper reports whether a node has more levels than depth.
func isDeeper(n *yaml.Node, depth int) bool {
	if n.Kind != yaml.MappingNode && n.Kind != yaml.SequenceNode {
		return false
	}
	return depth <= 0 || slices.ContainsFunc(n.Content, func(n *yaml.Node) bool { return isDeeper(n, depth-1) })
}

// Get returns the content of a field: a scalar as text, with a number exactly as written, and anything else as JSON. It
// spends the budget. The error names the field, never a value.
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
		switch parent := v.(type) {
		case *object:
			child, ok := parent.values[name]
			switch {
			case !ok:
				return nil, missing(field[:i+1])
			case slices.Contains(parent.twice, name):
				return nil, fmt.Errorf("field %s occurs twice", fieldName(field[:i+1]))
			}
			v = child
		case []any:
			n, err := listIndex(field[:i+1], len(parent))
			if err != nil {
				return nil, err
			}
			v = parent[n]
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
	plain, err := plainJSON(v, field)
	if err != nil {
		return nil, err
	}
	return marshal(plain)
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
				d.index[n] = indexMapping(n)
			}
			child := d.index[n][name]
			switch {
			case child.node == nil:
				return nil, missing(field[:i+1])
			case child.duplicate:
				return nil, fmt.Errorf("field %s occurs twice", fieldName(field[:i+1]))
			}
			n = child.node
		case yaml.SequenceNode:
			j, err := listIndex(field[:i+1], len(n.Content))
			if err != nil {
				return nil, err
			}
			n = n.Content[j]
		case yaml.AliasNode:
			return nil, alias(field[:i])
		default:
			return nil, noFields(field[:i+1])
		}
	}
	switch {
	case n.Kind != yaml.ScalarNode:
		v, err := toJSON(b, n, field)
		if err != nil {
			return nil, err
		}
		return marshal(v)
	case n.ShortTag() == "!!null":
		return nil, null(field)
	}
	return []byte(n.Value), nil
}

// indexMapping returns the values of a mapping by name.
func indexMapping(mapping *yaml.Node) map[string]yamlValue {
	values := make(map[string]yamlValue, len(mapping.Content)/2)
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if key := mapping.Content[i]; key.Kind == yaml.ScalarNode {
			_, duplicate := values[key.Value]
			values[key.Value] = yamlValue{mapping.Content[i+1], duplicate}
		}
	}
	return values
}

// toJSON converts a YAML node to a value that JSON can represent.
func toJSON(b *Budget, n *yaml.Node, field []string) (any, error) {
	if err := b.Spend(1); err != nil {
		return nil, err
	}
	switch n.Kind {
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, item := range n.Content {
			v, err := toJSON(b, item, field)
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
			v, err := toJSON(b, n.Content[i+1], field)
			if err != nil {
				return nil, err
			}
			object[key.Value] = v
		}
		return object, nil
	case yaml.AliasNode:
		// Expanding aliases could turn a few hundred bytes into gigabytes.
		return nil, alias(field)
	}
	return scalarToJSON(n, field)
}

func scalarToJSON(n *yaml.Node, field []string) (any, error) {
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true"), nil
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) {
			return json.Number(n.Value), nil
		}
		// A number that only YAML has, such as 0x1f, 1_000 or .5.
		var v any
		if err := n.Decode(&v); err != nil {
			return n.Value, nil
		}
		if f, ok := v.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
			return nil, fmt.Errorf("field %s contains a number that JSON cannot represent", fieldName(field))
		}
		return v, nil
	}
	return n.Value, nil
}

// marshal encodes JSON without escapes for HTML.
func marshal(v any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, errors.New("cannot be encoded as JSON")
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n")), nil
}

// listIndex parses the last part of the field as an index into a list of n items.
func listIndex(field []string, n int) (int, error) {
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

// ParseField splits the path of a field, such as "a.b.0". A dot in a name is escaped as "\.". The error does not quote
// the text.
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

// fieldName joins and quotes a field, as ParseField reads it.
func fieldName(field []string) string {
	escape := strings.NewReplacer(`\`, `\\`, `.`, `\.`)
	parts := make([]string, len(field))
	for i, part := range field {
		parts[i] = escape.Replace(part)
	}
	return strconv.Quote(strings.Join(parts, "."))
}

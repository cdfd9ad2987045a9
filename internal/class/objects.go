package class

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/document"
)

// Limits of objects.
const (
	MaxObjectsBytes = 512 << 10 // room for MaxObjects items with all fields
	MaxObjects      = 2000      // the entries of a Secret of 1 MiB with that many are nearly empty
)

const objectsName = "objects"

// DefaultMode is the mode of a file without filePermission. The driver writes files as root and does not apply fsGroup,
// so pods that do not run as root could not read files with a stricter mode.
const DefaultMode os.FileMode = 0o644

// Object is one file of the volume.
type Object struct {
	Path     string   // path in the volume
	Entry    string   // entry of the Secret
	Field    []string // path into JSON or YAML plaintext; nil for all of it
	Encoding Encoding
	Mode     os.FileMode
}

// Encoding is the encoding of the plaintext. The file has the decoded content.
type Encoding string

// Encodings. Empty means UTF8.
const (
	UTF8   Encoding = "utf-8" // nothing to decode
	Base64 Encoding = "base64"
	Hex    Encoding = "hex"
)

var encodings = []Encoding{UTF8, Base64, Hex}

// objectField is a field of an item of objects.
type objectField struct {
	name string
	set  func(p *parser, path *field.Path, o *Object, value string)
}

// objectFields are all fields. docs/reference/parameters.md lists them too.
var objectFields = []objectField{
	// parseObjects checks the path with those of the other objects.
	{"objectName", func(_ *parser, _ *field.Path, o *Object, v string) { o.Path = v }},
	{"secretKey", func(p *parser, path *field.Path, o *Object, v string) {
		o.Entry = v
		p.check(path, CheckEntry(v), entryDetail)
	}},
	{"field", func(p *parser, path *field.Path, o *Object, v string) {
		var err error
		if o.Field, err = document.ParseField(v); err != nil {
			p.invalid(path, err.Error())
		}
	}},
	{"encoding", func(p *parser, path *field.Path, o *Object, v string) {
		if o.Encoding = Encoding(v); !slices.Contains(encodings, o.Encoding) {
			p.add(field.NotSupported(path, omitted, encodings))
		}
	}},
	{"filePermission", func(p *parser, path *field.Path, o *Object, v string) {
		// The leading zero is required: 440 might be meant as a decimal number, as modes in JSON are.
		n, err := strconv.ParseUint(v, 8, 32)
		if err != nil || v[0] != '0' || n > 0o777 {
			p.invalid(path, `must be an octal mode from "0000" to "0777"`)
			return
		}
		o.Mode = os.FileMode(n)
	}},
}

// parseObjects reads the parameter objects, a YAML list.
func (p *parser) parseObjects(path *field.Path, text string) {
	if len(text) > MaxObjectsBytes {
		p.add(field.TooLong(path, omitted, MaxObjectsBytes))
		return
	}
	root, err := parseList(text)
	switch {
	case err != nil:
		p.invalid(path, err.Error())
		return
	case len(root.Content) == 0:
		p.invalid(path, "must not be an empty list; leave objects out to mount every entry as a file")
		return
	case len(root.Content) > MaxObjects:
		p.add(field.TooMany(path, len(root.Content), MaxObjects))
		return
	}
	paths := PathSet{target: p.target}
	for i, item := range root.Content {
		if p.full() {
			return
		}
		itemPath := path.Index(i)
		if item.Kind != yaml.MappingNode {
			p.invalid(itemPath, "must be fields such as \"objectName: …\", not "+kindOf(item))
			continue
		}
		o := p.parseObject(itemPath, item)
		name := itemPath.Child("objectName")
		if o.Path == "" {
			p.add(field.Required(name, "the path of the file in the volume"))
		} else if err := paths.Add(o.Path, itemPath.String()); err != nil {
			p.invalid(name, err.Error())
		}
		if o.Entry == "" {
			o.Entry = o.Path
			if o.Path != "" && CheckEntry(o.Path) != nil {
				p.add(field.Required(itemPath.Child("secretKey"), "objectName is not the name of an entry"))
			}
		}
		p.class.Objects = append(p.class.Objects, o)
	}
}

// parserLine matches the line number in an error of the YAML parser. The rest of the error may quote the document.
var parserLine = regexp.MustCompile(`^yaml: (line \d+)`)

// parseList parses a text that is one YAML list.
func parseList(text string) (*yaml.Node, error) {
	if err := document.CheckYAML(text); err != nil {
		return nil, err
	}
	var doc, next yaml.Node
	decoder := yaml.NewDecoder(strings.NewReader(text))
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, errors.New("must contain more than comments")
	} else if err != nil {
		if m := parserLine.FindStringSubmatch(err.Error()); m != nil {
			return nil, fmt.Errorf("must be YAML: see %s", m[1])
		}
		return nil, errors.New("must be YAML")
	}
	if err := decoder.Decode(&next); !errors.Is(err, io.EOF) {
		return nil, errors.New("must be one YAML document")
	}
	root := doc.Content[0]
	if root.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("must be a list of items that begin with \"- objectName: …\", not %s", kindOf(root))
	}
	return root, nil
}

func (p *parser) parseObject(path *field.Path, item *yaml.Node) Object {
	o := Object{Mode: DefaultMode}
	seen := map[string]bool{}
	for i := 0; i+1 < len(item.Content) && !p.full(); i += 2 {
		key, value := item.Content[i], item.Content[i+1]
		fieldPath := path.Child(display.Clip(key.Value, 120))
		f := slices.IndexFunc(objectFields, func(f objectField) bool { return f.name == key.Value })
		switch {
		case key.Kind != yaml.ScalarNode || f < 0:
			p.add(field.Forbidden(fieldPath, "unknown field; the fields are "+fieldNames()))
		case seen[key.Value]:
			p.add(field.Duplicate(fieldPath, omitted))
		case value.Kind != yaml.ScalarNode || value.Tag == "!!null":
			p.add(field.TypeInvalid(fieldPath, omitted, "must be a string, not "+kindOf(value)))
		default:
			// Use the text as written: YAML reads 0440 without quotes as the number 288.
			objectFields[f].set(p, fieldPath, &o, value.Value)
		}
		seen[key.Value] = true
	}
	return o
}

func fieldNames() string {
	names := make([]string, len(objectFields))
	for i, f := range objectFields {
		names[i] = f.name
	}
	return strings.Join(names, ", ")
}

func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case n.Tag == "!!null":
		return "null"
	}
	return "a single value"
}

const entryDetail = `must be a name of letters, digits, "-", "_" and "." that does not begin with ".."`

// CheckEntry returns an error if s cannot be the name of an entry of a Secret. Nothing else may become part of the
// context of a ciphertext.
func CheckEntry(s string) error {
	if len(validation.IsConfigMapKey(s)) > 0 {
		return errors.New(entryDetail)
	}
	return nil
}

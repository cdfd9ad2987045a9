package provider

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// defaultMode is the mode of a file unless told. The driver writes files as
// root and does not apply fsGroup: anything less would lock out the pods that
// do not run as root.
const defaultMode os.FileMode = 0o644

// object is one file to make.
type object struct {
	path     string   // in the volume
	entry    string   // of the Secret
	field    []string // path into JSON or YAML plaintext; nil for all of it
	encoding encoding
	mode     os.FileMode
}

// objectField is a field of an item of objects.
type objectField struct {
	name string
	set  func(o *object, value string) error
}

// objectFields are all there are. docs/reference/parameters.md has them too.
var objectFields = []objectField{
	{"objectName", func(o *object, v string) error {
		o.path = v
		return nil // checked when the target folder is known
	}},
	{"secretKey", func(o *object, v string) error {
		o.entry = v
		return checkEntry(v)
	}},
	{"field", func(o *object, v string) (err error) {
		o.field, err = parseField(v)
		return err
	}},
	{"encoding", func(o *object, v string) (err error) {
		o.encoding, err = parseEncoding(v)
		return err
	}},
	{"filePermission", func(o *object, v string) (err error) {
		o.mode, err = parseMode(v)
		return err
	}},
}

// parseObjects reads the parameter objects, a YAML list. The problems go on
// from the parameter's name: "[2].filePermission: …".
func parseObjects(text, target string) (objects []object, found problems) {
	if err := tooLong(text, maxObjectsBytes); err != nil {
		return nil, problem(err)
	}
	root, err := parseList(text)
	if err != nil {
		return nil, problem(err)
	}
	if len(root.Content) == 0 {
		return nil, []string{": is an empty list; leave objects out to have every entry as a file"}
	}
	if len(root.Content) > maxObjects {
		return nil, []string{fmt.Sprintf(": has %d items, more than the limit of %d", len(root.Content), maxObjects)}
	}
	paths := pathSet{target: target}
	for i, item := range root.Content {
		at := fmt.Sprintf("[%d]", i)
		if found.full() {
			return nil, append(found, at+": is not checked, nor is what follows, after so many problems")
		}
		o, more := parseObject(item)
		for _, problem := range more {
			found.add(at + problem)
		}
		if item.Kind != yaml.MappingNode {
			continue
		}
		if o.path == "" {
			found.add(at + ".objectName: is required: the path of the file in the volume")
		} else if err := paths.add(o.path, fmt.Sprintf("objects[%d]", i)); err != nil {
			found.add(at + ".objectName: " + err.Error())
		}
		if o.entry == "" {
			o.entry = o.path
			if o.path != "" && checkEntry(o.path) != nil {
				found.add(at + ".secretKey: is required, as objectName is not the name of an entry")
			}
		}
		objects = append(objects, o)
	}
	return objects, found
}

// parseList returns the one YAML list that the text holds.
func parseList(text string) (*yaml.Node, error) {
	if err := checkYAML(text); err != nil {
		return nil, err
	}
	var doc, next yaml.Node
	decoder := yaml.NewDecoder(strings.NewReader(text))
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, errors.New("has nothing but comments in it")
	} else if err != nil {
		return nil, fmt.Errorf("is not YAML: %s", strings.TrimPrefix(failure.Clip(err.Error(), 200), "yaml: "))
	}
	if err := decoder.Decode(&next); !errors.Is(err, io.EOF) {
		return nil, errors.New("is more than one YAML document")
	}
	root := doc.Content[0]
	if root.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("is %s and not a list of items that begin with \"- objectName: …\"", kindOf(root))
	}
	return root, nil
}

func parseObject(item *yaml.Node) (o object, found problems) {
	o.mode = defaultMode
	if item.Kind != yaml.MappingNode {
		return o, problems{fmt.Sprintf(": is %s and not fields such as \"objectName: …\"", kindOf(item))}
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(item.Content) && !found.full(); i += 2 {
		key, value := item.Content[i], item.Content[i+1]
		at := "." + failure.Clip(key.Value, 120)
		f := slices.IndexFunc(objectFields, func(f objectField) bool { return f.name == key.Value })
		switch {
		case key.Kind != yaml.ScalarNode || f < 0:
			found.add(at + ": is not a field; there are " + fieldNames())
		case seen[key.Value]:
			found.add(at + ": is there twice")
		case value.Kind != yaml.ScalarNode || value.Tag == "!!null":
			found.add(fmt.Sprintf("%s: is %s and not a text", at, kindOf(value)))
		default:
			// The text as it was written: 0440 without quotes is the number 288 to YAML.
			if err := objectFields[f].set(&o, value.Value); err != nil {
				found.add(at + ": " + err.Error())
			}
		}
		seen[key.Value] = true
	}
	return o, found
}

func fieldNames() string {
	var names []string
	for _, f := range objectFields {
		names = append(names, f.name)
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

// checkEntry reports whether s can be the name of an entry of a Secret. Nothing
// else may get into the context of a ciphertext.
func checkEntry(s string) error {
	if len(validation.IsConfigMapKey(s)) > 0 {
		return fmt.Errorf("%s is not the name of an entry of a Secret", failure.Quote(s))
	}
	return nil
}

// parseMode reads an octal mode. The leading zero is required: 440 might be
// meant as a decimal, as Kubernetes has modes in JSON.
func parseMode(s string) (os.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || s[0] != '0' || n > 0o777 {
		return 0, fmt.Errorf(`%s is not an octal mode from "0000" to "0777"`, failure.Quote(s))
	}
	return os.FileMode(n), nil
}

// parseField splits "a.b.0"; a dot that is part of a name is written "\.".
func parseField(s string) ([]string, error) {
	if err := tooLong(s, maxField); err != nil {
		return nil, err
	}
	var parts []string
	var part bytes.Buffer
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
		return nil, fmt.Errorf("%s has an empty part", failure.Quote(s))
	}
	if len(parts) > maxDepth {
		return nil, fmt.Errorf("has %d parts, more than the limit of %d", len(parts), maxDepth)
	}
	return parts, nil
}

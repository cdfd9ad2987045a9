package chart

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Value is a value of the chart, as values.schema.json describes it.
type Value struct {
	// Path is the name of the value after the names of the values that contain it, such as vault.ca.key.
	Path        string
	Description string
	Enum        []string
	// Default is nil for a value that contains others.
	Default *yaml.Node
	// Properties are the values that it contains.
	Properties []Value
}

// Name is the last part of the path.
func (v Value) Name() string { return v.Path[strings.LastIndexByte(v.Path, '.')+1:] }

// ReadSchema reads the values from the schema in the directory of the chart, in the order of the schema. The error
// lists each value without a description or a default, and each object that accepts a mistyped value or requires one.
func ReadSchema(chart string) ([]Value, error) {
	file := filepath.Join(chart, "values.schema.json")
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	// JSON is valid YAML, and the YAML library keeps the order of keys.
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	var problems []string
	values := properties(doc.Content[0], "", &problems)
	if len(problems) > 0 {
		return nil, fmt.Errorf("%s:\n%s", file, strings.Join(problems, "\n"))
	}
	return values, nil
}

// properties reads the properties of the schema of an object.
func properties(schema *yaml.Node, prefix string, problems *[]string) []Value {
	problem := func(format string, args ...any) { *problems = append(*problems, fmt.Sprintf(format, args...)) }
	// A parent chart may set global values for its other charts.
	additional := get(schema, "additionalProperties")
	if prefix != "global." && (additional == nil || additional.Value != "false") {
		problem("%s allows additional properties, so it would accept a mistyped value",
			strings.TrimSuffix("values."+prefix, "."))
	}
	if get(schema, "required") != nil {
		problem("%s has required properties, so `helm upgrade --reuse-values` fails for an older release",
			strings.TrimSuffix("values."+prefix, "."))
	}
	var values []Value
	all := get(schema, "properties")
	for i := 0; i+1 < len(all.Content); i += 2 {
		name, property := all.Content[i].Value, all.Content[i+1]
		v := Value{Path: prefix + name, Default: get(property, "default")}
		if d := get(property, "description"); d != nil {
			v.Description = d.Value
		}
		if enum := get(property, "enum"); enum != nil {
			for _, e := range enum.Content {
				v.Enum = append(v.Enum, e.Value)
			}
		}
		if !strings.HasSuffix(v.Description, ".") {
			problem("%s has no description that ends with a full stop", v.Path)
		}
		switch nested := get(property, "properties") != nil; {
		case nested && v.Default == nil:
			v.Properties = properties(property, v.Path+".", problems)
		case nested || v.Default == nil:
			problem("%s must have either properties or a default", v.Path)
		}
		values = append(values, v)
	}
	return values
}

// get returns the value of a key in a mapping, or nil.
func get(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

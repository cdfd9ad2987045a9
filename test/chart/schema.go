package chart

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Value is a value of the chart as values.schema.json has it.
type Value struct {
	// Path is its name with those of what it is in: vault.ca.key.
	Path        string
	Description string
	Enum        []string
	// Default is nil for a value that consists of others.
	Default *yaml.Node
	// Properties are those others.
	Properties []Value
}

// Name is the last part of the path.
func (v Value) Name() string { return v.Path[strings.LastIndexByte(v.Path, '.')+1:] }

// helmsOwn is a value that Helm makes up and nobody gives.
const helmsOwn = "global"

// ReadSchema reads the values from the schema in the chart's folder, in its order. It
// reports each that lacks a description or a default.
func ReadSchema(chart string) ([]Value, error) {
	file := filepath.Join(chart, "values.schema.json")
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	// JSON is YAML, whose library keeps the order.
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

// properties reads those of an object's schema.
func properties(schema *yaml.Node, prefix string, problems *[]string) []Value {
	problem := func(format string, args ...any) { *problems = append(*problems, fmt.Sprintf(format, args...)) }
	if more := get(schema, "additionalProperties"); more == nil || more.Value != "false" {
		problem("%s may have properties that it does not name: a mistyped one would be passed over", strings.TrimSuffix("values."+prefix, "."))
	}
	var values []Value
	all := get(schema, "properties")
	for i := 0; i+1 < len(all.Content); i += 2 {
		name, of := all.Content[i].Value, all.Content[i+1]
		if prefix == "" && name == helmsOwn {
			continue
		}
		v := Value{Path: prefix + name, Default: get(of, "default")}
		if d := get(of, "description"); d != nil {
			v.Description = d.Value
		}
		if enum := get(of, "enum"); enum != nil {
			for _, e := range enum.Content {
				v.Enum = append(v.Enum, e.Value)
			}
		}
		if !strings.HasSuffix(v.Description, ".") {
			problem("%s has no description that ends with a full stop", v.Path)
		}
		switch has := get(of, "properties") != nil; {
		case has && v.Default == nil:
			v.Properties = properties(of, v.Path+".", problems)
		case has || v.Default == nil:
			problem("%s must have either properties or a default", v.Path)
		}
		values = append(values, v)
	}
	return values
}

// get returns the value of a mapping's key, or nil.
func get(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

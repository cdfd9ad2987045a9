package chart

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// width is the maximum width of a comment.
const width = 100

// ValuesYAML returns the values.yaml of the chart: each value with its default, below its description in the schema.
func ValuesYAML(values []Value) (string, error) {
	var b strings.Builder
	b.WriteString("# Generated from values.schema.json by `make manifests`. Do not edit.\n")
	for _, v := range values {
		b.WriteString("\n")
		if err := writeValue(&b, v, ""); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

func writeValue(b *strings.Builder, v Value, indent string) error {
	text := v.Description
	if len(v.Enum) > 0 {
		text += " One of " + strings.Join(v.Enum, ", ") + "."
	}
	for _, line := range wrap(text, width-len(indent)) {
		fmt.Fprintf(b, "%s# %s\n", indent, line)
	}
	if v.Default == nil {
		fmt.Fprintf(b, "%s%s:\n", indent, v.Name())
		for _, p := range v.Properties {
			if err := writeValue(b, p, indent+"  "); err != nil {
				return err
			}
		}
		return nil
	}
	value, err := flow(v.Default)
	if err != nil {
		return fmt.Errorf("default of %s: %w", v.Path, err)
	}
	fmt.Fprintf(b, "%s%s: %s\n", indent, v.Name(), value)
	return nil
}

// flow formats a value on one line.
func flow(n *yaml.Node) (string, error) {
	text, err := yaml.Marshal(style(n))
	return strings.TrimSpace(string(text)), err
}

// style returns a copy of a JSON node that is quoted only where YAML needs it.
func style(n *yaml.Node) *yaml.Node {
	c := *n
	c.Content = nil
	c.Style = yaml.FlowStyle
	if n.Kind == yaml.ScalarNode {
		c.Style = 0
		if n.Value == "" {
			c.Style = yaml.DoubleQuotedStyle
		}
	}
	for _, child := range n.Content {
		c.Content = append(c.Content, style(child))
	}
	return &c
}

// wrap breaks a text into lines of at most width-2 bytes.
func wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > width-2:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

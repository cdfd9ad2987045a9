package chart

import (
	"fmt"
	"strings"
)

// Page returns docs/reference/chart.md.
func Page(values []Value) (string, error) {
	var b strings.Builder
	b.WriteString(`<!-- Generated from charts/secretmanager/values.schema.json by make manifests. Do not edit. -->

# Values of the Helm chart

[install.md](../install.md#with-helm) explains how to install the chart. An unknown value is an error, so a mistyped one
is noticed. Values that contradict each other are reported together, before anything is installed.

Maps in your values are merged with the defaults, as Helm does: a key that you set replaces the default of that key,
and null removes it. Lists replace the default. A value of this page that is null or missing has its default, except
` + "`resources`" + `, so ` + "`helm upgrade --reuse-values`" + ` works with the values of an older release.
`)
	table := false
	row := func(v Value) error {
		if !table {
			b.WriteString("\n| Value | Default | Description |\n|---|---|---|\n")
			table = true
		}
		value, err := flow(v.Default)
		if err != nil {
			return fmt.Errorf("default of %s: %w", v.Path, err)
		}
		text := v.Description
		if len(v.Enum) > 0 {
			text += " One of `" + strings.Join(v.Enum, "`, `") + "`."
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", v.Path, value, strings.ReplaceAll(text, "|", `\|`))
		return nil
	}
	var rows func(v Value) error
	rows = func(v Value) error {
		if v.Default != nil {
			return row(v)
		}
		for _, p := range v.Properties {
			if err := rows(p); err != nil {
				return err
			}
		}
		return nil
	}
	// First the values that contain no others, without a heading.
	for _, v := range values {
		if v.Default != nil {
			if err := row(v); err != nil {
				return "", err
			}
		}
	}
	for _, v := range values {
		if v.Default == nil {
			table = false
			fmt.Fprintf(&b, "\n## %s\n\n%s\n", v.Path, v.Description)
			for _, p := range v.Properties {
				if p.Default == nil {
					fmt.Fprintf(&b, "`%s`: %s\n", p.Path, p.Description)
				}
			}
			if err := rows(v); err != nil {
				return "", err
			}
		}
	}
	return b.String(), nil
}

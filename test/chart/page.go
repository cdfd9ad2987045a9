package chart

import (
	"fmt"
	"strings"
)

// Page is docs/reference/chart.md.
func Page(values []Value) (string, error) {
	var b strings.Builder
	b.WriteString(`<!-- Made of charts/secretmanager/values.schema.json by make manifests; do not edit. -->

# Values of the Helm chart

How to install with it: [install.md](../install.md#with-helm). A value that the chart does not know is an error, so that
a mistyped one shows. Values that do not go together are reported all at once before anything is installed.
`)
	table := false
	row := func(v Value) error {
		if !table {
			b.WriteString("\n| value | default | |\n|---|---|---|\n")
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
	// What stands alone first, under no heading.
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

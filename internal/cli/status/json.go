package status

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/inventory"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// document is what status prints as JSON and YAML. It is stable: docs/reference/status.md.
type document struct {
	Secrets   []*inventory.Secret   `json:"secrets"`
	Keys      []*inventory.KeyTotal `json:"keys"`
	ManualRun *rotator.ManualRun    `json:"manualRun,omitempty"`
}

func newDocument(v *view) document {
	d := document{Secrets: append([]*inventory.Secret{}, v.rows...), Keys: v.totals} // no Secret is [] and not null
	if v.summary != nil {
		d.ManualRun = v.summary.Manual
	}
	return d
}

// printJSON writes each Secret on a line, as -w does, and each key. Indented, ten thousand Secrets
// would take 50% longer.
func (o *Options) printJSON(v *view) error {
	d := newDocument(v)
	var b bytes.Buffer
	b.WriteString("{\n  \"secrets\": ")
	if err := writeLines(&b, d.Secrets); err != nil {
		return err
	}
	b.WriteString(",\n  \"keys\": ")
	if err := writeLines(&b, d.Keys); err != nil {
		return err
	}
	if d.ManualRun != nil {
		text, err := json.Marshal(d.ManualRun)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, ",\n  \"manualRun\": %s", display.JSON(text))
	}
	b.WriteString("\n}\n")
	_, err := b.WriteTo(o.Out)
	return err
}

// writeLines writes a list with each item on a line.
func writeLines[T any](b *bytes.Buffer, items []T) error {
	if len(items) == 0 {
		b.WriteString("[]")
		return nil
	}
	for i, item := range items {
		text, err := json.Marshal(item)
		if err != nil {
			return err
		}
		before := "["
		if i > 0 {
			before = ","
		}
		fmt.Fprintf(b, "%s\n    %s", before, display.JSON(text))
	}
	b.WriteString("\n  ]")
	return nil
}

package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/secretmanager-io/secretmanager/internal/display"
)

// statusDocument is what status prints as JSON and YAML. Its shape is a promise, as
// that of statusRow and keyTotal is: docs/reference/status.md.
type statusDocument struct {
	Secrets []*statusRow `json:"secrets"`
	Keys    []*keyTotal  `json:"keys"`
}

func newStatusDocument(rows []*statusRow, keys []*keyTotal) statusDocument {
	return statusDocument{append([]*statusRow{}, rows...), keys} // none is [] and not null
}

// printJSON writes the document with a Secret a line, as -w does, and a key a line.
// Indented as a whole, ten thousand Secrets would take half as long again.
func (o *status) printJSON(rows []*statusRow, keys []*keyTotal) error {
	d := newStatusDocument(rows, keys)
	var b bytes.Buffer
	b.WriteString("{\n  \"secrets\": ")
	if err := writeLines(&b, d.Secrets); err != nil {
		return err
	}
	b.WriteString(",\n  \"keys\": ")
	if err := writeLines(&b, d.Keys); err != nil {
		return err
	}
	b.WriteString("\n}\n")
	_, err := b.WriteTo(o.Out)
	return err
}

// writeLines writes a list with an item a line.
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

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/display"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// checkOutput reports whether -o is one of the formats.
func checkOutput(format string, formats ...string) error {
	if format == "" {
		return nil
	}
	for _, f := range formats {
		if f == format {
			return nil
		}
	}
	return usagef("-o %q is none of %s", format, strings.Join(formats, ", "))
}

// printSecret writes a Secret as -o says: yaml, json or name.
func (p *program) printSecret(secret *corev1.Secret, format string) error {
	var printer printers.ResourcePrinter
	switch format {
	case "yaml":
		printer = &printers.YAMLPrinter{}
	case "json":
		printer = &printers.JSONPrinter{}
	case "name":
		printer = &printers.NamePrinter{ShortOutput: true}
	default:
		return fmt.Errorf("no printer for %q", format)
	}
	// Bookkeeping of the API server that nobody reads, as kubectl leaves it out.
	printer = &printers.OmitManagedFieldsPrinter{Delegate: printer}
	return printers.NewTypeSetter(scheme.Scheme).ToPrinter(printer).PrintObj(secret, p.Out)
}

// printDocument writes a document of ours as json or yaml.
func (p *program) printDocument(document any, format string) error {
	if format != "yaml" {
		return writeJSON(p.Out, document)
	}
	text, err := json.Marshal(document)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var plain any
	if err := decoder.Decode(&plain); err != nil {
		return err
	}
	// YAML shows a text of several lines as such.
	if text, err = yaml.Marshal(display.Strings(plain)); err != nil {
		return err
	}
	_, err = p.Out.Write(text)
	return err
}

// writeJSON writes a document of ours for people and programs.
func writeJSON(w io.Writer, document any) error {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(document); err != nil {
		return err
	}
	_, err := w.Write(display.JSON(b.Bytes()))
	return err
}

// plural is "1 entry", "2 entries".
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

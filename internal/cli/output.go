package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	yamlv3 "go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/internal/display"
)

// PrintSecret writes a Secret as yaml, json or name.
func (p *Factory) PrintSecret(secret *corev1.Secret, format string) error {
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
	text, err := printObject(printer, secret)
	switch {
	case format == "json":
		text = display.JSON(text)
	case format == "yaml" && (err != nil || !isHarmlessYAML(text)): // the printer does not support every character
		if text, err = printObject(&printers.JSONPrinter{}, secret); err == nil {
			text, err = quotedYAML(text)
		}
	}
	if err == nil {
		_, err = p.Out.Write(text)
	}
	return err
}

func printObject(printer printers.ResourcePrinter, secret *corev1.Secret) ([]byte, error) {
	printer = &printers.OmitManagedFieldsPrinter{Delegate: printer}
	var b bytes.Buffer
	err := printers.NewTypeSetter(scheme.Scheme).ToPrinter(printer).PrintObj(secret, &b)
	return b.Bytes(), err
}

// isHarmlessYAML reports whether no untrusted text begins a line, or controls a terminal or a CI
// system. Blocks after a | would begin lines.
func isHarmlessYAML(text []byte) bool {
	return display.Lines(string(text)) == string(text) && !bytes.Contains(text, []byte(": |"))
}

// quotedYAML converts JSON to YAML with each string in double quotes.
func quotedYAML(text []byte) ([]byte, error) {
	var document yamlv3.Node
	if err := yamlv3.Unmarshal(display.JSON(text), &document); err != nil { // JSON is YAML
		return nil, err
	}
	var block func(*yamlv3.Node)
	block = func(n *yamlv3.Node) {
		if n.Kind != yamlv3.ScalarNode {
			n.Style = 0
		}
		for _, child := range n.Content {
			block(child)
		}
	}
	block(&document)
	var b bytes.Buffer
	encoder := yamlv3.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(&document); err != nil {
		return nil, err
	}
	return display.JSON(b.Bytes()), nil
}

// PrintDocument writes a document as json or yaml.
func (p *Factory) PrintDocument(document any, format string) error {
	if format != "yaml" {
		return WriteJSON(p.Out, document)
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
	// YAML would write a text of several lines as lines.
	if text, err = yaml.Marshal(display.Strings(plain)); err != nil {
		return err
	}
	_, err = p.Out.Write(text)
	return err
}

// WriteJSON writes a document as indented JSON.
func WriteJSON(w io.Writer, document any) error {
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

// Plural returns "1 entry", "2 entries".
func Plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/kubernetes/scheme"
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

// plural is "1 entry", "2 entries".
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// isTerminal is whether a person reads, or writes, there.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
)

// TestRunbookCommands checks that the commands of the runbook parse.
func TestRunbookCommands(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "runbook.md"))
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]bool{}
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			calls[strings.TrimSpace(line)] = true
		}
	}
	for _, inline := range regexp.MustCompile("`(secretmanager [^`]+)`").FindAllStringSubmatch(string(text), -1) {
		calls[inline[1]] = true
	}
	n := 0
	for call := range calls {
		words := strings.Fields(call) // none has quotes
		if words[0] != "secretmanager" {
			continue
		}
		n++
		p := cli.NewFactory(cli.Environment{ProgramName: "secretmanager", Getenv: os.Getenv,
			IOStreams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: io.Discard, ErrOut: io.Discard}})
		root := root.NewCommand(p)
		for _, verb := range root.Commands() {
			verb.RunE = func(*cobra.Command, []string) error { return nil }
		}
		root.SetArgs(words[1:])
		if c, err := root.ExecuteC(); err != nil || c == root {
			t.Errorf("%s: %v", call, err)
		}
	}
	if n < 8 {
		t.Errorf("only %d calls of ours were found", n)
	}
}

package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

//go:generate go test -run TestReference -update .

var update = flag.Bool("update", false, "write docs/reference/flags-rotator.md instead of comparing with it")

// TestReference verifies that docs/reference/flags-rotator.md has the output of --help, of a run and of export.
func TestReference(t *testing.T) {
	const page = "../../docs/reference/flags-rotator.md"
	var help bytes.Buffer
	if _, err := parse([]string{"--help"}, func(string) string { return "" }, &help); !errors.Is(err, pflag.ErrHelp) {
		t.Fatal(err)
	}
	var exportHelp bytes.Buffer
	if _, err := parseExport([]string{"--help"}, &exportHelp); !errors.Is(err, pflag.ErrHelp) {
		t.Fatal(err)
	}
	want := `<!-- Made by go generate ./cmd/secretmanager-rotator; do not edit. -->

# Flags of the rotator

The output of ` + "`secretmanager-rotator --help`" + `. A flag overrides the environment variable that it names.
[manifests/rotator](../../manifests/rotator/cronjob.yaml) has the flags of the manifest. See
[rotation.md](../rotation.md) for the phases of a run and its exit codes.

` + "```text\n" + help.String() + "```\n" + `
The output of ` + "`secretmanager-rotator export --help`" + `. [metrics.md](metrics.md) has the metrics that it serves.

` + "```text\n" + exportHelp.String() + "```\n"
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("%s is not current: go generate ./cmd/secretmanager-rotator (-want +got):\n%s", page, diff)
	}
}

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

var update = flag.Bool("update", false, "write docs/reference/flags-provider.md instead of comparing with it")

// TestReference verifies that docs/reference/flags-provider.md matches --help.
func TestReference(t *testing.T) {
	const page = "../../docs/reference/flags-provider.md"
	var help bytes.Buffer
	if _, err := parse([]string{"--help"}, getenv(nil), &help); !errors.Is(err, pflag.ErrHelp) {
		t.Fatal(err)
	}
	want := `<!-- Made by go generate ./cmd/secretmanager-provider; do not edit. -->

# Flags of the provider

This is the output of ` + "`secretmanager-provider --help`" + `. A flag overrides the environment variable in its
description. The manifests set the flags in [manifests/provider](../../manifests/provider/daemonset.yaml).
[install.md](../install.md#4-monitor) describes the endpoints of the provider.

` + "```text\n" + help.String() + "```\n"
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
		t.Errorf("%s is not current: go generate ./cmd/secretmanager-provider (-want +got):\n%s", page, diff)
	}
}

package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
	"github.com/secretmanager-io/secretmanager/internal/cli/status"
	"github.com/secretmanager-io/secretmanager/internal/inventory"
	"github.com/secretmanager-io/secretmanager/rotator"
)

//go:generate go test -run TestReference -update .

var update = flag.Bool("update", false, "write docs/reference/cli instead of comparing with it")

// TestReference checks that docs/reference/cli has the help of the commands.
func TestReference(t *testing.T) {
	p := cli.NewFactory(cli.Environment{ProgramName: "secretmanager"})
	root := root.NewCommand(p)
	want := map[string]string{}
	document(root, want)
	dir := filepath.Join("..", "..", "docs", "reference", "cli")
	if *update {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range want {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := map[string]string{}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got[f.Name()] = string(text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/reference/cli is not current: go generate ./cmd/secretmanager (-want +got):\n%s", diff)
	}
}

// pageOf returns the name of the page of a command.
func pageOf(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "_") + ".md" }

// document writes a page for a command and each subcommand.
func document(c *cobra.Command, pages map[string]string) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<!-- Made by go generate ./cmd/secretmanager; do not edit. -->\n\n# %s\n\n%s.\n\n",
		c.CommandPath(), c.Short)
	block := func(language, text string) { fmt.Fprintf(&b, "```%s\n%s\n```\n\n", language, strings.Trim(text, "\n")) }
	if c.Runnable() {
		block("text", c.UseLine())
	}
	block("text", c.Long)
	if c.Example != "" {
		b.WriteString("## Examples\n\n")
		block("sh", regexp.MustCompile(`(?m)^  `).ReplaceAllString(c.Example, ""))
	}
	c.InitDefaultHelpFlag()
	if own := c.NonInheritedFlags(); own.HasAvailableFlags() {
		b.WriteString("## Flags\n\n")
		block("text", own.FlagUsages())
	}
	if inherited := c.InheritedFlags(); inherited.HasAvailableFlags() {
		b.WriteString("## Flags of all commands\n\n")
		block("text", inherited.FlagUsages())
	}
	if c.HasParent() {
		fmt.Fprintf(&b, "All commands: [%s](%s)\n", c.Root().Name(), pageOf(c.Root()))
	} else {
		b.WriteString("## Commands\n\n")
	}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			fmt.Fprintf(&b, "- [%s](%s): %s\n", sub.Name(), pageOf(sub), sub.Short)
			document(sub, pages)
		}
	}
	pages[pageOf(c)] = b.String()
}

// TestStatusReference checks that docs/reference/status.md has exactly the fields of the JSON, in order.
func TestStatusReference(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "status.md"))
	if err != nil {
		t.Fatal(err)
	}
	for heading, shape := range map[string]any{
		"A Secret": inventory.Secret{}, "An entry": inventory.Entry{}, "A key": inventory.KeyTotal{},
		"The last run": inventory.LastRun{}, "A manual run": rotator.ManualRun{},
		"What would break": status.Simulation{}, "A key that would be retired": status.SimulatedKey{},
		"A text that was found": status.Text{}, "A Secret that could not be searched": status.NotSearched{},
	} {
		_, section, found := strings.Cut(string(text), "\n## "+heading+"\n")
		if !found {
			t.Errorf("no section %q", heading)
			continue
		}
		section, _, _ = strings.Cut(section, "\n## ")
		var got, want []string
		for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(section, -1) {
			got = append(got, m[1])
		}
		for i := range reflect.TypeOf(shape).NumField() {
			field := reflect.TypeOf(shape).Field(i)
			if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); field.IsExported() {
				want = append(want, name)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: fields, -want +got:\n%s", heading, diff)
		}
	}
}

package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
)

// grammar has the flags of the table in CONTRIBUTING.md by name: their letter, and the values of some.
type grammar struct {
	letter string
	values []string
}

func readGrammar(t *testing.T) map[string]grammar {
	t.Helper()
	text, err := os.ReadFile("../../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "#### The grammar of the verbs")
	if !found {
		t.Fatal("CONTRIBUTING.md has no grammar of the verbs")
	}
	table, _, _ = strings.Cut(table, "### A flag")
	flags := map[string]grammar{}
	row := regexp.MustCompile("(?m)^\\| (?:`-([a-zA-Z])`, )?`--([a-z-]+)` \\| (.*) \\|$")
	word := regexp.MustCompile("`([a-z]+)`")
	for _, m := range row.FindAllStringSubmatch(table, -1) {
		g := grammar{letter: m[1]}
		if m[2] == "output" || m[2] == "dry-run" {
			for _, w := range word.FindAllStringSubmatch(m[3], -1) {
				g.values = append(g.values, w[1])
			}
		}
		flags[m[2]] = g
	}
	if len(flags) < 9 {
		t.Fatalf("the table has only the flags %v", flags)
	}
	return flags
}

// TestGrammar checks every verb against the table in CONTRIBUTING.md: a flag of the table has its letter, its values
// and its type, and no other flag has the letter.
func TestGrammar(t *testing.T) {
	flags := readGrammar(t)
	letters := map[string]string{}
	for name, g := range flags {
		letters[g.letter] = name
	}
	command := root.NewCommand(cli.NewFactory(cli.Environment{ProgramName: "secretmanager"}))
	all := func(c *cobra.Command) *pflag.FlagSet {
		set := pflag.NewFlagSet(c.Name(), pflag.ContinueOnError)
		set.AddFlagSet(command.PersistentFlags())
		set.AddFlagSet(c.Flags())
		return set
	}
	checked := 0
	for _, c := range command.Commands() {
		has := map[string]bool{}
		all(c).VisitAll(func(f *pflag.Flag) {
			g, known := flags[f.Name]
			switch {
			case known && f.Shorthand != g.letter:
				t.Errorf("%s: the letter of --%s is %q, want %q", c.Name(), f.Name, f.Shorthand, g.letter)
			case !known && f.Shorthand != "" && letters[f.Shorthand] != "":
				t.Errorf("%s: -%s is --%s, and --%s in other verbs", c.Name(), f.Shorthand, f.Name, letters[f.Shorthand])
			}
			has[f.Name] = true
			if !known {
				return
			}
			checked++
			checkType(t, c, f)
			if g.values != nil {
				checkValues(t, c, f.Name, g.values)
			}
		})
		if has["all-namespaces"] != (has["selector"] && c.Name() != "lint") {
			t.Errorf("%s: it has -A without -l, or -l without -A", c.Name())
		}
		if has["recursive"] && !has["filename"] && !strings.Contains(c.Use, "FILE...") {
			t.Errorf("%s: it has -R, and neither -f nor FILE...", c.Name())
		}
	}
	if checked < 20 {
		t.Errorf("only %d flags are of the grammar", checked)
	}
}

// checkType checks the type of a flag, and what it is without a value.
func checkType(t *testing.T, c *cobra.Command, f *pflag.Flag) {
	t.Helper()
	types := map[string][]string{"all-namespaces": {"bool"}, "recursive": {"bool"}, "watch": {"bool"}, "verbose": {"bool"},
		"filename": {"stringArray", "string"}}[f.Name]
	if types == nil {
		types = []string{"string"}
	}
	if !slices.Contains(types, f.Value.Type()) {
		t.Errorf("%s: --%s is a %s, want %v", c.Name(), f.Name, f.Value.Type(), types)
	}
	if f.Name == "dry-run" && (f.NoOptDefVal != "client" || f.DefValue != "none") {
		t.Errorf("%s: --dry-run is %q by default, and %q without a value", c.Name(), f.DefValue, f.NoOptDefVal)
	}
}

// checkValues checks that the values that a flag completes are of the grammar.
func checkValues(t *testing.T, c *cobra.Command, name string, allowed []string) {
	t.Helper()
	complete, found := c.GetFlagCompletionFunc(name)
	if !found {
		t.Errorf("%s: --%s does not complete its values", c.Name(), name)
		return
	}
	values, _ := complete(c, nil, "")
	if len(values) == 0 {
		t.Errorf("%s: --%s has no values", c.Name(), name)
	}
	for _, v := range values {
		if !slices.Contains(allowed, v) {
			t.Errorf("%s: --%s %s is not in the table", c.Name(), name, v)
		}
	}
}

package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
	"github.com/secretmanager-io/secretmanager/test/pages"
	"github.com/secretmanager-io/secretmanager/test/pages/shell"
)

// The examples in the help of every verb must parse. The scripts run most of them.
func TestExamplesParse(t *testing.T) {
	p := cli.NewFactory(cli.Environment{ProgramName: "secretmanager"})
	for _, c := range root.NewCommand(p).Commands() {
		if c.Example == "" {
			t.Errorf("%s has no example", c.Name())
		}
		commands, err := shell.Parse(strings.ReplaceAll(c.Example, "\n  ", "\n"))
		if err != nil {
			t.Errorf("%s: %v", c.Name(), err)
		}
		own := 0
		for _, command := range commands {
			args, ours := ourArgs(command.Args)
			if !ours {
				continue
			}
			verb, err := parseCommand(args)
			if err != nil {
				t.Errorf("%s: %v", command, err)
			} else if verb.Name() == c.Name() {
				own++
			} else {
				t.Errorf("an example of %s is of %s", c.Name(), verb.Name())
			}
		}
		if own == 0 {
			t.Errorf("no example of %s calls it", c.Name())
		}
	}
}

// Command lines in pages must parse, too: in shell blocks and in sentences, where required arguments
// may be left out.
func TestPagesParse(t *testing.T) {
	files, err := pages.Files("../..")
	if err != nil {
		t.Fatal(err)
	}
	inline := regexp.MustCompile("`((?:kubectl )?secretmanager [^`]+)`")
	blocks, mentioned := 0, 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range pages.Blocks(string(text)) {
			if b.Kind != "sh" && b.Kind != "bash" {
				continue
			}
			commands, err := shell.Parse(b.Text)
			if err != nil {
				t.Errorf("%s, line %d: %v", file, b.Line, err)
			}
			for _, command := range commands {
				args, ours := ourArgs(command.Args)
				if !ours {
					continue
				}
				blocks++
				verb, err := parseCommand(args)
				if err == nil && verb.HasParent() { // the root's own are --help and --version
					err = verb.ValidateArgs(verb.Flags().Args())
				}
				if err != nil {
					t.Errorf("%s:%d: %s: %v", file, b.Line+command.Line-1, command, err)
				}
			}
		}
		for _, m := range inline.FindAllStringSubmatch(pages.Prose(string(text)), -1) {
			commands, err := shell.Parse(strings.NewReplacer("…", "", "[", "", "]", "", "...", "").Replace(m[1]))
			if err != nil || len(commands) == 0 {
				t.Errorf("%s: %s: %v", file, m[1], err)
				continue
			}
			args, _ := ourArgs(commands[0].Args)
			mentioned++
			// A flag in a sentence may have no value.
			if _, err := parseCommand(args); err != nil && !strings.Contains(err.Error(), "flag needs an argument") {
				t.Errorf("%s: %s: %v", file, m[1], err)
			}
		}
	}
	if blocks < 30 || mentioned < 15 {
		t.Errorf("only %d commands in blocks and %d in sentences were found", blocks, mentioned)
	}
}

// ourArgs returns the arguments if the command is secretmanager.
func ourArgs(args []string) (rest []string, ours bool) {
	if len(args) > 1 && args[0] == "kubectl" && args[1] == "secretmanager" {
		args = args[1:]
	}
	if args[0] != "secretmanager" || slices.Contains(args, "__complete") {
		return nil, false
	}
	return args[1:], true
}

// parseCommand finds the verb of a command line and parses its flags.
func parseCommand(args []string) (*cobra.Command, error) {
	p := cli.NewFactory(cli.Environment{ProgramName: "secretmanager"})
	root := root.NewCommand(p)
	root.InitDefaultVersionFlag() // as Execute does
	root.InitDefaultHelpCmd()
	verb, rest, err := root.Find(args)
	if err != nil {
		return nil, err
	}
	if verb == root && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		return nil, fmt.Errorf("unknown verb %s", rest[0])
	}
	if err := verb.ParseFlags(rest); err != nil {
		return nil, err
	}
	if verb == root && root.Flags().NArg() > 0 {
		return nil, errors.New("no verb")
	}
	return verb, nil
}

// TestParseCommand checks command lines that must fail.
func TestParseCommand(t *testing.T) {
	for line, want := range map[string]string{
		"secretmanager encrypt x --from-fil y": "unknown flag: --from-fil", "secretmanager encrytp x": "unknown command",
		"secretmanager status --namespce x":             "unknown flag",
		"kubectl secretmanager rotate --retire-after x": "invalid argument",
		"secretmanager doctor POD -n demo":              "", "kubectl secretmanager status -A": "",
	} {
		commands, err := shell.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		args, ours := ourArgs(commands[0].Args)
		if !ours {
			t.Errorf("%s is not ours", line)
		}
		_, err = parseCommand(args)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

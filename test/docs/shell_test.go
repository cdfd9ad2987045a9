package docs

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/secretmanager-io/secretmanager/test/pages"
	"github.com/secretmanager-io/secretmanager/test/pages/shell"
	"github.com/secretmanager-io/secretmanager/test/programs"
)

// checks are the checks of commands in the pages, by program. Tests of cmd/secretmanager
// check the command lines of secretmanager.
var checks = map[string]func(t *testing.T, args []string) error{
	"kubectl": kubectl,
	"vault":   vault,
	"make":    makeTarget,
	"go":      goCommand,
}

// TestCommandsInThePages checks that bash can parse every shell block, and that the
// programs have the verbs, flags and targets. It runs no command; other tests run the
// pages that are executed.
func TestCommandsInThePages(t *testing.T) {
	kubectl, err := programs.Path(t.Context(), "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	group := errgroup.Group{}
	group.SetLimit(4)
	seen := map[string]int{}
	for _, page := range files(t, ".md") {
		name, err := filepath.Rel(root(t), page)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range pages.Blocks(read(t, page)) {
			if b.Kind != "sh" && b.Kind != "bash" {
				continue
			}
			commands, err := shell.Parse(b.Text)
			if err != nil {
				t.Errorf("%s, block at line %d: %v", name, b.Line, err)
			}
			for _, c := range commands {
				check := checks[c.Args[0]]
				if check == nil {
					continue
				}
				seen[c.Args[0]]++
				group.Go(func() error {
					if err := check(t, append([]string{kubectl}, c.Args[1:]...)); err != nil {
						t.Errorf("%s:%d: %s: %v", name, b.Line+c.Line-1, c, err)
					}
					return nil
				})
			}
		}
	}
	group.Wait()
	for program := range checks {
		if program != "go" && seen[program] == 0 {
			t.Errorf("no page calls %s", program)
		}
	}
}

// kubectl runs the command line with --help: kubectl parses all flags before it prints
// the help.
func kubectl(t *testing.T, args []string) error {
	if len(args) > 1 && (args[1] == "secretmanager" || args[1] == "krew") {
		return nil // plugins
	}
	end := slices.Index(args, "--") // the command line of another program follows
	if end < 0 {
		end = len(args)
	}
	asked := slices.Insert(slices.Clone(args[1:]), end-1, "--help")
	// Without a kubeconfig, kubectl connects to no server.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), args[0], asked...)
	cmd.Env = []string{"HOME=/nonexistent", "PATH=/nonexistent"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// vaultCommands match valid vault commands. The tests cannot build the vault CLI.
var vaultCommands = []*regexp.Regexp{
	regexp.MustCompile(`^(read|list|delete)( -[\w-]+(=\S+)?)* [\w$./{}-]+$`),
	regexp.MustCompile(`^write( -[\w-]+(=\S+)?)* [\w$./{}-]+( ([\w]+=.*|@\S+))+$`),
	regexp.MustCompile(`^write( -f| -force) [\w$./{}-]+$`),
	regexp.MustCompile(`^write [\w$./{}-]+ -$`),
	regexp.MustCompile(`^kv (get|put|list|delete)( -[\w-]+(=\S+)?)* [\w$./{}-]+( \w+=\S+)*$`),
	regexp.MustCompile(`^policy (read [\w-]+|list|write [\w$./-]+ (-|\S+\.hcl))$`),
	regexp.MustCompile(`^(auth|secrets) (list|(enable|disable)( -[\w-]+=\S+)* [\w-]+)( -\w+)?$`),
	regexp.MustCompile(
		`^(status|version|login|operator (init|seal|unseal|step-down|key-status|raft list-peers|` +
			`raft snapshot (save|restore( -force)?) \S+))( -[\w-]+(=\S+)?)*$`),
	regexp.MustCompile(`^(auth|secrets) tune( -[\w-]+=\S+)+ [\w/-]+$`),
	regexp.MustCompile(`^namespace (list|(create|delete|lookup) [\w/-]+)$`),
	regexp.MustCompile(`^token (create|lookup|revoke)( -[\w-]+(=\S+)?)*$`),
	regexp.MustCompile(`^audit (list|enable \w+( \w+=\S+)*)$`),
}

func vault(_ *testing.T, args []string) error {
	line := strings.Join(args[1:], " ")
	for _, valid := range vaultCommands {
		if valid.MatchString(line) {
			return nil
		}
	}
	return errors.New("not a vault command that this test knows")
}

// makeTarget checks that the Makefile has the targets.
func makeTarget(t *testing.T, args []string) error {
	makefile := read(t, filepath.Join(root(t), "Makefile"))
	for _, target := range args[1:] {
		if strings.Contains(target, "=") || strings.HasPrefix(target, "-") {
			continue
		}
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(target) + `:`).MatchString(makefile) {
			return fmt.Errorf("the Makefile has no target %s", target)
		}
	}
	return nil
}

// goCommand checks that the named packages exist.
func goCommand(t *testing.T, args []string) error {
	for _, arg := range args[1:] {
		if path, ok := strings.CutPrefix(arg, "./"); ok && !strings.Contains(path, "...") {
			if found, err := filepath.Glob(filepath.Join(root(t), path, "*.go")); err != nil || len(found) == 0 {
				return fmt.Errorf("%s has no Go file", arg)
			}
		}
	}
	return nil
}

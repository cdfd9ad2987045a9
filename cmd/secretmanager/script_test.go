package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/testenv"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

// TestMain makes this binary stand for the programs that the scripts run: under
// their names it is them, and the vault command that carries out what
// vault-setup prints.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "secretmanager", "kubectl-secretmanager":
		main()
	case "vault":
		vaultMain()
	}
	testenv.Main(m)
}

// TestScripts runs testdata/script against a real Vault and a real API server.
// Every script has a namespace of its own ($NS) there and a derived transit key
// ($KEY). Its commands, besides those of testscript, are in commands_test.go. The
// condition openbao is for the few words that differ there.
func TestScripts(t *testing.T) {
	w := newWorld(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, name := range []string{"secretmanager", "kubectl-secretmanager", "vault"} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	buildProvider(t, bin)
	proxy := countingProxy(t)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("HTTP_PROXY", proxy)
			e.Setenv("HTTPS_PROXY", proxy)
			return w.setup(e)
		},
		Cmds: w.commands(),
		Condition: func(cond string) (bool, error) {
			if cond != "openbao" {
				return false, fmt.Errorf("there is no condition %q", cond)
			}
			return strings.HasPrefix(t.Name(), "TestOpenBao"), nil
		},
	})
}

// countingProxy is where requests of the scripts to any other host than this one
// would go: there must be none, but for the one that airgapped.txtar makes to show
// that it would be seen.
func countingProxy(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Host != "cluster.invalid:443" {
			t.Errorf("a request to %s", r.Host)
		}
		http.Error(rw, "seen", http.StatusForbidden)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// The names of the commands in the help texts are how they were called.
func TestNameOf(t *testing.T) {
	for arg0, want := range map[string]string{
		"secretmanager": "secretmanager", "/usr/bin/secretmanager": "secretmanager",
		"kubectl-secretmanager": "kubectl secretmanager", "/opt/krew/bin/kubectl-secretmanager": "kubectl secretmanager",
	} {
		if got := nameOf(arg0); got != want {
			t.Errorf("%s is %q", arg0, got)
		}
	}
}

// What the help of every verb shows as an example has to be a command line that
// the verb takes: it is parsed here, and the scripts run the most of them.
func TestExamplesParse(t *testing.T) {
	p := &program{environment: environment{name: "secretmanager"}, kube: kubeFlags()}
	root := p.command()
	for _, c := range root.Commands() {
		if c.Example == "" {
			t.Errorf("%s has no example", c.Name())
		}
		for _, verb := range parseCommands(t, root, c.Example) {
			if verb != c {
				t.Errorf("an example of %s is of %s", c.Name(), verb.Name())
			}
		}
	}
}

// So has what the pages show.
func TestPagesParse(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	shell := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	n := 0
	for _, page := range append(pages, "../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range shell.FindAllStringSubmatch(string(text), -1) {
			p := &program{environment: environment{name: "secretmanager"}, kube: kubeFlags()}
			n += len(parseCommands(t, p.command(), block[1]))
		}
	}
	if n < 10 {
		t.Errorf("only %d commands were found", n)
	}
}

// parseCommands parses the lines of a text that call us, and returns their verbs.
func parseCommands(t *testing.T, root *cobra.Command, text string) (verbs []*cobra.Command) {
	t.Helper()
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "\\\n", " "), "\n") {
		line, _, _ = strings.Cut(line, " #")
		before, command, ours := strings.Cut(line, "secretmanager ")
		if !ours || strings.HasPrefix(strings.TrimSpace(line), "#") || strings.TrimSpace(before) != "" && !strings.HasSuffix(before, "| ") {
			continue
		}
		command, _, _ = strings.Cut(command, " > ")
		root.InitDefaultVersionFlag() // as Execute does
		verb, rest, err := root.Find(strings.Fields(command))
		if err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		if i := slices.Index(rest, "-"); i >= 0 {
			rest = slices.Delete(slices.Clone(rest), i, i+1)
		}
		if err := verb.ParseFlags(rest); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		verbs = append(verbs, verb)
	}
	return verbs
}

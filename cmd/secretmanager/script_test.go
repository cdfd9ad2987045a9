package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/testenv"

	"github.com/rogpeppe/go-internal/testscript"
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
// ($KEY). Its commands, besides those of testscript, are in commands_test.go.
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
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			return w.setup(e)
		},
		Cmds: w.commands(),
	})
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

package main

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/secretmanager-io/secretmanager/test/cliscript"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// TestScripts runs testdata/script.
func TestScripts(t *testing.T) { runScripts(t, cliscript.New(t), "script") }

// TestAuditHeaderScripts runs testdata/audit with a separate Vault, as audit headers are settings
// of the whole Vault.
func TestAuditHeaderScripts(t *testing.T) {
	s := cliscript.New(t)
	s.Vault = testenv.NewVault(t)
	runScripts(t, s, "audit")
}

func runScripts(t *testing.T, s *cliscript.Scripts, dir string) {
	s.Run(t, filepath.Join("testdata", dir), map[string]cliscript.Command{
		"examples": func(ts *testscript.TestScript, neg bool, args []string) { examples(s, ts, neg, args) },
	})
}

// Help texts use the name by which the program was called.
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

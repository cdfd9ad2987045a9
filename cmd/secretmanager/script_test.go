package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/secretmanager-io/secretmanager/test/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// TestScripts runs testdata/script against a real Vault and a real API server.
// Every script has its own namespace ($NS) and derived transit key ($KEY). commands_test.go has the
// commands in addition to those of testscript. The condition openbao is for messages that differ.
func TestScripts(t *testing.T) { newScripts(t).runScripts(t, "script") }

// TestAuditHeaderScripts runs testdata/audit with a separate Vault, as audit headers are settings
// of the whole Vault.
func TestAuditHeaderScripts(t *testing.T) {
	w := newScripts(t)
	w.Vault = testenv.NewVault(t)
	w.runScripts(t, "audit")
}

func (w *scripts) runScripts(t *testing.T, dir string) {
	bin := t.TempDir()
	linkPrograms(t, bin)
	proxy := countingProxy(t)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", dir),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("HTTP_PROXY", proxy)
			e.Setenv("SECRETMANAGER_SETTLE", "0s") // no backup of this Vault is ever restored
			e.Setenv("HTTPS_PROXY", proxy)
			return w.setup(e)
		},
		Cmds: w.commands(),
		Condition: func(cond string) (bool, error) {
			if cond != "openbao" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return strings.HasPrefix(t.Name(), "TestOpenBao"), nil
		},
	})
}

// builtPrograms is the directory of the command line and the provider, as they are released, and of the vault command,
// which runs what vault-setup prints. The tests start them some thousand times, and with the race detector they would
// take several times as long. Other tests call the verbs in this process, with it.
var builtPrograms = sync.OnceValues(func() (string, error) {
	dir, err := testenv.TempDir()
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir, ".", "../secretmanager-provider",
		"../../test/vaultcli/cmd/vault")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return dir, nil
})

// program returns the path of the command line.
func program(t *testing.T) string {
	t.Helper()
	dir, err := builtPrograms()
	check(t, err)
	return filepath.Join(dir, "secretmanager")
}

// linkPrograms puts the programs into a directory.
func linkPrograms(t *testing.T, dir string) {
	t.Helper()
	built := filepath.Dir(program(t))
	for name, target := range map[string]string{
		"secretmanager": "secretmanager", "kubectl-secretmanager": "secretmanager", "vault": "vault",
		"secretmanager-provider": "secretmanager-provider",
	} {
		check(t, os.Symlink(filepath.Join(built, target), filepath.Join(dir, name)))
	}
}

// countingProxy counts requests of the scripts to other hosts. The only one is that of
// airgapped.txtar, which checks that they are counted.
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

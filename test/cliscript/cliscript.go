// Package cliscript runs testscript scripts of the command line against a real Vault and a real API server. Every
// script has its own namespace ($NS) and derived transit key ($KEY), and the rights of an administrator of both.
// Package firstday and the tests of cmd/secretmanager use it.
//
// commands.go and terminal.go have the commands in addition to those of testscript.
package cliscript

import (
	"context"
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
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// A Command is a command of scripts.
type Command = func(ts *testscript.TestScript, neg bool, args []string)

// Scripts has the servers that all scripts share.
type Scripts struct{ *fixture.Fixture }

// New returns Scripts with the shared servers. The package's TestMain must be [testenv.Main].
func New(t *testing.T) *Scripts {
	t.Helper()
	s := &Scripts{fixture.New(t)}
	s.TrustIssuer()
	return s
}

// Run runs the scripts in a directory, as parallel subtests. more are commands in addition to those of this package.
// The condition openbao is for messages that differ.
func (s *Scripts) Run(t *testing.T, dir string, more map[string]Command) {
	bin := t.TempDir()
	LinkPrograms(t, bin)
	proxy := countingProxy(t)
	commands := s.commands()
	for name, command := range more {
		commands[name] = command
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Values[vaultKey{}] = new(*testenv.Vault)
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("HTTP_PROXY", proxy)
			e.Setenv("SECRETMANAGER_SETTLE", "0s") // no backup of this Vault is ever restored
			e.Setenv("HTTPS_PROXY", proxy)
			return s.setup(e)
		},
		Cmds: commands,
		Condition: func(cond string) (bool, error) {
			if cond != "openbao" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return strings.HasPrefix(t.Name(), "TestOpenBao"), nil
		},
	})
}

// createNamespace creates a namespace with the objects of the rotator, and a derived transit key of
// the same name.
func (s *Scripts) createNamespace(ctx context.Context) (string, error) {
	ns := testenv.UniqueName("cli")
	_, err := s.Kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}},
		metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("creating namespace %s: %w", ns, err)
	}
	if err := s.API.CreateRotatorState(ctx, ns); err != nil {
		return "", err
	}
	_, err = s.Vault.Write(ctx, "transit/keys/"+ns, map[string]any{"derived": true})
	return ns, err
}

// setup sets the environment of a script: the root token of Vault, and a kubeconfig of the cluster's
// administrator.
func (s *Scripts) setup(e *testscript.Env) error {
	ns, err := s.createNamespace(s.T.Context())
	if err != nil {
		return err
	}
	home := filepath.Join(e.WorkDir, ".home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"HOME": home, "NS": ns, "KEY": ns, "KUBECONFIG": s.API.Kubeconfig,
		"VAULT_ADDR": s.Vault.Address, "VAULT_TOKEN": s.Vault.RootToken,
		"GORACE": os.Getenv("GORACE"), // see the Makefile
	} {
		e.Setenv(name, value)
	}
	return nil
}

// module is the path of the main module.
const module = "github.com/secretmanager-io/secretmanager"

// builtPrograms is the directory of the command line and the provider, as they are released, and of the vault command,
// which runs what vault-setup prints. The tests start them some thousand times, and with the race detector they would
// take several times as long. Other tests call the verbs in this process, with it.
var builtPrograms = sync.OnceValues(func() (string, error) {
	dir, err := testenv.TempDir()
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir, module+"/cmd/secretmanager",
		module+"/cmd/secretmanager-provider", module+"/test/vaultcli/cmd/vault")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return dir, nil
})

// Program returns the path of the command line, as it is released.
func Program(t *testing.T) string {
	t.Helper()
	dir, err := builtPrograms()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "secretmanager")
}

// LinkPrograms puts the programs into a directory: secretmanager, which is also the plugin of kubectl,
// secretmanager-provider, and the vault command.
func LinkPrograms(t *testing.T, dir string) {
	t.Helper()
	built := filepath.Dir(Program(t))
	for name, target := range map[string]string{
		"secretmanager": "secretmanager", "kubectl-secretmanager": "secretmanager", "vault": "vault",
		"secretmanager-provider": "secretmanager-provider",
	} {
		if err := os.Symlink(filepath.Join(built, target), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
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

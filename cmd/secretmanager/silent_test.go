package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
	"github.com/secretmanager-io/secretmanager/test/async"
	"github.com/secretmanager-io/secretmanager/test/cliscript"
)

const (
	// endsWithin is what a command promises, and slow what a busy machine adds to it.
	endsWithin = 30 * time.Second
	slow       = 10 * time.Second
	// endsAfterSignal is less than any other limit of a command that waits.
	endsAfterSignal = 5 * time.Second
)

// silentLines has command lines for each verb, with what they send requests to. NAME is a namespace and a key, $FILE a
// manifest, and $SOCKET the path of a socket that does not exist.
var silentLines = map[string][]struct{ line, servers string }{
	"vault-setup": {{"--transit-key NAME --service-account app -n NAME --apply", "vault"},
		{"--audit-headers", "vault"}},
	"encrypt": {{"new --transit-key NAME -n NAME --from-literal a=b", "vault kube"},
		{"new --transit-key NAME -n NAME --from-literal a=b --dry-run=client -o yaml", "vault"},
		{"other --merge-into $FILE --transit-key NAME -n NAME --from-literal a=b", "vault"}},
	"edit":   {{"app -n NAME", "vault kube"}, {"-f $FILE", "vault"}},
	"status": {{"-n NAME", "vault kube"}, {"-n NAME --stale", "vault kube"}, {"-n NAME -w", "kube"}},
	"rotate": {{"-n NAME --transit-key NAME --state-namespace NAME", "vault kube"},
		{"-n NAME --transit-key NAME --state-namespace NAME --dry-run", "vault kube"}},
	"rewrap":     {{"$FILE", "vault"}},
	"trim":       {{"NAME --yes NAME", "vault"}},
	"lint":       {{"--vault $FILE", "vault"}},
	"verify":     {{"-n NAME", "vault kube"}, {"-f $FILE", "vault"}},
	"mount":      {{"--class $FILE --socket $SOCKET --service-account-token $FILE --out $OUT -n NAME", ""}},
	"doctor":     {{"", "vault kube"}, {"web-0 -n NAME", "kube"}},
	"completion": {{"bash", ""}},
	"version":    {{"", "kube"}, {"--client", ""}},
	"help":       {{"", ""}},
}

// silentServer accepts connections, and responds to nothing.
type silentServer struct {
	net.Listener
	accepted atomic.Int32
}

func newSilentServer(t *testing.T) *silentServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s := &silentServer{Listener: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			defer c.Close() // until the listener is closed
		}
	}()
	return s
}

// silentEnv is the environment of commands whose servers do not respond.
type silentEnv struct {
	*user
	dir, program string
}

func newSilentEnv(t *testing.T) *silentEnv {
	t.Helper()
	e := &silentEnv{user: newUser(t), dir: t.TempDir(), program: cliscript.Program(t)}
	e.must("", "encrypt", "app", "--transit-key", e.Namespace, "--from-literal", "a=b")
	text := e.must("", "encrypt", "app", "--transit-key", e.Namespace, "--from-literal", "a=b", "--dry-run=client", "-o",
		"yaml")
	check(t, os.WriteFile(e.file(), []byte(text), 0o600))
	return e
}

func (e *silentEnv) file() string { return filepath.Join(e.dir, "secret.yaml") }

// kubeconfig returns a kubeconfig file for a server.
func (e *silentEnv) kubeconfigFor(t *testing.T, address string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	check(t, os.WriteFile(path, fmt.Appendf(nil, `{apiVersion: v1, kind: Config, current-context: here,
clusters: [{name: here, cluster: {server: "http://%s"}}],
contexts: [{name: here, context: {cluster: here}}]}`, address), 0o600))
	return path
}

// command returns a command line of silentLines, with silent servers in place of those named.
func (e *silentEnv) command(t *testing.T, verb *cobra.Command, line, silent string) (*exec.Cmd, *silentServer) {
	t.Helper()
	server := newSilentServer(t)
	words := strings.Fields(strings.TrimPrefix(verb.CommandPath(), "secretmanager") + " " + line)
	for i, word := range words {
		word = strings.ReplaceAll(word, "NAME", e.Namespace)
		word = strings.ReplaceAll(word, "$FILE", e.file())
		words[i] = strings.ReplaceAll(strings.ReplaceAll(word, "$OUT", e.dir), "$SOCKET", filepath.Join(e.dir, "none.sock"))
	}
	vault, kubeconfig := e.Vault.Address, e.API.Kubeconfig
	switch silent {
	case "vault":
		vault = "http://" + server.Addr().String()
	case "kube":
		kubeconfig = e.kubeconfigFor(t, server.Addr().String())
	}
	c := exec.CommandContext(t.Context(), e.program, words...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + e.dir, "KUBECONFIG=" + kubeconfig, "VAULT_ADDR=" + vault,
		"VAULT_TOKEN=" + e.Vault.RootToken, "KUBE_EDITOR=true", "SECRETMANAGER_SETTLE=0s"}
	return c, server
}

// everySilentLine calls test for each command line and each of its servers. It fails for a verb without command lines.
func everySilentLine(t *testing.T, test func(t *testing.T, verb *cobra.Command, line, silent string)) {
	t.Helper()
	top := root.NewCommand(cli.NewFactory(cli.Environment{ProgramName: "secretmanager",
		Getenv: func(string) string { return "" }}))
	top.InitDefaultHelpCmd()
	var running sync.WaitGroup
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		for _, verb := range c.Commands() {
			if verb.HasSubCommands() {
				visit(verb)
				continue
			}
			if len(silentLines[verb.Name()]) == 0 {
				t.Errorf("%s is not among silentLines: does it end if no server responds?", verb.CommandPath())
			}
			for _, l := range silentLines[verb.Name()] {
				for silent := range strings.SplitSeq(cmp.Or(l.servers, "none"), " ") {
					running.Go(func() { // all at once: they wait most of the time
						t.Run(verb.Name()+" "+l.line+" "+silent, func(t *testing.T) { test(t, verb, l.line, silent) })
					})
				}
			}
		}
	}
	visit(top)
	running.Wait()
}

// TestSilentServers runs every verb against a Vault and an API server that accept connections and respond to nothing.
// It ends in time, and says who did not respond.
func TestSilentServers(t *testing.T) {
	e := newSilentEnv(t)
	everySilentLine(t, func(t *testing.T, verb *cobra.Command, line, silent string) {
		c, server := e.command(t, verb, line, silent)
		began := time.Now()
		out, err := c.CombinedOutput()
		if took := time.Since(began); took > endsWithin+slow {
			t.Errorf("it took %s:\n%s", took, out)
		}
		if silent == "none" {
			return
		}
		if server.accepted.Load() == 0 {
			t.Errorf("it sent no request to the silent server: %v\n%s", err, out)
		}
		// These print what they know, and a note.
		if verb.Name() != "status" && verb.Name() != "version" && err == nil {
			t.Errorf("it succeeded:\n%s", out)
		}
		if !bytes.Contains(out, []byte(server.Addr().String())) {
			t.Errorf("it does not name the address %s:\n%s", server.Addr(), out)
		}
		if wrong := map[string]string{"vault": "current-context", "kube": "check VAULT_ADDR"}[silent]; verb.Name() !=
			"doctor" && bytes.Contains(out, []byte(wrong)) {
			t.Errorf("the hint is about the other server:\n%s", out)
		}
	})
}

// TestInterrupt interrupts every verb while it waits for a server.
func TestInterrupt(t *testing.T) {
	e := newSilentEnv(t)
	everySilentLine(t, func(t *testing.T, verb *cobra.Command, line, silent string) {
		if silent == "none" {
			return // it waits for nothing
		}
		c, server := e.command(t, verb, line, silent)
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		check(t, c.Start())
		async.Wait(t, "a request", func() bool { return server.accepted.Load() > 0 })
		check(t, c.Process.Signal(syscall.SIGINT))
		began := time.Now()
		err := c.Wait()
		if took := time.Since(began); took > endsAfterSignal {
			t.Errorf("it took %s:\n%s", took, out.String())
		}
		if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) || failed.ExitCode() != 130 ||
			!strings.Contains(out.String(), "error: interrupted") {
			t.Errorf("%v:\n%s", err, out.String())
		}
	})
}

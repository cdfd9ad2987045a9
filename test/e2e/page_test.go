package e2e

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/test/pages"
	"github.com/secretmanager-io/secretmanager/test/programs"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// TestGettingStarted executes docs/getting-started.md in a clone of the repository: see
// pages.Run. It does not run the console block, which creates the cluster. It does not run
// in parallel, because doctor checks the whole cluster.
func TestGettingStarted(t *testing.T) {
	requireProduct(t)
	text, err := os.ReadFile("../../docs/getting-started.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The page cleans up at its end, unless it fails before.
		shared.Client.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), "demo", metav1.DeleteOptions{})
	})

	dir := clone(t)
	// The environment of `make cluster`, which does the same as TestMain and requireProduct.
	if err := shared.WriteEnvironment(filepath.Join(dir, ".cache", "e2e", "env")); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(t.TempDir(), "environment") // passes variables to the next block
	shells, checked, err := pages.Run(string(text), dir, func(b pages.Block) (string, error) {
		return shell(t, dir, state, b)
	})
	if err != nil {
		t.Fatal(err)
	}
	if shells < 8 || checked < 4 {
		t.Errorf("only %d shell blocks were run, and the output of %d compared", shells, checked)
	}
}

// TestVaultOutside executes docs/vault-outside.md with a Vault that is a process of this machine, and so outside the
// network of the cluster's nodes and pods. The page has the provider's usual name; ours is another one, with the
// address of this Vault.
func TestVaultOutside(t *testing.T) {
	t.Parallel()
	requireProduct(t)
	host, err := shared.HostAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	vault, err := testenv.StartVault(t.Context(), testenv.VaultOptions{
		Listen: net.JoinHostPort(host, "0"), Mounts: []string{"mounts/transit"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vault.Stop)
	p := newProvider(t, "vault-outside", "--vault-addr="+vault.Address, "--vault-insecure-http",
		"--vault-allowed-auth-mounts=jwt")
	p.start(t)
	secretmanager, err := buildSet()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := build("vault", ".", "./test/vaultcli/cmd/vault"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for _, namespace := range []string{"outside", "vault-reviewer"} {
			shared.Client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})
		}
		for _, binding := range []string{"secretmanager-public-keys", "vault-reviewer"} {
			shared.Client.RbacV1().ClusterRoleBindings().Delete(ctx, binding, metav1.DeleteOptions{})
		}
	})
	text, err := os.ReadFile("../../docs/vault-outside.md")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.Replace(string(text), "provider: secretmanager\n", "provider: "+p.name+"\n", 1)
	dir := t.TempDir()
	state := filepath.Join(t.TempDir(), "environment")
	setUp := "export KUBECONFIG='" + shared.Kubeconfig + "' VAULT_ADDR=" + vault.Address +
		" VAULT_TOKEN=" + vault.RootToken + " SECRETMANAGER_VAULT_INSECURE_HTTP=true" +
		" PATH=" + filepath.Dir(secretmanager) + ":$PATH"
	if out, err := shell(t, dir, state, pages.Block{Text: setUp}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	shells, checked, err := pages.Run(page, dir, func(b pages.Block) (string, error) { return shell(t, dir, state, b) })
	if err != nil {
		t.Fatal(err)
	}
	if shells < 6 || checked != 2 {
		t.Errorf("%d shell blocks were run, and the output of %d compared", shells, checked)
	}
}

// clone returns a fresh clone of the repository, with uncommitted changes.
func clone(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "secretmanager")
	cmd := exec.CommandContext(t.Context(), "bash", "-c",
		`cd ../.. && git ls-files -z --cached --others --exclude-standard --deduplicate |
		while IFS= read -r -d '' f; do test -e "$f" && printf '%s\0' "$f"; done |
		tar --null -T - -cf - | (mkdir -p "$1" && tar -C "$1" -xf -)`, "bash", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copying the repository: %v\n%s", err, out)
	}
	return dir
}

// shell runs a block with the variables of the previous one, and stops at the first failure.
func shell(t *testing.T, dir, state string, b pages.Block) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	script := `set -e; test ! -e "$STATE" || . "$STATE"; trap 'export -p > "$STATE"' EXIT` + "\n" + b.Text
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir, cmd.WaitDelay = dir, 10*time.Second
	cmd.Env = append(os.Environ(), "STATE="+state, "PATH="+pathWithKubectl(t),
		"HOME="+dir, "GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"), "NO_COLOR=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	t.Logf("%s%s", b.Text, out.String())
	return out.String(), err
}

// pathWithKubectl returns the PATH, preceded by the directory of the cluster's kubectl.
func pathWithKubectl(t *testing.T) string {
	t.Helper()
	kubectl, err := programs.Path(t.Context(), "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(kubectl) + string(os.PathListSeparator) + os.Getenv("PATH")
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

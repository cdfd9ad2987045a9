package pages_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/test/cliscript"
	"github.com/secretmanager-io/secretmanager/test/pages"
	"github.com/secretmanager-io/secretmanager/test/programs"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// A guide is a page of the documentation whose commands are executed with real programs: bash, kubectl, Helm,
// secretmanager, an API server, and a Vault of its own. Nothing runs pods there. The test creates what the user of the
// page has before. Pages use the same names, so everything in the namespace demo is deleted at the end.
type guide struct {
	*fixture.Fixture
	t     *testing.T
	dir   string // working directory, with the directories of the repository that users need
	bin   string // first directory of the PATH
	state string // file of the variables, which a block passes to the next one
	// words replaces words in capitals, which the user of the page replaces.
	words map[string]string
	// found says that exit code 3, with which our commands report a finding, is no failure.
	found bool
}

// builtJQ is the path of the jq command of the pages.
var builtJQ = sync.OnceValues(func() (string, error) {
	dir, err := testenv.TempDir()
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir, "./cmd/jq")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building jq: %w\n%s", err, out)
	}
	return filepath.Join(dir, "jq"), nil
})

// newGuide starts a Vault, which trusts the API server at auth/kubernetes and has a transit engine, and creates the
// namespace demo.
func newGuide(t *testing.T) *guide {
	t.Helper()
	f := fixture.In(t, testenv.NewVault(t)).With(testenv.SharedAPIServer(t))
	f.TrustAPIServer()
	g := &guide{Fixture: f, t: t, dir: t.TempDir(), bin: t.TempDir(), state: filepath.Join(t.TempDir(), "variables")}
	cliscript.LinkPrograms(t, g.bin)
	jq, err := builtJQ()
	f.Must(err)
	root, err := programs.Root()
	f.Must(err)
	links := map[string]string{filepath.Join(g.bin, "jq"): jq}
	for _, name := range []string{"kubectl", "helm"} {
		links[filepath.Join(g.bin, name)], err = programs.Path(t.Context(), name)
		f.Must(err)
	}
	for _, name := range []string{"charts", "manifests"} {
		links[filepath.Join(g.dir, name)] = filepath.Join(root, name)
	}
	for link, target := range links {
		f.Must(os.Symlink(target, link))
	}
	g.must(fmt.Sprintf("export KUBECONFIG='%s' VAULT_ADDR=%s VAULT_TOKEN=%s SECRETMANAGER_SETTLE=0s", f.API.Kubeconfig,
		f.Vault.Address, f.Vault.RootToken))
	g.must("kubectl get namespace demo > /dev/null 2>&1 || kubectl create namespace demo")
	// Nothing waits, because no kubelet ends pods. The namespaces stay: without their controller, a deleted one would
	// remain and refuse objects.
	g.afterwards(`kubectl -n demo delete pods --all --grace-period=0 --force
		kubectl -n demo delete secrets,serviceaccounts,roles,rolebindings --all --wait=false
		kubectl -n secretmanager-system delete --all --wait=false \
			daemonsets,deployments,cronjobs,jobs,pods,configmaps,leases,serviceaccounts,roles,rolebindings,networkpolicies
		kubectl delete -l app.kubernetes.io/part-of=secretmanager --wait=false \
			clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings`)
	return g
}

// shell runs a command and returns its output.
func (g *guide) shell(text string) (string, error) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := g.command(ctx, text)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	g.t.Logf("%s%s", text, out.String())
	return out.String(), err
}

// must runs a text that is not on the page.
func (g *guide) must(text string) string {
	g.t.Helper()
	out, err := g.shell(text)
	if err != nil {
		g.t.Fatalf("%v\n%s\n%s", err, text, out)
	}
	return out
}

// afterwards runs a text at the end of the test, even if it fails.
func (g *guide) afterwards(text string) {
	g.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(g.t.Context()), 2*time.Minute)
		defer cancel()
		if out, err := g.command(ctx, text).CombinedOutput(); err != nil {
			g.t.Errorf("cleaning up: %v\n%s\n%s", err, text, out)
		}
	})
}

// command returns a shell that runs a text with the variables of the previous one, and stops at the first failure.
func (g *guide) command(ctx context.Context, text string) *exec.Cmd {
	script := `set -eo pipefail; test ! -e "$STATE" || . "$STATE"; trap 'export -p > "$STATE"' EXIT` + "\n" + text
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir, cmd.WaitDelay = g.dir, 10*time.Second
	cmd.Env = []string{"STATE=" + g.state, "PATH=" + g.bin + ":/usr/bin:/bin", "HOME=" + g.dir, "NO_COLOR=1"}
	return cmd
}

// block runs a block of the page.
func (g *guide) block(b pages.Block) (string, error) {
	g.t.Helper()
	text := b.Text
	for word, value := range g.words {
		text = strings.ReplaceAll(text, word, value)
	}
	out, err := g.shell(text)
	if exit := (*exec.ExitError)(nil); g.found && errors.As(err, &exit) && exit.ExitCode() == 3 {
		err = nil
	}
	return out, err
}

// text returns a page of the repository, or one of its sections.
func (g *guide) text(page, section string) string {
	g.t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", page))
	g.Must(err)
	if section == "" {
		return string(text)
	}
	_, after, found := strings.Cut(string(text), "\n"+section+"\n")
	if !found {
		g.t.Fatalf("%s has no section %q", page, section)
	}
	level, _, _ := strings.Cut(section, " ")
	for l := level; len(l) > 1; l = l[1:] { // the next section of this level or above
		after, _, _ = strings.Cut(after, "\n"+l+" ")
	}
	return after
}

// run executes a page or a section of it. The hook, if any, runs before each block. It returns the number of blocks
// that were run, and of those whose output was compared.
func (g *guide) run(text string, before func(b pages.Block)) (shells, compared int) {
	g.t.Helper()
	shells, compared, err := pages.Run(text, g.dir, func(b pages.Block) (string, error) {
		if before != nil {
			before(b)
		}
		return g.block(b)
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return shells, compared
}

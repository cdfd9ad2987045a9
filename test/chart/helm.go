// Package chart makes of the Helm chart in charts/secretmanager what is derived from
// it, so that none of it can lag behind:
//
//   - manifests/, where somebody without Helm finds the same objects as a
//     kustomization: [Manifests] says which template becomes which file;
//   - the chart's values.yaml and docs/reference/chart.md: both are made of
//     values.schema.json, which says of each value what it is for, what it may be,
//     and what it is by default.
//
// `make manifests` writes them, and the tests fail where a file in the repository is
// not what would be written. The tests also lint the chart, render it with many
// values, try values that are wrong, and install it with the real Helm.
package chart

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

// Folder is the chart's, relative to the root of the repository.
const Folder = "charts/secretmanager"

// A Helm is the real program with a home of its own, so that what the user has set
// up for theirs makes no difference and is not changed.
type Helm struct {
	program string
	home    string
	// Chart is the folder of the chart.
	Chart string
	// Kubeconfig is the file that names the cluster; empty for none.
	Kubeconfig string
}

// NewHelm builds the program where that is needed. What it keeps goes to the folder home.
func NewHelm(ctx context.Context, home string) (*Helm, error) {
	program, err := programs.Path(ctx, "helm")
	if err != nil {
		return nil, err
	}
	root, err := programs.Root()
	if err != nil {
		return nil, err
	}
	return &Helm{program: program, home: home, Chart: filepath.Join(root, filepath.FromSlash(Folder))}, nil
}

// Run runs a command of Helm and returns its standard output. The error has Helm's
// own words.
func (h *Helm) Run(ctx context.Context, args ...string) (string, error) {
	return h.run(ctx, "", args)
}

func (h *Helm) run(ctx context.Context, stdin string, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, h.program, args...)
	kubeconfig := h.Kubeconfig
	if kubeconfig == "" {
		kubeconfig = filepath.Join(h.home, "none")
	}
	cmd.Env = []string{"HOME=" + h.home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "KUBECONFIG=" + kubeconfig,
		"HELM_CACHE_HOME=" + filepath.Join(h.home, "cache"), "HELM_CONFIG_HOME=" + filepath.Join(h.home, "config"), "HELM_DATA_HOME=" + filepath.Join(h.home, "data")}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("helm %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Apply runs a command that takes the chart and values, such as install or upgrade,
// for a release in a namespace.
func (h *Helm) Apply(ctx context.Context, command, release, namespace, values string, args ...string) (string, error) {
	return h.run(ctx, values, append([]string{command, release, h.Chart, "--namespace", namespace, "--values", "-"}, args...))
}

// Template renders the chart for a namespace, with values as YAML, and returns the
// documents by the template that each comes from.
func (h *Helm) Template(ctx context.Context, namespace, values string) (map[string][]string, error) {
	text, err := h.Apply(ctx, "template", "secretmanager", namespace, values)
	if err != nil {
		return nil, err
	}
	return split(text)
}

// split takes the output of `helm template` apart. Each document is preceded by its
// template's name, and keeps its comments.
func split(text string) (map[string][]string, error) {
	const source = "# Source: secretmanager/templates/"
	documents := map[string][]string{}
	for doc := range strings.SplitSeq("\n"+text, "\n---\n") {
		head, body, _ := strings.Cut(strings.TrimLeft(doc, "\n"), "\n")
		name, found := strings.CutPrefix(head, source)
		if !found {
			if strings.TrimSpace(doc) == "" {
				continue
			}
			return nil, fmt.Errorf("a document of helm template does not begin with %q but with %q", source, head)
		}
		documents[name] = append(documents[name], strings.Trim(body, "\n")+"\n")
	}
	return documents, nil
}

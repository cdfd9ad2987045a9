// Package chart generates the files that are derived from the Helm chart in charts/secretmanager:
//
//   - manifests/, which has the same objects as a kustomization, for users without Helm. [Manifests] maps templates
//     to files.
//   - values.yaml and defaults.json of the chart, and docs/reference/chart.md. They are generated from
//     values.schema.json, which has the description, the type and the default of each value.
//
// `make manifests` writes them, and the tests fail if a file in the repository is out of date. The tests also lint the
// chart, render it with many values, try invalid values, and install it with the real Helm.
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

// Dir is the directory of the chart, relative to the root of the repository.
const Dir = "charts/secretmanager"

// A Helm runs the real program with its own home directory, so that it neither uses nor changes the configuration of
// the user.
type Helm struct {
	program string
	home    string
	// Chart is the directory of the chart.
	Chart string
	// Kubeconfig is the kubeconfig file of the cluster; empty for no cluster.
	Kubeconfig string
}

// NewHelm builds the program if needed. Helm stores its files in the directory home.
func NewHelm(ctx context.Context, home string) (*Helm, error) {
	program, err := programs.Path(ctx, "helm")
	if err != nil {
		return nil, err
	}
	root, err := programs.Root()
	if err != nil {
		return nil, err
	}
	return &Helm{program: program, home: home, Chart: filepath.Join(root, filepath.FromSlash(Dir))}, nil
}

// Run runs a Helm command and returns its standard output. The error includes its standard error.
func (h *Helm) Run(ctx context.Context, args ...string) (string, error) {
	return h.run(ctx, "", args)
}

func (h *Helm) run(ctx context.Context, stdin string, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, h.program, args...)
	kubeconfig := h.Kubeconfig
	if kubeconfig == "" {
		kubeconfig = filepath.Join(h.home, "none")
	}
	cmd.Env = []string{
		"HOME=" + h.home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "KUBECONFIG=" + kubeconfig,
		"HELM_CACHE_HOME=" + filepath.Join(h.home, "cache"), "HELM_CONFIG_HOME=" + filepath.Join(h.home, "config"),
		"HELM_DATA_HOME=" + filepath.Join(h.home, "data"),
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		problem := strings.TrimSpace(stderr.String())
		return stdout.String(), fmt.Errorf("helm %s: %w: %s", strings.Join(args, " "), err, problem)
	}
	return stdout.String(), nil
}

// Apply runs a command with the chart and values, such as install or upgrade, for a release in a namespace.
func (h *Helm) Apply(ctx context.Context, command, release, namespace, values string, args ...string) (string, error) {
	all := append([]string{command, release, h.Chart, "--namespace", namespace, "--values", "-"}, args...)
	return h.run(ctx, values, all)
}

// Template renders the chart for the release secretmanager in a namespace, with values as YAML, and returns the
// documents by the template that rendered them.
func (h *Helm) Template(ctx context.Context, namespace, values string) (map[string][]string, error) {
	text, err := h.Apply(ctx, "template", "secretmanager", namespace, values)
	if err != nil {
		return nil, err
	}
	return split(text)
}

// split splits the output of `helm template` into documents. Each begins with the name of its template, and keeps its
// comments.
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
			return nil, fmt.Errorf("a document of helm template begins with %q, want %q", head, source)
		}
		documents[name] = append(documents[name], strings.Trim(body, "\n")+"\n")
	}
	return documents, nil
}

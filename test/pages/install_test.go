package pages_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/test/pages"
	"github.com/secretmanager-io/secretmanager/test/programs"
)

// TestImage runs "The image and the command line" of docs/install.md. Stand-ins of make and docker print what the real
// ones would do: a build takes minutes, and test/e2e has them.
func TestImage(t *testing.T) {
	g := newGuide(t)
	root, err := programs.Root()
	g.Must(err)
	g.must(fmt.Sprintf(`bin=${PATH%%%%:*}
		printf '#!/bin/sh\nexec /usr/bin/make -n -C %[1]s "$@"\n' > $bin/make
		printf '#!/bin/sh\necho docker "$@"\n' > $bin/docker
		chmod +x $bin/make $bin/docker`, root))
	var output string
	shells, _, err := pages.Run(g.text("docs/install.md", "## The image and the command line"), g.dir,
		func(b pages.Block) (string, error) {
			out, err := g.block(b)
			output += out
			return out, err
		})
	if err != nil || shells != 3 {
		t.Fatalf("%d blocks were run: %v", shells, err)
	}
	for _, want := range []string{"-o bin/ ./cmd/...", "ln -sf secretmanager bin/kubectl-secretmanager", "docker build ",
		" -t registry.example/secretmanager:v0.1.0 .", "docker push registry.example/secretmanager:v0.1.0"} {
		if !strings.Contains(output, want) {
			t.Errorf("the commands do not include %q:\n%s", want, output)
		}
	}
}

// TestKustomize runs "With kustomize" of docs/install.md.
func TestKustomize(t *testing.T) {
	g := newGuide(t)
	if shells, _ := g.run(g.text("docs/install.md", "### With kustomize"), nil); shells != 1 {
		t.Errorf("%d blocks were run", shells)
	}
	job, err := g.Kube.BatchV1().CronJobs("secretmanager-system").Get(t.Context(), "secretmanager-rotator",
		metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	container := job.Spec.JobTemplate.Spec.Template.Spec.Containers[0]
	args := strings.Join(container.Args, " ")
	if !strings.HasSuffix(args, " --namespace=demo --transit-key=matrix=demo") ||
		job.Spec.Suspend != nil && *job.Spec.Suspend || container.Image != "registry.example/secretmanager:v0.1.0" {
		t.Errorf("the rotator is %s with %s, suspend %v", container.Image, args, job.Spec.Suspend)
	}
	if _, err := g.Kube.RbacV1().RoleBindings("demo").Get(t.Context(), "secretmanager-rotator-secrets",
		metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

// rollOut stands in for the controller of DaemonSets, until the test ends: it reports that each one is rolled out.
func (g *guide) rollOut() {
	ctx, cancel := context.WithCancel(g.t.Context())
	done := make(chan struct{})
	g.t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
			sets := g.Kube.AppsV1().DaemonSets(metav1.NamespaceAll)
			list, err := sets.List(ctx, metav1.ListOptions{})
			if err != nil {
				continue
			}
			for _, set := range list.Items {
				s := &set.Status
				if s.ObservedGeneration == set.Generation {
					continue
				}
				s.ObservedGeneration, s.DesiredNumberScheduled, s.CurrentNumberScheduled = set.Generation, 1, 1
				s.UpdatedNumberScheduled, s.NumberAvailable, s.NumberReady = 1, 1, 1
				// After a conflict, the next round tries again.
				_, _ = g.Kube.AppsV1().DaemonSets(set.Namespace).UpdateStatus(ctx, &set, metav1.UpdateOptions{})
			}
		}
	}()
}

// TestUpgrade runs docs/upgrade.md. Before the rollback, two upgrades fail.
func TestUpgrade(t *testing.T) {
	g := newGuide(t)
	g.rollOut()
	g.must("kubectl apply -k manifests/driver")
	g.afterwards("helm uninstall secretmanager -n secretmanager-system")
	helm := pages.Blocks(g.text("docs/install.md", "### With Helm"))
	g.must("cat > values.yaml <<'EOF'\n" + helm[0].Text + "EOF\n" + helm[1].Text)
	history := func() string { return g.must("helm history secretmanager -n secretmanager-system") }
	const upgrade = "helm upgrade secretmanager charts/secretmanager -n secretmanager-system --values values.yaml"
	shells, _ := g.run(g.text("docs/upgrade.md", ""), func(b pages.Block) {
		if !strings.Contains(b.Text, "helm rollback") {
			return
		}
		for range 2 {
			// The API server rejects an object, after Helm has changed others.
			out, err := g.shell(upgrade + ` --set vault.address=https://other.example:8200 \
				--set-json 'extraObjects=[{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "NOT A NAME"}}]'`)
			if err == nil {
				t.Fatalf("the upgrade must fail:\n%s", out)
			}
		}
		if n := strings.Count(history(), `Upgrade "secretmanager" failed`); n != 2 {
			t.Errorf("%d upgrades have failed", n)
		}
		// What the page says about a rollback without a number, and about the status.
		if out, err := g.shell("helm rollback secretmanager -n secretmanager-system"); err == nil {
			t.Errorf("a rollback without a number succeeds: %s", out)
		}
		if !regexp.MustCompile(`(?m)superseded.*Upgrade "secretmanager" failed`).MatchString(history()) {
			t.Errorf("the status of a revision that failed is not superseded:\n%s", history())
		}
	})
	if shells != 3 {
		t.Errorf("%d blocks were run", shells)
	}
	values := g.must("helm get values secretmanager -n secretmanager-system")
	if strings.Contains(values, "other.example") {
		t.Errorf("after the rollback the values are\n%s", values)
	}
	if !strings.Contains(history(), "Rollback to 1") {
		t.Errorf("the history is\n%s", history())
	}
}

package chart

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

var block = regexp.MustCompile("(?ms)^```(yaml|sh)\n(.*?)^```$")

// page is a section of docs/install.md, and somebody who types what it says.
type page struct {
	values   string   // its last block of YAML
	commands []string // lines of its shell blocks
	folder   string
	env      []string
}

func readPage(t *testing.T, c *cluster, title string) *page {
	t.Helper()
	_, section, found := strings.Cut(read(t, "docs/install.md"), "\n### "+title+"\n")
	if !found {
		t.Fatalf("docs/install.md has no section %q", title)
	}
	section, _, _ = strings.Cut(section, "\n### ")
	// As somebody with a clone of the repository types it.
	p := &page{folder: t.TempDir()}
	for _, m := range block.FindAllStringSubmatch(section, -1) {
		if m[1] == "yaml" {
			p.values = m[2]
			continue
		}
		for line := range strings.Lines(m[2]) {
			p.commands = append(p.commands, strings.TrimSpace(line))
		}
	}
	if err := os.Symlink(filepath.Join(root(t), "charts"), filepath.Join(p.folder, "charts")); err != nil {
		t.Fatal(err)
	}
	kubectl, err := programs.Path(t.Context(), "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	p.env = []string{"PATH=" + filepath.Dir(kubectl) + ":" + os.Getenv("PATH"), "HOME=" + p.folder, "KUBECONFIG=" + c.Kubeconfig}
	return p
}

// writeValues writes the file that the commands name.
func (p *page) writeValues(t *testing.T, values string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.folder, "values.yaml"), []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *page) run(t *testing.T, command string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", command)
	cmd.Dir, cmd.Env = p.folder, p.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// TestInstallPage follows docs/install.md, word for word, from what was installed with
// kustomize to a release and to nothing.
func TestInstallPage(t *testing.T) {
	c := newCluster(t)
	c.setDriver(t, goodDriver(t))
	const namespace = "secretmanager-system"
	p := readPage(t, c, "With Helm")
	var install, adopt string
	var rest []string
	for _, command := range p.commands {
		switch {
		case strings.Contains(command, "--take-ownership"):
			adopt = command
		case strings.HasPrefix(command, "helm install"):
			install = command
		default:
			rest = append(rest, command)
		}
	}
	if p.values == "" || install == "" || adopt == "" || len(rest) != 4 {
		t.Fatalf("docs/install.md has the commands %q", p.commands)
	}
	p.writeValues(t, p.values)
	run := func(command string) {
		t.Helper()
		p.run(t, command)
	}
	for _, name := range []string{"demo", namespace} { // there already, from another test
		if _, err := c.kube.CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			c.api.CreateNamespace(t, name)
		}
	}
	before := c.everything(t)

	c.kustomize(t, namespace)
	template := c.template(t, namespace)
	run(adopt)
	if c.template(t, namespace) == template {
		t.Error("the chart's values are not those of the pods")
	}
	run("helm uninstall secretmanager -n secretmanager-system")
	c.deleteLeft(t, namespace)

	run(install)
	for _, command := range rest {
		run(command)
	}
	for name := range c.everything(t) {
		if !before[name] {
			t.Errorf("after all of it there is %s", name)
		}
	}
	ns, err := c.kube.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// The label is that of manifests/namespace.yaml, which says why.
	if level := ns.Labels["pod-security.kubernetes.io/enforce"]; level == "" || !bytes.Contains([]byte(read(t, "manifests/namespace.yaml")), []byte("pod-security.kubernetes.io/enforce: "+level+"\n")) {
		t.Errorf("the namespace's Pod Security is %q", level)
	}
}

// release returns the names of the objects of a release.
func (c *cluster) release(t *testing.T, name, namespace string) map[string]bool {
	t.Helper()
	text, err := c.Run(t.Context(), "get", "manifest", name, "--namespace", namespace)
	if err != nil {
		t.Fatal(err)
	}
	documents, err := split(text)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, name := range decode(t, documents).names() {
		names[name] = true
	}
	return names
}

// versions returns the version of each object that Helm made for a release in a
// namespace, wherever the object is.
func (c *cluster) versions(t *testing.T, namespace string) map[string]string {
	t.Helper()
	versions := map[string]string{}
	c.list(t, func(kind string, o *unstructured.Unstructured) {
		if o.GetAnnotations()["meta.helm.sh/release-namespace"] == namespace {
			versions[fmt.Sprintf("%s %s/%s", kind, o.GetNamespace(), o.GetName())] = o.GetResourceVersion()
		}
	})
	return versions
}

// kustomize applies manifests/, as `kubectl apply -k` does.
func (c *cluster) kustomize(t *testing.T, namespace string) {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(root(t), "manifests"))
	if err != nil {
		t.Fatal(err)
	}
	for _, resource := range built.Resources() {
		o, target := c.read(t, resource.MustYaml(), namespace)
		if _, err := target.Apply(t.Context(), o.GetName(), o, metav1.ApplyOptions{FieldManager: "kubectl", Force: true}); err != nil {
			t.Fatal(err)
		}
	}
}

// deleteLeft deletes the ConfigMap that kustomize gave a name of its own to, the one
// thing that does not become the chart's.
func (c *cluster) deleteLeft(t *testing.T, namespace string) {
	t.Helper()
	maps, err := c.kube.CoreV1().ConfigMaps(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, m := range maps.Items {
		if strings.HasPrefix(m.Name, "secretmanager-vault-") {
			left++
			if err := c.kube.CoreV1().ConfigMaps(namespace).Delete(t.Context(), m.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if left != 1 {
		t.Errorf("kustomize has left %d ConfigMaps with Vault's address", left)
	}
}

// TestTwoNamespaces follows docs/install.md to a release of the provider and one of the
// rotator: together they are what one release is, they share no object, and one goes
// without the other.
func TestTwoNamespaces(t *testing.T) {
	c := newCluster(t)
	c.setDriver(t, goodDriver(t))
	c.api.CreateNamespace(t, "demo")
	p := readPage(t, c, "In two namespaces")
	values := readPage(t, c, "With Helm").values
	p.writeValues(t, values)
	const node, system = "secretmanager-provider", "secretmanager-system"
	for _, command := range p.commands {
		if name, found := strings.CutPrefix(command, "kubectl create namespace "); found {
			if _, err := c.kube.CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{}); err == nil {
				continue // there already, from another test
			}
		}
		if strings.HasPrefix(command, "kubectl label ") {
			command += " --overwrite"
		}
		p.run(t, command)
	}
	defer c.labelNamespace(t, system, "pod-security.kubernetes.io/enforce", "privileged")
	for namespace, level := range map[string]string{node: "privileged", system: "restricted"} {
		ns, err := c.kube.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
		if err != nil || ns.Labels["pod-security.kubernetes.io/enforce"] != level {
			t.Errorf("namespace %s has the labels %v, %v", namespace, ns.Labels, err)
		}
	}
	provider, rotator := c.release(t, "secretmanager-provider", node), c.release(t, "secretmanager", system)
	one := render(t, c.Helm, system, values).names()
	var both []string
	for name := range provider {
		both = append(both, name)
	}
	for name := range rotator {
		// The ConfigMap with Vault's address is in each namespace.
		if _, twice := provider[name]; !twice {
			both = append(both, name)
		} else if name != "ConfigMap secretmanager-vault" {
			t.Errorf("both releases have %s", name)
		}
	}
	slices.Sort(both)
	if diff := gocmp.Diff(one, both); diff != "" {
		t.Errorf("two releases and one have other objects (-one +two):\n%s", diff)
	}

	before := c.versions(t, system)
	p.run(t, "helm uninstall secretmanager-provider -n "+node)
	if diff := gocmp.Diff(before, c.versions(t, system)); diff != "" {
		t.Errorf("without the provider's release the rotator's is another (-before +after):\n%s", diff)
	}
	for name := range c.versions(t, node) {
		t.Errorf("the provider's release has left %s", name)
	}
	p.run(t, "helm uninstall secretmanager -n "+system)
	for name := range c.versions(t, system) {
		t.Errorf("the rotator's release has left %s", name)
	}
}

// TestTwoReleases: two whole releases of the same name of the product have no object in
// common, cluster-wide ones neither, and one goes without the other, also where the
// releases have one name.
func TestTwoReleases(t *testing.T) {
	c := newCluster(t)
	c.setDriver(t, goodDriver(t))
	const values = `
rotator: {cluster: true}
admission: {enabled: true, validationActions: [Audit], forbidPlaintext: {enabled: true}}
`
	releases := [][2]string{{"secretmanager", "two-a"}, {"secretmanager", "two-b"}, {"other", "two-a-b"}, {"secretmanager", "secretmanager-system"}}
	before := c.everything(t)
	for _, r := range releases {
		c.api.CreateNamespace(t, r[1])
		if _, err := c.Apply(t.Context(), "install", r[0], r[1], values); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			c.Run(context.WithoutCancel(t.Context()), "uninstall", r[0], "--namespace", r[1], "--ignore-not-found")
		})
	}
	for len(releases) > 1 {
		gone := releases[0]
		releases = releases[1:]
		left := map[string]string{}
		for _, r := range releases {
			maps.Copy(left, c.versions(t, r[1]))
		}
		if _, err := c.Run(t.Context(), "uninstall", gone[0], "--namespace", gone[1]); err != nil {
			t.Fatal(err)
		}
		now := map[string]string{}
		for _, r := range releases {
			maps.Copy(now, c.versions(t, r[1]))
		}
		if diff := gocmp.Diff(left, now); diff != "" {
			t.Errorf("without the release %v the others are others (-before +after):\n%s", gone, diff)
		}
		for name := range c.versions(t, gone[1]) {
			t.Errorf("the release %v has left %s", gone, name)
		}
	}
	if _, err := c.Run(t.Context(), "uninstall", releases[0][0], "--namespace", releases[0][1]); err != nil {
		t.Fatal(err)
	}
	for name := range c.everything(t) {
		if !before[name] && !strings.HasPrefix(name, "Namespace ") && !strings.HasPrefix(name, "ServiceAccount ") && !strings.HasPrefix(name, "ConfigMap ") {
			t.Errorf("after all of it there is %s", name)
		}
	}
}

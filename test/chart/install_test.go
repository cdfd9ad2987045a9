package chart

import (
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

// page is a section of docs/install.md, and the environment in which the test runs its commands.
type page struct {
	values   string   // its last block of YAML
	commands []string // lines of its shell blocks
	dir      string
	env      []string
}

func readPage(t *testing.T, c *cluster, title string) *page {
	t.Helper()
	_, section, found := strings.Cut(read(t, "docs/install.md"), "\n### "+title+"\n")
	if !found {
		t.Fatalf("docs/install.md has no section %q", title)
	}
	section, _, _ = strings.Cut(section, "\n### ")
	// The commands run in the root of the repository.
	p := &page{dir: t.TempDir()}
	for _, m := range block.FindAllStringSubmatch(section, -1) {
		if m[1] == "yaml" {
			p.values = m[2]
			continue
		}
		for line := range strings.Lines(m[2]) {
			p.commands = append(p.commands, strings.TrimSpace(line))
		}
	}
	if err := os.Symlink(filepath.Join(root(t), "charts"), filepath.Join(p.dir, "charts")); err != nil {
		t.Fatal(err)
	}
	kubectl, err := programs.Path(t.Context(), "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	helm, err := programs.Path(t.Context(), "helm")
	if err != nil {
		t.Fatal(err)
	}
	p.env = []string{
		"PATH=" + filepath.Dir(kubectl) + ":" + filepath.Dir(helm) + ":" + os.Getenv("PATH"),
		"HOME=" + p.dir, "KUBECONFIG=" + c.Kubeconfig,
	}
	return p
}

// writeValues writes the file values.yaml of the commands.
func (p *page) writeValues(t *testing.T, values string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "values.yaml"), []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *page) run(t *testing.T, command string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", command)
	cmd.Dir, cmd.Env = p.dir, p.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// TestInstallPage runs the commands of docs/install.md: Helm adopts what kustomize installed, installs, upgrades and
// uninstalls.
func TestInstallPage(t *testing.T) {
	c := newCluster(t)
	c.setDriver(t, validDriver(t))
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
	if p.values == "" || install == "" || adopt == "" || len(rest) != 3 {
		t.Fatalf("docs/install.md has the commands %q", p.commands)
	}
	p.writeValues(t, p.values)
	for _, name := range []string{"demo", namespace} { // another test may have created them
		if _, err := c.kube.CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			c.api.CreateNamespace(t, name)
		}
	}
	before := c.allObjects(t)

	c.kustomize(t, namespace)
	template := c.template(t, namespace)
	p.run(t, adopt)
	if c.template(t, namespace) == template {
		t.Error("the pods do not have the values of the chart")
	}
	p.run(t, "helm uninstall secretmanager -n secretmanager-system")
	c.deleteGenerated(t, namespace)

	p.run(t, install)
	for _, command := range rest {
		p.run(t, command)
	}
	for name := range c.allObjects(t) {
		if !before[name] {
			t.Errorf("after uninstall %s exists", name)
		}
	}
	ns, err := c.kube.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// manifests/namespace.yaml has the same level, and the reason.
	const enforce = "pod-security.kubernetes.io/enforce"
	level := ns.Labels[enforce]
	if level == "" || !strings.Contains(read(t, "manifests/namespace.yaml"), enforce+": "+level+"\n") {
		t.Errorf("the Pod Security level of the namespace is %q", level)
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

// versions returns the resource version of each object of the releases in a namespace, cluster-scoped objects included.
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

// kustomize applies manifests/ as `kubectl apply -k` does.
func (c *cluster) kustomize(t *testing.T, namespace string) {
	t.Helper()
	kustomizer := krusty.MakeKustomizer(krusty.MakeDefaultOptions())
	built, err := kustomizer.Run(filesys.MakeFsOnDisk(), filepath.Join(root(t), "manifests"))
	if err != nil {
		t.Fatal(err)
	}
	for _, resource := range built.Resources() {
		o, target := c.read(t, resource.MustYaml(), namespace)
		options := metav1.ApplyOptions{FieldManager: "kubectl", Force: true}
		if _, err := target.Apply(t.Context(), o.GetName(), o, options); err != nil {
			t.Fatal(err)
		}
	}
}

// deleteGenerated deletes what Helm does not adopt: the ConfigMap that kustomize generated, and the rotator's state.
func (c *cluster) deleteGenerated(t *testing.T, namespace string) {
	t.Helper()
	maps, err := c.kube.CoreV1().ConfigMaps(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	deleted := 0
	for _, m := range maps.Items {
		if strings.HasPrefix(m.Name, "secretmanager-vault-") {
			deleted++
			if err := c.kube.CoreV1().ConfigMaps(namespace).Delete(t.Context(), m.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.deleteState(t, namespace)
	if deleted != 1 {
		t.Errorf("kustomize generated %d ConfigMaps with the address of Vault, want 1", deleted)
	}
}

// TestTwoNamespaces runs the commands of docs/install.md for a release of the provider and a release of the rotator.
// Together they have the objects of one release, they share none, and each can be uninstalled alone.
func TestTwoNamespaces(t *testing.T) {
	c := newCluster(t)
	c.setDriver(t, validDriver(t))
	c.api.CreateNamespace(t, "demo")
	p := readPage(t, c, "In two namespaces")
	values := readPage(t, c, "With Helm").values
	p.writeValues(t, values)
	const node, system = "secretmanager-provider", "secretmanager-system"
	for _, command := range p.commands {
		if name, found := strings.CutPrefix(command, "kubectl create namespace "); found {
			if _, err := c.kube.CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{}); err == nil {
				continue // another test created it
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
	provider, rotator := c.release(t, "secretmanager", node), c.release(t, "secretmanager", system)
	one := render(t, c.Helm, system, values).names()
	two := maps.Clone(provider)
	for name := range rotator {
		// Each namespace has a ConfigMap with the address of Vault.
		if provider[name] && name != "ConfigMap secretmanager-vault" {
			t.Errorf("both releases have %s", name)
		}
		two[name] = true
	}
	if diff := gocmp.Diff(one, slices.Sorted(maps.Keys(two))); diff != "" {
		t.Errorf("objects of one release and of two (-one +two):\n%s", diff)
	}

	before := c.versions(t, system)
	p.run(t, "helm uninstall secretmanager -n "+node)
	if diff := gocmp.Diff(before, c.versions(t, system)); diff != "" {
		t.Errorf("uninstalling the provider changed the rotator (-before +after):\n%s", diff)
	}
	for name := range c.versions(t, node) {
		t.Errorf("after uninstalling the provider %s exists", name)
	}
	p.run(t, "helm uninstall secretmanager -n "+system)
	for name := range c.versions(t, system) {
		t.Errorf("after uninstalling the rotator %s exists", name)
	}
}

// TestTwoReleases: complete releases share no object, not even a cluster-scoped one, and each can be uninstalled alone,
// also if the releases have the same name.
func TestTwoReleases(t *testing.T) {
	c := newCluster(t)
	c.setDriver(t, validDriver(t))
	const values = `
rotator: {cluster: true}
admission: {enabled: true, validationActions: [Audit], forbidPlaintext: {enabled: true}}
`
	releases := [][2]string{
		{"secretmanager", "two-a"}, {"secretmanager", "two-b"}, {"other", "two-a-b"},
		{"secretmanager", "secretmanager-system"},
	}
	before := c.allObjects(t)
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
		removed := releases[0]
		releases = releases[1:]
		versions := func() map[string]string {
			all := map[string]string{}
			for _, r := range releases {
				maps.Copy(all, c.versions(t, r[1]))
			}
			return all
		}
		existing := versions()
		if _, err := c.Run(t.Context(), "uninstall", removed[0], "--namespace", removed[1]); err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(existing, versions()); diff != "" {
			t.Errorf("uninstalling the release %v changed the others (-before +after):\n%s", removed, diff)
		}
		for name := range c.versions(t, removed[1]) {
			t.Errorf("after uninstalling the release %v %s exists", removed, name)
		}
	}
	if _, err := c.Run(t.Context(), "uninstall", releases[0][0], "--namespace", releases[0][1]); err != nil {
		t.Fatal(err)
	}
	// Namespaces with their service accounts and ConfigMaps remain.
	remaining := regexp.MustCompile("^(Namespace|ServiceAccount|ConfigMap) ")
	for name := range c.allObjects(t) {
		if !before[name] && !remaining.MatchString(name) {
			t.Errorf("after uninstalling all releases %s exists", name)
		}
	}
}

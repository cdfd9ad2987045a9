package chart

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

var block = regexp.MustCompile("(?ms)^```(yaml|sh)\n(.*?)^```$")

// TestInstallPage follows docs/install.md, word for word, from what was installed with
// kustomize to a release and to nothing.
func TestInstallPage(t *testing.T) {
	c := newCluster(t)
	c.setDriver(t, goodDriver(t))
	const namespace = "secretmanager-system"
	_, section, found := strings.Cut(read(t, "docs/install.md"), "\n### With Helm\n")
	if !found {
		t.Fatal("docs/install.md has no section for Helm")
	}
	section, _, _ = strings.Cut(section, "\n### ")
	values, commands := "", []string{}
	for _, m := range block.FindAllStringSubmatch(section, -1) {
		if m[1] == "yaml" {
			values = m[2]
			continue
		}
		for line := range strings.Lines(m[2]) {
			commands = append(commands, strings.TrimSpace(line))
		}
	}
	var install, adopt string
	var rest []string
	for _, command := range commands {
		switch {
		case strings.Contains(command, "--take-ownership"):
			adopt = command
		case strings.HasPrefix(command, "helm install"):
			install = command
		default:
			rest = append(rest, command)
		}
	}
	if values == "" || install == "" || adopt == "" || len(rest) != 4 {
		t.Fatalf("docs/install.md has the commands %q", commands)
	}

	// As somebody with a clone of the repository types it.
	folder := t.TempDir()
	if err := os.Symlink(filepath.Join(root(t), "charts"), filepath.Join(folder, "charts")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "values.yaml"), []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl, err := programs.Path(t.Context(), "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	run := func(command string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "bash", "-c", command)
		cmd.Dir = folder
		cmd.Env = []string{"PATH=" + filepath.Dir(kubectl) + ":" + os.Getenv("PATH"), "HOME=" + folder, "KUBECONFIG=" + c.Kubeconfig}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
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

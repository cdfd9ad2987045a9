package admission

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/kustomize/api/krusty"

	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/test/programs"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// operator is somebody with kubectl and a cluster of their own.
type operator struct {
	*testing.T
	env []string
}

// run runs a line of the shell, and returns all that it prints.
func (o operator) run(stdin, line string) (string, error) {
	o.Helper()
	command := exec.CommandContext(o.Context(), "sh", "-ec", line)
	command.Dir, command.Env, command.Stdin = root(o.T), o.env, strings.NewReader(stdin)
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	err := command.Run()
	return out.String(), err
}

// passes runs a line that has to succeed.
func (o operator) passes(stdin, line string, want ...string) {
	o.Helper()
	out, err := o.run(stdin, line)
	if err != nil {
		o.Fatalf("%s: %v\n%s", line, err, out)
	}
	o.says(line, out, want)
}

// refused runs a line that a policy has to refuse.
func (o operator) refused(stdin, line string, want ...string) {
	o.Helper()
	out, err := o.run(stdin, line)
	if err == nil {
		o.Errorf("%s passes", line)
	}
	o.says(line, out, want)
}

func (o operator) says(line, out string, want []string) {
	o.Helper()
	out = strings.Join(strings.Fields(out), " ")
	for _, w := range want {
		if w = strings.Join(strings.Fields(w), " "); !strings.Contains(out, w) {
			o.Errorf("%s: it says %q, not %q", line, out, w)
		}
	}
	if _, policy, _ := strings.Cut(out, "ValidatingAdmissionPolicy '"); strings.Contains(policy, value) {
		o.Errorf("%s: it says a value: %s", line, out)
	}
}

// awaits repeats a line until it says something.
func (o operator) awaits(stdin, line, says string) {
	o.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-ticker.C {
		out, _ := o.run(stdin, line)
		if strings.Contains(out, says) {
			return
		}
		if time.Now().After(deadline) {
			o.Fatalf("%s: after a minute it still says %q, not %q", line, out, says)
		}
	}
}

// manifest is the manifest of a Secret.
func manifest(name, kind, metadata, data string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: demo%s}\ntype: %s\n%s\n", name, metadata, kind, data)
}

// An operator with kubectl follows the page, from the first command to the last.
func TestPage(t *testing.T) {
	server := testenv.NewAPIServer(t)
	kubectl, err := programs.Path(t.Context(), "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(kubectl, filepath.Join(bin, "kubectl")); err != nil {
		t.Fatal(err)
	}
	o := operator{t, []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "KUBECONFIG=" + server.Kubeconfig, "HOME=" + t.TempDir()}}
	kube, err := kubernetes.NewForConfig(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	const ours, keyed = "secretmanager.io/ciphertext", ", labels: {secretmanager.io/transit-key: key}"
	sealed := func() string { return "data: {good: " + encoded(text("3")) + "}" }

	o.passes("", "kubectl create namespace demo")
	o.passes(manifest("before", ours, keyed, "stringData: {password: "+value+"}"), "kubectl apply -f -")
	o.passes("", onPage(t, shell, "kubectl apply -k"))
	for _, folder := range []string{Ciphertext, ForbidPlaintext} {
		p, err := Load(folder)
		if err == nil {
			err = p.Await(t.Context(), kube, "demo")
		}
		if err != nil {
			t.Fatal(err)
		}
	}

	// What encrypt prints, applied, changed and applied again, both ways.
	for _, how := range []string{"kubectl apply -f -", "kubectl apply --server-side -f -"} {
		name := fmt.Sprintf("web-%d", len(how))
		o.passes(manifest(name, ours, keyed, sealed()), how, name+" ")
		o.passes(manifest(name, ours, keyed, sealed()), how, name+" ")
		o.refused(manifest(name, ours, keyed, "stringData: {good: "+value+"}"), how, oneEntry+"good")
	}
	// kubectl itself, not the policy, repeats the patch of an apply that is refused;
	// the page warns of it.
	o.refused(manifest("web-18", ours, keyed, "stringData: {good: "+value+"}"), "kubectl apply -f -", `error when applying patch: {"data":null,`, value)

	// Nor does its copy of the manifest hold what the entries do not.
	o.refused("", "kubectl annotate secret web-18 -n demo --overwrite "+lastApplied+`='{"stringData":{"good":"`+value+`"}}'`, badApplied)
	o.refused(manifest("other", "Opaque", "", "stringData: {good: "+value+"}"), "kubectl apply -f -", "plaintext is forbidden in namespace demo: "+oneEntry+"good")
	o.refused("", "kubectl create secret generic other -n demo --dry-run=server --from-literal good="+value, "plaintext is forbidden in namespace demo: "+oneEntry+"good")

	// One that was bad before, with the page's way to be rid of kubectl's copy.
	o.passes("", "kubectl annotate secret before -n demo team=red")
	remove := "kubectl annotate secret NAME " + lastApplied + "-"
	if !strings.Contains(page(t), remove) {
		t.Errorf("the page does not say %s", remove)
	}
	o.passes("", strings.ReplaceAll(remove, "NAME", "before -n demo"))
	o.refused("", "kubectl label secret before -n demo secretmanager.io/transit-key-", noLabel)
	o.passes("", "kubectl delete secret before -n demo --wait=false")

	// The message on the page. The label takes a moment, as does the binding below.
	matrix := manifest("matrix", ours, "", "stringData: {password: "+value+"}")
	o.passes("", "kubectl label namespace demo secretmanager.io/plaintext-")
	o.awaits(manifest("other", "Opaque", "", "stringData: {good: "+value+"}"), "kubectl create --dry-run=server -f -", "created")
	o.refused(matrix, "kubectl create -f -", onPage(t, message, "is forbidden"))

	// Warnings only.
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(overlay(t, "[Warn, Audit]"), "/here")
	if err != nil {
		t.Fatal(err)
	}
	warning, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	o.passes(string(warning), "kubectl apply -f -", "configured")
	o.awaits(matrix, "kubectl create --dry-run=server -f -", "created")
	o.passes(matrix, "kubectl create -f -", "Warning: Validation failed for ValidatingAdmissionPolicy 'ciphertext.secretmanager.io'", oneEntry+"password")
}

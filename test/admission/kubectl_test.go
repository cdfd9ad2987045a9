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

	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/kustomize/api/krusty"

	"github.com/secretmanager-io/secretmanager/test/programs"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// operator runs commands with kubectl and a cluster.
type operator struct {
	*testing.T
	env []string
}

// run runs a shell command, and returns its output.
func (o operator) run(stdin, line string) (string, error) {
	o.Helper()
	command := exec.CommandContext(o.Context(), "sh", "-ec", line)
	command.Dir, command.Env, command.Stdin = root(o.T), o.env, strings.NewReader(stdin)
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	err := command.Run()
	return out.String(), err
}

// passes runs a command that must succeed.
func (o operator) passes(stdin, line string, want ...string) {
	o.Helper()
	out, err := o.run(stdin, line)
	if err != nil {
		o.Fatalf("%s: %v\n%s", line, err, out)
	}
	o.checkOutput(line, out, want)
}

// denied runs a command that a policy must deny.
func (o operator) denied(stdin, line string, want ...string) {
	o.Helper()
	out, err := o.run(stdin, line)
	if err == nil {
		o.Errorf("%s succeeds", line)
	}
	o.checkOutput(line, out, want)
}

func (o operator) checkOutput(line, out string, want []string) {
	o.Helper()
	out = strings.Join(strings.Fields(out), " ")
	for _, w := range want {
		if w = strings.Join(strings.Fields(w), " "); !strings.Contains(out, w) {
			o.Errorf("%s: output %q, want %q", line, out, w)
		}
	}
	if _, policy, _ := strings.Cut(out, "ValidatingAdmissionPolicy '"); strings.Contains(policy, value) {
		o.Errorf("%s: the message contains a value: %s", line, out)
	}
}

// awaits repeats a command until its output contains a text.
func (o operator) awaits(stdin, line, want string) {
	o.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-ticker.C {
		out, _ := o.run(stdin, line)
		if strings.Contains(out, want) {
			return
		}
		if time.Now().After(deadline) {
			o.Fatalf("%s: output after a minute %q, want %q", line, out, want)
		}
	}
}

// manifest returns the manifest of a Secret.
func manifest(name, kind, metadata, data string) string {
	const format = "apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: demo%s}\ntype: %s\n%s\n"
	return fmt.Sprintf(format, name, metadata, kind, data)
}

// TestPage runs the commands of docs/admission.md.
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
	o := operator{t, []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "KUBECONFIG=" + server.Kubeconfig, "HOME=" + t.TempDir(),
	}}
	kube, err := kubernetes.NewForConfig(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	const ours, keyed = "secretmanager.io/ciphertext", ", labels: {secretmanager.io/transit-key: key}"
	encrypted := func() string { return "data: {good: " + encoded(text("3")) + "}" }

	o.passes("", "kubectl create namespace demo")
	o.passes(manifest("before", ours, keyed, "stringData: {password: "+value+"}"), "kubectl apply -f -")
	o.passes("", onPage(t, shell, "kubectl apply -k"))
	for _, dir := range []string{Ciphertext, ForbidPlaintext} {
		p, err := Load(dir)
		if err == nil {
			err = p.Await(t.Context(), kube, "demo")
		}
		if err != nil {
			t.Fatal(err)
		}
	}

	// A manifest that encrypt printed, applied, changed and applied again, in both modes.
	for _, apply := range []string{"kubectl apply -f -", "kubectl apply --server-side -f -"} {
		name := fmt.Sprintf("web-%d", len(apply))
		o.passes(manifest(name, ours, keyed, encrypted()), apply, name+" ")
		o.passes(manifest(name, ours, keyed, encrypted()), apply, name+" ")
		o.denied(manifest(name, ours, keyed, "stringData: {good: "+value+"}"), apply, oneEntry+"good")
	}
	// kubectl, not the policy, prints the patch of a denied apply. The page warns about it.
	plaintext := "stringData: {good: " + value + "}"
	o.denied(manifest("web-18", ours, keyed, plaintext), "kubectl apply -f -",
		`error when applying patch: {"data":null,`, value)

	// The copy of the manifest must not contain plaintext either.
	o.denied("", "kubectl annotate secret web-18 -n demo --overwrite "+lastApplied+
		`='{"stringData":{"good":"`+value+`"}}'`, badApplied)
	forbidden := "plaintext is forbidden in namespace demo: " + oneEntry + "good"
	o.denied(manifest("other", "Opaque", "", plaintext), "kubectl apply -f -", forbidden)
	o.denied("", "kubectl create secret generic other -n demo --dry-run=server --from-literal good="+value, forbidden)

	// A Secret that was invalid before, and the command on the page that removes the copy.
	o.passes("", "kubectl annotate secret before -n demo team=red")
	remove := "kubectl annotate secret NAME " + lastApplied + "-"
	if !strings.Contains(page(t), remove) {
		t.Errorf("the page does not contain %s", remove)
	}
	o.passes("", strings.ReplaceAll(remove, "NAME", "before -n demo"))
	o.denied("", "kubectl label secret before -n demo secretmanager.io/transit-key-", noLabel)
	o.passes("", "kubectl delete secret before -n demo --wait=false")

	// The message on the page. The removed label takes effect after a moment, and so does the binding below.
	matrix := manifest("matrix", ours, "", "stringData: {password: "+value+"}")
	o.passes("", "kubectl label namespace demo secretmanager.io/plaintext-")
	o.awaits(manifest("other", "Opaque", "", plaintext), "kubectl create --dry-run=server -f -", "created")
	o.denied(matrix, "kubectl create -f -", onPage(t, message, "is forbidden"))

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
	o.passes(matrix, "kubectl create -f -",
		"Warning: Validation failed for ValidatingAdmissionPolicy 'ciphertext.secretmanager.io'", oneEntry+"password")
}

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/test/chart"
	"github.com/secretmanager-io/secretmanager/test/programs"
)

// manifestFile encrypts a value into a new file.
func (u *user) manifestFile(path, name, value string) {
	u.t.Helper()
	text := u.must("", "encrypt", name, "--from-literal", "a="+value, "--transit-key", u.Namespace, "--dry-run=client",
		"-o", "yaml")
	u.Must(os.MkdirAll(filepath.Dir(path), 0o700))
	u.Must(os.WriteFile(path, []byte(text), 0o600))
}

// versionOf returns the key version of entry a.
func (u *user) versionOf(name string) int {
	u.t.Helper()
	v, err := ciphertext.Version(u.secret(name).Data["a"])
	u.Must(err)
	return v
}

// rotate makes a run that rewraps to the newest version.
func (u *user) rotate(more ...string) (code int, stderr string) {
	u.t.Helper()
	u.Write("transit/keys/"+u.Namespace+"/rotate", nil)
	code, _, stderr = u.run("", append([]string{"rotate", "--rotate=never", "--transit-key", u.Namespace,
		"--state-namespace", u.Namespace}, more...)...)
	return code, stderr
}

// Helm writes a Secret of its chart again at the next upgrade.
func TestManagedByHelm(t *testing.T) {
	u := newUser(t)
	helm, err := chart.NewHelm(t.Context(), t.TempDir())
	u.Must(err)
	helm.Kubeconfig = u.kubeconfig
	dir := t.TempDir()
	u.Must(os.WriteFile(filepath.Join(dir, "Chart.yaml"), []byte("apiVersion: v2\nname: shop\nversion: 1.0.0\n"), 0o600))
	u.manifestFile(filepath.Join(dir, "templates", "secret.yaml"), "s", "old")
	if _, err := helm.Run(t.Context(), "install", "shop", dir, "--namespace", u.Namespace); err != nil {
		t.Fatal(err)
	}
	manager := "Helm release " + u.Namespace + "/shop"

	code, _, stderr := u.run("", "encrypt", "s", "--from-literal", "a=new")
	if code != cli.ExitFailed || !strings.Contains(stderr, "SecretManaged: ") || !strings.Contains(stderr, manager) {
		t.Errorf("encrypt: exit code %d: %s", code, stderr)
	}
	if code, stderr := u.rotate(); code == cli.ExitDone || !strings.Contains(stderr, "it is managed by "+manager) ||
		u.versionOf("s") != 1 {
		t.Errorf("rotate: exit code %d: %s", code, stderr)
	}
	if out := u.must("", "status", "-o", "wide"); !strings.Contains(out, manager) {
		t.Errorf("status does not name the manager:\n%s", out)
	}

	// Why it refuses: an upgrade brings the old value back.
	u.must("", "encrypt", "s", "--from-literal", "a=new", "--include-managed")
	if v := u.versionOf("s"); v != 2 {
		t.Fatalf("--include-managed: version %d", v)
	}
	_, err = helm.Run(t.Context(), "upgrade", "shop", dir, "--namespace", u.Namespace, "--force-conflicts")
	if v := u.versionOf("s"); err != nil || v != 1 {
		t.Errorf("after an upgrade: version %d, %v", v, err)
	}
}

// What somebody applied with kubectl is rewrapped. Then the old manifest is in conflict.
func TestManagedByKubectl(t *testing.T) {
	u := newUser(t)
	kubectl, err := programs.Path(t.Context(), "kubectl")
	u.Must(err)
	file := filepath.Join(t.TempDir(), "s.yaml")
	u.manifestFile(file, "s", "old")
	apply := func() (string, error) {
		c := exec.CommandContext(t.Context(), kubectl, "apply", "--server-side", "-f", file, "-n", u.Namespace)
		c.Env = []string{"KUBECONFIG=" + u.kubeconfig, "HOME=" + t.TempDir()}
		out, err := c.CombinedOutput()
		return string(out), err
	}
	if out, err := apply(); err != nil {
		t.Fatal(out)
	}
	if code, stderr := u.rotate(); code != cli.ExitDone || u.versionOf("s") != 2 ||
		!strings.Contains(stderr, "kubectl applied 1 Secret from manifests that are older now") {
		t.Errorf("rotate: exit code %d: %s", code, stderr)
	}
	if out, err := apply(); err == nil || !strings.Contains(out, "conflict") || u.versionOf("s") != 2 {
		t.Errorf("the old manifest: %v: %s", err, out)
	}
	code, _, stderr := u.run("", "encrypt", "s", "--from-literal", "a=new")
	if code != cli.ExitDone || !strings.Contains(stderr, "note: kubectl applied it from a manifest") {
		t.Errorf("encrypt: exit code %d: %s", code, stderr)
	}
}

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/chart"
	"github.com/secretmanager-io/secretmanager/test/programs"
)

// TestRotationOfManagedSecrets checks that the CronJob rewraps what a person applied with kubectl and
// reports that its manifest is older now, and that it leaves and reports what a controller or Helm
// would revert. With --include-managed it rewraps these too.
func TestRotationOfManagedSecrets(t *testing.T) {
	t.Parallel()
	requireProduct(t)
	namespace := newNamespace(t)
	f := &fixture{namespace: namespace, key: namespace}
	f.setUp(t)
	f.allowRotator(t)
	f.serverApply(t, "person", "kubectl")
	f.serverApply(t, "controlled", "shop-controller")
	f.helmInstall(t, "charted")
	check := func(step string, versions map[string]int) {
		t.Helper()
		for name, want := range versions {
			if v, err := ciphertext.Version(f.secret(t, name).Data["a"]); v != want || err != nil {
				t.Errorf("%s: Secret %s has version %d (%v), want %d", step, name, v, err, want)
			}
		}
	}

	args := []string{"--transit-key=" + f.key, "--namespace=" + namespace}
	log, failed := runJob(t, namespace, append(args, "--rotate=always")...)
	if !failed {
		t.Errorf("the run reports success:\n%s", log)
	}
	check("rotated", map[string]int{"person": 2, "controlled": 1, "charted": 1})
	summary := f.rotationSummary(t)
	if summary.OlderManifests != 1 || summary.Rewrapped != 1 || summary.Unresolved.Count != 2 || summary.Failed != 0 {
		t.Errorf("the summary is %+v", summary)
	}
	for _, want := range []string{"is managed by field manager shop-controller",
		"is managed by Helm release " + namespace + "/shop"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}

	if log, failed = runJob(t, namespace, append(args, "--rotate=never", "--include-managed")...); failed {
		t.Errorf("with --include-managed the run failed:\n%s", log)
	}
	check("with --include-managed", map[string]int{"person": 2, "controlled": 2, "charted": 2})
	if summary := f.rotationSummary(t); summary.Rewrapped != 2 || summary.Unresolved.Count != 0 {
		t.Errorf("the summary is %+v", summary)
	}
}

// manifestOf writes a manifest of a ciphertext Secret to a file.
func (f *fixture) manifestOf(t *testing.T, name, path string) {
	t.Helper()
	text := command(t, f.author, "", "encrypt", name, "-n", f.namespace, "--transit-key", f.key, "--from-literal",
		"a="+firstToken, "--dry-run=client", "-o", "yaml")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serverApply applies a ciphertext Secret with kubectl, as a field manager.
func (f *fixture) serverApply(t *testing.T, name, manager string) {
	t.Helper()
	kubectl, err := programs.Path(t.Context(), "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "secret.yaml")
	f.manifestOf(t, name, file)
	cmd := exec.CommandContext(t.Context(), kubectl, "apply", "--server-side", "--field-manager="+manager, "-f", file)
	cmd.Env = []string{"KUBECONFIG=" + shared.Kubeconfig, "HOME=" + t.TempDir()}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// helmInstall installs a chart with a ciphertext Secret, as the release shop.
func (f *fixture) helmInstall(t *testing.T, name string) {
	t.Helper()
	helm, err := chart.NewHelm(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	helm.Kubeconfig = shared.Kubeconfig
	dir := t.TempDir()
	text := "apiVersion: v2\nname: shop\nversion: 1.0.0\n"
	if err := os.WriteFile(filepath.Join(dir, "Chart.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f.manifestOf(t, name, filepath.Join(dir, "templates", "secret.yaml"))
	if _, err := helm.Run(t.Context(), "install", "shop", dir, "--namespace", f.namespace); err != nil {
		t.Fatal(err)
	}
}

// keySummary is what the last run reported about a key.
type keySummary struct {
	Rewrapped, OlderManifests, Failed int
	Unresolved                        struct{ Count int }
}

// rotationSummary reads the report of the last run about the key.
func (f *fixture) rotationSummary(t *testing.T) (s keySummary) {
	t.Helper()
	state, err := shared.Client.CoreV1().ConfigMaps(system).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range state.Items {
		text, ok := m.Data["transit__"+f.key+"_report"]
		if !ok || !strings.HasPrefix(m.Name, "secretmanager-rotation-") {
			continue
		}
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Fatalf("the state does not have key %s", f.key)
	return s
}

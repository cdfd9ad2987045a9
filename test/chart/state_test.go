package chart

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/programs"
)

// TestApplyKeepsState: applying manifests/rotator/state.yaml again, client-side or server-side, keeps what the rotator
// wrote. TestInstallUpgradeUninstall checks the same for Helm.
func TestApplyKeepsState(t *testing.T) {
	c := newCluster(t)
	kubectl, err := programs.Path(t.Context(), "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"", "--server-side"} {
		t.Run("kubectl apply "+mode, func(t *testing.T) {
			namespace := "state" + mode
			c.api.CreateNamespace(t, namespace)
			apply := func() {
				t.Helper()
				file := filepath.Join(root(t), "manifests", "rotator", "state.yaml")
				args := []string{"--kubeconfig", c.Kubeconfig, "-n", namespace, "apply", "-f", file}
				if mode != "" {
					args = append(args, mode)
				}
				if out, err := exec.CommandContext(t.Context(), kubectl, args...).CombinedOutput(); err != nil {
					t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
				}
			}
			apply()
			states := map[string]map[string]string{}
			for _, name := range rotator.StateNames() {
				states[name] = map[string]string{"run": "{}", "transit__app": name}
				c.writeState(t, namespace, name, states[name])
			}
			leases := c.kube.CoordinationV1().Leases(namespace)
			lease, err := leases.Get(t.Context(), "secretmanager-rotation", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			holder, seconds := "a run", int32(120)
			lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds = &holder, &seconds
			lease, err = leases.Update(t.Context(), lease, metav1.UpdateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			apply()
			for name, data := range states {
				after, err := c.kube.CoreV1().ConfigMaps(namespace).Get(t.Context(), name, metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if diff := gocmp.Diff(data, after.Data); diff != "" {
					t.Errorf("the ConfigMap %s (-before +after):\n%s", name, diff)
				}
			}
			leased, err := leases.Get(t.Context(), "secretmanager-rotation", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(lease.Spec, leased.Spec); diff != "" {
				t.Errorf("the Lease (-before +after):\n%s", diff)
			}
		})
	}
}

// writeState replaces the data of a ConfigMap of the rotator's state, as a run does: it must exist.
func (c *cluster) writeState(t *testing.T, namespace, name string, data map[string]string) {
	t.Helper()
	state, err := c.kube.CoreV1().ConfigMaps(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	state.Data = data
	if _, err := c.kube.CoreV1().ConfigMaps(namespace).Update(t.Context(), state, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

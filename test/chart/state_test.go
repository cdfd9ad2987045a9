package chart

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

// TestApplyKeepsState: who applies manifests/rotator/state.yaml again, in either way of
// kubectl, does not reset what the rotator has written since. For Helm it is
// TestInstallUpgradeUninstall.
func TestApplyKeepsState(t *testing.T) {
	c := newCluster(t)
	kubectl, err := programs.Path(t.Context(), "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"", "--server-side"} {
		t.Run("kubectl apply "+how, func(t *testing.T) {
			namespace := "state" + how
			c.api.CreateNamespace(t, namespace)
			apply := func() {
				t.Helper()
				args := []string{"--kubeconfig", c.Kubeconfig, "-n", namespace, "apply", "-f", filepath.Join(root(t), "manifests", "rotator", "state.yaml")}
				if how != "" {
					args = append(args, how)
				}
				if out, err := exec.CommandContext(t.Context(), kubectl, args...).CombinedOutput(); err != nil {
					t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
				}
			}
			apply()
			state, err := c.kube.CoreV1().ConfigMaps(namespace).Get(t.Context(), "secretmanager-rotation", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			state.Data = map[string]string{"run": "{}", "transit__app": "{}"}
			if _, err := c.kube.CoreV1().ConfigMaps(namespace).Update(t.Context(), state, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			lease, err := c.kube.CoordinationV1().Leases(namespace).Get(t.Context(), "secretmanager-rotation", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			holder, seconds := "a run", int32(120)
			lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds = &holder, &seconds
			if lease, err = c.kube.CoordinationV1().Leases(namespace).Update(t.Context(), lease, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			apply()
			after, err := c.kube.CoreV1().ConfigMaps(namespace).Get(t.Context(), "secretmanager-rotation", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(state.Data, after.Data); diff != "" {
				t.Errorf("the ConfigMap (-before +after):\n%s", diff)
			}
			leased, err := c.kube.CoordinationV1().Leases(namespace).Get(t.Context(), "secretmanager-rotation", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(lease.Spec, leased.Spec); diff != "" {
				t.Errorf("the Lease (-before +after):\n%s", diff)
			}
		})
	}
}

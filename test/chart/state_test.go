package chart

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

// TestInstallOverState installs a release where somebody has created the rotator's state, and rotated by hand. The
// release uses the state as it is, and does not delete it. A state of another release is an error.
func TestInstallOverState(t *testing.T) {
	c := newCluster(t)
	c.setDriver(t, validDriver(t))
	kubectl, err := programs.Path(t.Context(), "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	const namespace, values = "by-hand", "rotator: {cluster: true, transitKeys: [matrix]}"
	c.api.CreateNamespace(t, namespace)
	file := filepath.Join(root(t), "manifests", "rotator", "state.yaml")
	out, err := exec.CommandContext(t.Context(), kubectl, "--kubeconfig", c.Kubeconfig, "-n", namespace, "apply", "-f",
		file).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
	for _, name := range rotator.StateNames() {
		c.writeState(t, namespace, name, map[string]string{"manual": name})
	}
	t.Cleanup(func() { c.deleteState(t, namespace) })
	check := func(when string) {
		t.Helper()
		for _, name := range rotator.StateNames() {
			m, err := c.kube.CoreV1().ConfigMaps(namespace).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil || m.Data["manual"] != name || m.Annotations["meta.helm.sh/release-name"] != "" {
				t.Errorf("%s: ConfigMap %s: %v, %v, %v", when, name, err, m.Data, m.Annotations)
			}
		}
		if _, err := c.kube.CoordinationV1().Leases(namespace).Get(t.Context(), "secretmanager-rotation",
			metav1.GetOptions{}); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	for _, action := range []string{"install", "upgrade"} {
		if _, err := c.Apply(t.Context(), action, "secretmanager", namespace, values); err != nil {
			t.Fatal(err)
		}
		check(action)
	}
	if _, err := c.Run(t.Context(), "uninstall", "secretmanager", "--namespace", namespace); err != nil {
		t.Fatal(err)
	}
	check("uninstall")

	c.deleteState(t, namespace)
	if _, err := c.Apply(t.Context(), "install", "secretmanager", namespace, values); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Run(context.WithoutCancel(t.Context()), "uninstall", "secretmanager", "--namespace", namespace,
			"--ignore-not-found")
	})
	_, err = c.Apply(t.Context(), "install", "second", namespace, values)
	if err == nil || !strings.Contains(err.Error(), "secretmanager-rotation") {
		t.Errorf("a second release with the same state: %v", err)
	}
}

// deleteState deletes the rotator's state of a namespace.
func (c *cluster) deleteState(t *testing.T, namespace string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for _, name := range rotator.StateNames() {
		err := c.kube.CoreV1().ConfigMaps(namespace).Delete(ctx, name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
	err := c.kube.CoordinationV1().Leases(namespace).Delete(ctx, rotator.StateName, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
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

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
)

const (
	syncMultiple = "read secret from pod, read K8s secret, read env var, check secret ownerReferences with " +
		"multiple owners"
	syncOne        = "read secret from pod, read K8s secret, read env var, check secret ownerReferences"
	namespacedTest = "Test Namespaced scope SecretProviderClass - "
)

// sync tests two Deployments that use the same copy in a Kubernetes Secret.
func (d *driverFixture) sync() []driverCase {
	return []driverCase{
		{"Sync with K8s secrets - create deployment", func(t *testing.T) {
			d.setUpVault(t)
			apply(t, d.class("v1", "matrix", "copy"))
			d.deploy(t, "one", syncedClass{"matrix", "copy"})
			d.deploy(t, "two", syncedClass{"matrix", "copy"})
			d.waitDeployed(t, "one", "two")
		}},
		{"Sync with K8s secrets - " + syncMultiple, func(t *testing.T) {
			for _, name := range []string{"one", "two"} {
				d.checkSynced(t, d.podOf(t, name), 0, d.token())
			}
			d.checkCopy(t, "copy", d.token())
			d.waitOwners(t, "copy", "ReplicaSet", "one", "two")
		}},
		{"Sync with K8s secrets - delete deployment, check owner ref updated, check secret deleted", func(t *testing.T) {
			d.undeploy(t, "one")
			d.waitOwners(t, "copy", "ReplicaSet", "two")
			d.checkCopy(t, "copy", d.token())
			d.undeploy(t, "two")
			d.waitNoSecret(t, "copy")
		}},
	}
}

// namespaces tests classes of the same name with different content in two namespaces,
// and a pod in a third namespace without a class.
func (d *driverFixture) namespaces() []driverCase {
	var second *driverFixture
	return []driverCase{
		{namespacedTest + "create deployment", func(t *testing.T) {
			d.setUpVault(t)
			apply(t, d.class("v1", "matrix", "copy"))
			second = newDriverFixture(d.test)
			second.setUpVault(t)
			apply(t, second.class("v1", "matrix", "copy"))
			second.deploy(t, "one", syncedClass{"matrix", "copy"})
			second.waitDeployed(t, "one")
		}},
		{namespacedTest + "Sync with K8s secrets - " + syncOne, func(t *testing.T) {
			second.checkSynced(t, second.podOf(t, "one"), 0, second.token())
			second.checkCopy(t, "copy", second.token())
			second.waitOwners(t, "copy", "ReplicaSet", "one")
			d.checkSecrets(t, secretName) // and nothing in the other one
		}},
		{namespacedTest + "Sync with K8s secrets - delete deployment, check secret deleted", func(t *testing.T) {
			second.undeploy(t, "one")
			second.waitNoSecret(t, "copy")
		}},
		{namespacedTest + "Should fail when no secret provider class in same namespace", func(t *testing.T) {
			third := newDriverFixture(d.test)
			third.setUpVault(t)
			third.deploy(t, "one", syncedClass{"matrix", "copy"})
			third.checkStuck(t, third.podOf(t, "one"), "failed to get secretproviderclass "+third.namespace+"/matrix",
				"not found")
			third.checkSecrets(t, secretName)
		}},
	}
}

// severalClasses tests a pod with volumes of two classes.
func (d *driverFixture) severalClasses() []driverCase {
	return []driverCase{
		{"deploy multiple secretproviderclass crd", func(t *testing.T) {
			d.setUpVault(t)
			for _, n := range []string{"0", "1"} {
				apply(t, d.class("v1", "matrix-"+n, "copy-"+n))
				d.checkClass(t, "matrix-"+n)
			}
		}},
		{"deploy pod with multiple secret provider class", func(t *testing.T) {
			_, err := shared.Client.CoreV1().Pods(d.namespace).Create(t.Context(), &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "app"},
				Spec:       syncedPod(syncedClass{"matrix-0", "copy-0"}, syncedClass{"matrix-1", "copy-1"}),
			}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := shared.WaitPod(t.Context(), d.namespace, "app"); err != nil {
				t.Fatal(err)
			}
		}},
		{"CSI inline volume test with multiple secret provider class", func(t *testing.T) {
			for n := range 2 {
				copied := fmt.Sprintf("copy-%d", n)
				d.checkSynced(t, "app", n, d.token())
				d.checkCopy(t, copied, d.token())
				// A pod without an owner does not own the Secret. The SecretProviderClassPodStatus does.
				status := d.waitPodStatus(t, "app", fmt.Sprintf("matrix-%d", n))
				d.waitOwners(t, copied, status.GetKind(), status.GetName())
			}
			if err := shared.Client.CoreV1().Pods(d.namespace).Delete(t.Context(), "app", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			d.waitNoSecret(t, "copy-0")
			d.waitNoSecret(t, "copy-1")
		}},
	}
}

// rotation tests a new value in the files and in their copy. inlineVolume tests it without a copy.
func (d *driverFixture) rotation() []driverCase {
	return []driverCase{
		{"Test auto rotation of mount contents and K8s secrets - Create deployment", func(t *testing.T) {
			d.setUpVault(t)
			apply(t, d.class("v1", "matrix", "copy"))
			d.pod(t, "app")
			d.waitReady(t, "app")
		}},
		{"Test auto rotation of mount contents and K8s secrets", func(t *testing.T) {
			d.checkText(t, "app", "/secrets", d.token())
			d.waitCopy(t, "copy", d.token())
			rotated := d.token() + "-" + secondToken
			d.change(t, rotated)
			d.waitText(t, "app", rotated)
			d.checkText(t, "app", "/secrets", rotated)
			d.waitCopy(t, "copy", rotated)
			d.checkCopy(t, "copy", rotated)
			d.checkStarted(t, "app", withFiles) // and not again
		}},
	}
}

// syncedClass is a class, and the Secret to which its files are copied.
type syncedClass struct{ class, copied string }

// syncedPod returns a pod that mounts classes at /secrets-0, /secrets-1 and so on, and has
// the values of the copies in its environment.
func syncedPod(classes ...syncedClass) corev1.PodSpec {
	app := corev1.Container{Name: "app", Image: shared.Images.App, Command: []string{"sleep", "infinity"}}
	spec := corev1.PodSpec{ServiceAccountName: "matrix", AutomountServiceAccountToken: new(false),
		TerminationGracePeriodSeconds: new(int64(0))}
	for n, c := range classes {
		volume := fmt.Sprintf("secrets-%d", n)
		app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: volume, MountPath: "/" + volume, ReadOnly: true})
		app.Env = append(app.Env, corev1.EnvVar{Name: fmt.Sprintf("SECRET_USERNAME_%d", n), ValueFrom: &corev1.EnvVarSource{
			SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: c.copied},
				Key: "username"},
		}})
		spec.Volumes = append(spec.Volumes,
			corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
				Driver: cluster.Driver, ReadOnly: new(true),
				VolumeAttributes:     map[string]string{"secretProviderClass": c.class},
				NodePublishSecretRef: &corev1.LocalObjectReference{Name: secretName},
			}}})
	}
	spec.Containers = []corev1.Container{app}
	return spec
}

// deploy creates a Deployment with one such pod.
func (d *driverFixture) deploy(t *testing.T, name string, classes ...syncedClass) {
	t.Helper()
	labels := map[string]string{"app": name}
	_, err := shared.Client.AppsV1().Deployments(d.namespace).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: syncedPod(classes...)},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (d *driverFixture) waitDeployed(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := shared.WaitDeployment(t.Context(), d.namespace, name); err != nil {
			t.Fatal(err)
		}
	}
}

func (d *driverFixture) undeploy(t *testing.T, name string) {
	t.Helper()
	if err := shared.Client.AppsV1().Deployments(d.namespace).
		Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// podOf returns the name of the only pod of a Deployment.
func (d *driverFixture) podOf(t *testing.T, deployment string) (pod string) {
	t.Helper()
	d.wait(t, "the pod of "+deployment, func(ctx context.Context) (bool, string, error) {
		pods, err := shared.Client.CoreV1().Pods(d.namespace).
			List(ctx, metav1.ListOptions{LabelSelector: "app=" + deployment})
		if err != nil || len(pods.Items) != 1 {
			return false, "", err
		}
		pod = pods.Items[0].Name
		return true, "", nil
	})
	return pod
}

// checkSynced checks the files and the environment of a pod, for its nth class.
func (d *driverFixture) checkSynced(t *testing.T, pod string, n int, token string) {
	t.Helper()
	d.checkText(t, pod, fmt.Sprintf("/secrets-%d", n), token)
	d.checkKey(t, pod, fmt.Sprintf("/secrets-%d", n))
	if got := d.sh(t, pod, fmt.Sprintf(`printf %%s "$SECRET_USERNAME_%d"`, n)); got != token {
		t.Errorf("%s has %q in its environment, want %q", pod, got, token)
	}
}

// checkCopy checks a Secret that the driver created.
func (d *driverFixture) checkCopy(t *testing.T, name, token string) {
	t.Helper()
	secret := d.secret(t, name)
	if string(secret.Data["username"]) != token || string(secret.Data["nested"]) != password || len(secret.Data) != 2 ||
		secret.Type != corev1.SecretTypeOpaque {
		t.Errorf("Secret %s is of type %s and has %q", name, secret.Type, secret.Data)
	}
	if secret.Labels["environment"] != "test" || secret.Labels["secrets-store.csi.k8s.io/managed"] != "true" {
		t.Errorf("Secret %s has the labels %q", name, secret.Labels)
	}
	if secret.Annotations["example.org/team"] != "zion" {
		t.Errorf("Secret %s has the annotations %q", name, secret.Annotations)
	}
}

// waitCopy waits until the driver has copied the token.
func (d *driverFixture) waitCopy(t *testing.T, name, token string) {
	t.Helper()
	d.wait(t, "the copy in Secret "+name, func(ctx context.Context) (bool, string, error) {
		secret, err := shared.Client.CoreV1().Secrets(d.namespace).Get(ctx, name, getOptions)
		if err != nil {
			return false, "", err
		}
		return string(secret.Data["username"]) == token, "another value", nil
	})
}

// waitOwners waits until objects of a kind whose names have the prefixes own a Secret.
func (d *driverFixture) waitOwners(t *testing.T, name, kind string, prefixes ...string) {
	t.Helper()
	d.wait(t, fmt.Sprintf("Secret %s to belong to %q", name, prefixes), func(ctx context.Context) (bool, string, error) {
		secret, err := shared.Client.CoreV1().Secrets(d.namespace).Get(ctx, name, getOptions)
		if err != nil {
			return false, "", err
		}
		var owners []string
		matched := 0
		for _, owner := range secret.OwnerReferences {
			owners = append(owners, owner.Kind+"/"+owner.Name)
			for _, prefix := range prefixes {
				if owner.Kind == kind && strings.HasPrefix(owner.Name, prefix) {
					matched++
				}
			}
		}
		return matched == len(prefixes) && len(owners) == matched, fmt.Sprintf("it belongs to %q", owners), nil
	})
}

// waitNoSecret waits until a Secret is deleted.
func (d *driverFixture) waitNoSecret(t *testing.T, name string) {
	t.Helper()
	d.wait(t, "Secret "+name+" to be deleted", func(ctx context.Context) (bool, string, error) {
		_, err := shared.Client.CoreV1().Secrets(d.namespace).Get(ctx, name, getOptions)
		return apierrors.IsNotFound(err), "it is there", nil
	})
}

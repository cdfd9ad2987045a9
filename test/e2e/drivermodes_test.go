package e2e

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
)

// TestTokensInSecrets mounts with a driver to which the kubelet passes the tokens of the pod as secrets, next to the
// Secret that it passes, or alone.
func TestTokensInSecrets(t *testing.T) {
	t.Parallel()
	requireProduct(t)
	driver, err := shared.Client.StorageV1().CSIDrivers().Get(t.Context(), cluster.ThrottledDriver, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if in := driver.Spec.ServiceAccountTokenInSecrets; in == nil || !*in {
		t.Fatal("the API server dropped serviceAccountTokenInSecrets")
	}
	namespace := newNamespace(t)
	f := &fixture{namespace: namespace, key: namespace, driver: cluster.ThrottledDriver}
	f.setUp(t)
	f.encrypt(t)
	f.allowSecret(t)
	apply(t, f.classYAML("matrix", f.role("matrix"), secretName),
		f.podYAML("app", "matrix", "matrix", secretName), f.podYAML("as-pod", "matrix", "matrix", ""))
	f.waitReady(t, "app", "as-pod")
	for _, pod := range []string{"app", "as-pod"} {
		f.checkFiles(t, pod, firstToken)
	}
}

// TestWithoutRepublish mounts with a driver that does not repeat mounts, as docs/distributions.md describes: a pod
// keeps the values with which it started, also after a rotation, and a new pod gets the new ones.
func TestWithoutRepublish(t *testing.T) {
	t.Parallel()
	requireProduct(t)
	namespace := newNamespace(t)
	f := &fixture{namespace: namespace, key: namespace, driver: cluster.PlainDriver}
	f.setUp(t)
	f.encrypt(t)
	apply(t, f.classYAML("matrix", f.role("matrix"), secretName), f.podYAML("old", "matrix", "matrix", secretName))
	f.waitReady(t, "old")
	f.checkFiles(t, "old", firstToken)
	before, err := f.mounts(t.Context(), "old")
	if err != nil {
		t.Fatal(err)
	}

	command(t, f.author, shared.Kubeconfig, "encrypt", secretName, "-n", f.namespace, "--transit-key", f.key,
		"--from-literal", "api-token="+secondToken)
	f.allowRotator(t)
	runRotator(t, namespace, "--transit-key="+f.key, "--namespace="+namespace, "--rotate=always", "--settle=0s")
	apply(t, f.podYAML("new", "matrix", "matrix", secretName))
	f.waitReady(t, "new")
	f.checkFiles(t, "new", secondToken)
	f.checkFiles(t, "old", firstToken)
	if after, err := f.mounts(t.Context(), "old"); err != nil || after != before {
		t.Errorf("the volume of the old pod was mounted %d times, and then %d times, %v", before, after, err)
	}
}

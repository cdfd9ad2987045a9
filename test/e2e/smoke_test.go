package e2e

import (
	"context"
	"net/http"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A class of a missing provider: the event shows that kubelet and driver work together,
// and that the pod's events have the driver's errors.
func TestMissingProvider(t *testing.T) {
	ctx := t.Context()
	namespace := newNamespace(t)
	err := shared.ApplyYAML(ctx, `
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: nobody, namespace: `+namespace+`}
spec:
  provider: nobody
  parameters: {secretName: nothing} # the driver wants at least one
---
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: `+namespace+`}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: `+shared.Images.App+`
    command: [sleep, infinity]
    volumeMounts: [{name: secrets, mountPath: /secrets}]
  volumes:
  - name: secrets
    csi:
      driver: secrets-store.csi.k8s.io
      readOnly: true
      volumeAttributes: {secretProviderClass: nobody}
`)
	if err != nil {
		t.Fatal(err)
	}
	event, err := shared.WaitPodEvent(ctx, namespace, "app", time.Minute, "provider not found", `"nobody"`)
	if err != nil {
		t.Fatal(err)
	}
	if event.Reason != "FailedMount" {
		t.Errorf("the event's reason is %s, want FailedMount", event.Reason)
	}
	t.Logf("event: %s", event.Message)
}

// A pod runs, and reads its token from the kubelet.
func TestPodRuns(t *testing.T) {
	ctx := t.Context()
	namespace := newNamespace(t)
	err := shared.ApplyYAML(ctx, `
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: `+namespace+`}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: `+shared.Images.App+`
    command: [sleep, infinity]
`)
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.WaitPod(ctx, namespace, "app"); err != nil {
		t.Fatal(err)
	}
	// Names resolve, and Services lead to their pods.
	health, err := shared.Exec(ctx, namespace, "app", "", "wget", "-q", "-O", "-", shared.Vault.Inside+"/v1/sys/health")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("Vault, from a pod: %s", health)
}

// Vault is reachable, and has the API server review the token of a service account.
func TestVaultTrustsCluster(t *testing.T) {
	ctx := t.Context()
	namespace := newNamespace(t)
	vault := shared.Vault
	role := "auth/kubernetes/role/" + namespace
	err := vault.Do(ctx, http.MethodPost, role, map[string]any{
		"bound_service_account_names": "default", "bound_service_account_namespaces": namespace, "audience": "vault",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := shared.Token(ctx, namespace, "default", "vault")
	if err != nil {
		t.Fatal(err)
	}
	var response struct {
		Auth struct {
			Metadata map[string]string `json:"metadata"`
		} `json:"auth"`
	}
	err = vault.Do(ctx, http.MethodPost, "auth/kubernetes/login", map[string]any{"role": namespace, "jwt": token},
		&response)
	if err != nil {
		t.Fatal(err)
	}
	if got := response.Auth.Metadata["service_account_namespace"]; got != namespace {
		t.Errorf("Vault takes the token for one of namespace %q, want %q", got, namespace)
	}
}

// newNamespace creates a namespace for the test, and deletes it after the test, unless the
// test failed.
func newNamespace(t *testing.T) string {
	t.Helper()
	namespace, err := shared.NewNamespace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		ctx := context.WithoutCancel(t.Context())
		if err := shared.Client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}); err != nil {
			t.Errorf("deleting the namespace: %v", err)
		}
	})
	return namespace
}

package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
)

// fixture is a namespace with an app, its author, its key and its Secret.
type fixture struct {
	namespace string
	key       string // transit key, named as the namespace
	author    string // Vault token of the author
	provider  string // empty: the installed one
	driver    string // empty: cluster.Driver
}

const (
	secretName  = "matrix-secrets"
	jsonText    = `{"database": {"user": "neo", "password": "there-is-no-spoon"}}`
	password    = "there-is-no-spoon"
	firstToken  = "follow-the-white-rabbit"
	secondToken = "knock-knock"
)

// role returns the name that vault-setup gives to the role of a service account in a
// namespace with a hyphen.
func (f *fixture) role(account string) string { return f.namespace + "_" + account }

// classYAML returns the class of the story for a Secret.
func (f *fixture) classYAML(name, role, secret string) string {
	return fmt.Sprintf(`
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: %s, namespace: %s}
spec:
  provider: %s
  parameters:
    roleName: %s
    secretName: %s
    transitKey: %s
    objects: |
      - objectName: secrets.json
      - objectName: api-token
        filePermission: "0440"
      - objectName: db/password
        secretKey: secrets.json
        field: database.password
        filePermission: "0600"
  secretObjects:
  - secretName: %s-synced
    type: Opaque
    data: [{objectName: api-token, key: token}]
`, name, f.namespace, cmp.Or(f.provider, "secretmanager"), role, secret, f.key, name)
}

// The output of a container when it starts: see podYAML.
const (
	withFiles    = "FILES\n"
	withoutFiles = "EMPTY\n"
)

// podYAML returns a pod that mounts a class, and prints whether the files existed when
// it started. If a Secret is given, the kubelet passes the ciphertext; otherwise the
// provider reads it as the pod.
func (f *fixture) podYAML(name, account, class, fromKubelet string) string {
	ref := ""
	if fromKubelet != "" {
		ref = "nodePublishSecretRef: {name: " + fromKubelet + "}"
	}
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  serviceAccountName: %s
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: %s
    command: [sh, -c, "if test -s /secrets/api-token; then echo FILES; else echo EMPTY; fi; exec sleep infinity"]
    volumeMounts: [{name: secrets, mountPath: /secrets, readOnly: true}]
  volumes:
  - name: secrets
    csi:
      driver: %s
      readOnly: true
      volumeAttributes: {secretProviderClass: %s}
      %s
`, name, f.namespace, account, shared.Images.App, cmp.Or(f.driver, cluster.Driver), class, ref)
}

// apply applies manifests.
func apply(t *testing.T, manifests ...string) {
	t.Helper()
	if err := shared.ApplyYAML(t.Context(), strings.Join(manifests, "\n---\n")); err != nil {
		t.Fatal(err)
	}
}

// setUpLock serializes vault-setup: each run adds its policy to the rotator's role, which
// Vault can only replace as a whole.
var setUpLock sync.Mutex

// setUp runs vault-setup for the namespace.
func (f *fixture) setUp(t *testing.T) {
	t.Helper()
	setUpLock.Lock()
	defer setUpLock.Unlock()
	createServiceAccount(t, f.namespace, "matrix")
	createServiceAccount(t, f.namespace, "author")
	command(t, shared.Vault.Token, "", "vault-setup", "--apply", "--transit-key", f.key, "-n", f.namespace,
		"--service-account", "matrix", "--author-service-account", f.namespace+"/author", "--retire")
	f.author = vaultLogin(t, f.namespace, "author", f.role("author"))
}

// encryptArgs returns the arguments of the command that creates the Secret.
func (f *fixture) encryptArgs(t *testing.T) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secrets.json")
	if err := os.WriteFile(file, []byte(jsonText), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"encrypt", secretName, "-n", f.namespace, "--transit-key", f.key, "--from-file", file,
		"--from-literal", "api-token=" + firstToken}
}

// secret reads a Secret of the namespace.
func (f *fixture) secret(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	s, err := shared.Client.CoreV1().Secrets(f.namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// allowSecret allows the service account of the pods to read the Secret, for volumes without nodePublishSecretRef.
func (f *fixture) allowSecret(t *testing.T) {
	t.Helper()
	apply(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: matrix-ciphertext, namespace: `+f.namespace+`}
rules:
- {apiGroups: [""], resources: [secrets], resourceNames: [`+secretName+`], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: matrix-ciphertext, namespace: `+f.namespace+`}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: matrix-ciphertext}
subjects: [{kind: ServiceAccount, name: matrix}]
`)
}

// allowRotator gives the rotator its rights in the namespace.
func (f *fixture) allowRotator(t *testing.T) {
	t.Helper()
	err := shared.ApplyKustomization(t.Context(), "../../manifests/rotator/namespace", inNamespace(f.namespace))
	if err != nil {
		t.Fatal(err)
	}
}

// sh runs a shell command in a pod.
func (f *fixture) sh(t *testing.T, pod, script string) string {
	t.Helper()
	out, err := shared.Exec(t.Context(), f.namespace, pod, "", "sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// checkFiles checks the files of a pod.
func (f *fixture) checkFiles(t *testing.T, pod, apiToken string) {
	t.Helper()
	for file, want := range map[string]string{"secrets.json": jsonText, "api-token": apiToken, "db/password": password} {
		if got := f.sh(t, pod, "cat /secrets/"+file); got != want {
			t.Errorf("%s reads %q in %s, want %q", pod, got, file, want)
		}
	}
	want := "644 440 600\n"
	if got := f.sh(t, pod, "cd /secrets && echo $(stat -L -c %a secrets.json api-token db/password)"); got != want {
		t.Errorf("%s: modes %q, want %q", pod, got, want)
	}
}

// waitReady waits until pods are ready, and checks that each started once, with its files.
func (f *fixture) waitReady(t *testing.T, pods ...string) {
	t.Helper()
	for _, pod := range pods {
		if err := shared.WaitPod(t.Context(), f.namespace, pod); err != nil {
			t.Fatal(err)
		}
		f.checkStarted(t, pod, withFiles)
	}
}

// checkStarted checks the output of the pod's container when it started.
func (f *fixture) checkStarted(t *testing.T, pod, want string) {
	t.Helper()
	var got string
	// A container is ready before its first output is in the log.
	err := cluster.Wait(t.Context(), time.Minute, "output of Pod "+pod, func(ctx context.Context) (bool, string, error) {
		var err error
		got, err = shared.Logs(ctx, f.namespace, pod, "")
		return got != "", "none", err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("%s printed %q, want %q", pod, got, want)
	}
	p, err := shared.Client.CoreV1().Pods(f.namespace).Get(t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n := p.Status.ContainerStatuses[0].RestartCount; n != 0 {
		t.Errorf("%s was restarted %d times", pod, n)
	}
}

// podStatus reads the SecretProviderClassPodStatus of a pod's volume.
func (f *fixture) podStatus(ctx context.Context, pod, class string) (*unstructured.Unstructured, error) {
	resource := schema.GroupVersionResource{Group: "secrets-store.csi.x-k8s.io", Version: "v1",
		Resource: "secretproviderclasspodstatuses"}
	return shared.Dynamic.Resource(resource).Namespace(f.namespace).
		Get(ctx, pod+"-"+f.namespace+"-"+class, metav1.GetOptions{})
}

// waitPodStatus waits until the driver has mounted a pod's volume.
func (f *fixture) waitPodStatus(t *testing.T, pod, class string) (status *unstructured.Unstructured) {
	t.Helper()
	err := cluster.Wait(t.Context(), 5*time.Minute, "the driver to mount the volume of "+pod,
		func(ctx context.Context) (done bool, seen string, err error) {
			status, err = f.podStatus(ctx, pod, class)
			return err == nil, "", err
		})
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// objectVersions reads the object versions of a pod's volume from the driver's status.
func (f *fixture) objectVersions(t *testing.T, pod, class string) map[string]string {
	t.Helper()
	status, err := f.podStatus(t.Context(), pod, class)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(status.Object["status"])
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Objects []struct{ ID, Version string }
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, o := range s.Objects {
		versions[o.ID] = o.Version
	}
	if len(versions) != 3 {
		t.Fatalf("the driver keeps %d object versions of %s, want three: %s", len(versions), pod, text)
	}
	return versions
}

// mounts counts the mounts of a pod in the provider's log, which at debug level includes
// repeated mounts without a change.
func (f *fixture) mounts(ctx context.Context, pod string) (int, error) {
	pods, err := shared.Client.CoreV1().Pods(system).
		List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=secretmanager-provider"})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, p := range pods.Items {
		log, err := shared.Logs(ctx, system, p.Name, "")
		if err != nil {
			return 0, err
		}
		for line := range strings.SplitSeq(log, "\n") {
			var record struct{ Namespace, Pod, Error string }
			if json.Unmarshal([]byte(line), &record) == nil && record.Namespace == f.namespace && record.Pod == pod &&
				record.Error == "" {
				n++
			}
		}
	}
	return n, nil
}

// waitRepublish waits until the kubelet has repeated the mount of a pod.
func (f *fixture) waitRepublish(t *testing.T, pod string) {
	t.Helper()
	before, err := f.mounts(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	// Two, because the first may have begun before the caller's last action.
	err = cluster.Wait(t.Context(), 5*time.Minute, "two republishes of "+pod,
		func(ctx context.Context) (bool, string, error) {
			now, err := f.mounts(ctx, pod)
			return now >= before+2, fmt.Sprintf("%d mounts, %d before", now, before), err
		})
	if err != nil {
		t.Fatal(err)
	}
}

// checkStuck checks that a pod waits in ContainerCreating with an event that has
// all the texts, and that no container of it has ever started.
func (f *fixture) checkStuck(t *testing.T, pod string, texts ...string) {
	t.Helper()
	event, err := shared.WaitPodEvent(t.Context(), f.namespace, pod, time.Minute, texts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %s", pod, event.Message)
	f.checkWaiting(t, pod)
}

// checkWaiting checks that no container of the pod has ever started.
func (f *fixture) checkWaiting(t *testing.T, pod string) {
	t.Helper()
	p, err := shared.Client.CoreV1().Pods(f.namespace).Get(t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if p.Status.Phase != corev1.PodPending {
		t.Errorf("%s is %s", pod, p.Status.Phase)
	}
	// With init containers, of which none has started either, it is PodInitializing.
	before := []string{"ContainerCreating", "PodInitializing"}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if c.State.Waiting == nil || !slices.Contains(before, c.State.Waiting.Reason) || c.RestartCount > 0 {
			t.Errorf("container %s of %s: %+v", c.Name, pod, c.State)
		}
	}
}

// keyInfo reads the transit key.
func (f *fixture) keyInfo(t *testing.T) (info struct {
	Derived bool `json:"derived"`
	Latest  int  `json:"latest_version"`
	MinDec  int  `json:"min_decryption_version"`
}) {
	t.Helper()
	response := struct{ Data any }{&info}
	if err := shared.Vault.Do(t.Context(), http.MethodGet, "transit/keys/"+f.key, nil, &response); err != nil {
		t.Fatal(err)
	}
	return info
}

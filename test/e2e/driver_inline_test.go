package e2e

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
)

var (
	classes = schema.GroupVersionResource{Group: "secrets-store.csi.x-k8s.io", Version: "v1",
		Resource: "secretproviderclasses"}
	getOptions metav1.GetOptions
)

func base64Text(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// inlineVolume tests a pod with a volume, from its start until all its traces are
// deleted. Its provider has memory for one response.
func (d *driverFixture) inlineVolume() []driverCase {
	return []driverCase{
		{"install provider", func(t *testing.T) {
			d.provider = d.namespace
			d.own = newProvider(t, d.provider, "--republish-cache-bytes=3Ki")
			d.own.start(d.test)
		}},
		{"setup vault", d.setUpVault},
		{"deploy secretproviderclass crd", func(t *testing.T) {
			apply(t, d.class("v1", "matrix", ""))
			d.checkClass(t, "matrix")
		}},
		{"CSI inline volume test with pod portability", func(t *testing.T) {
			d.pod(t, "app")
			d.waitReady(t, "app")
		}},
		{"CSI inline volume test with pod portability - read secret from pod",
			func(t *testing.T) { d.checkText(t, "app", "/secrets", d.token()) }},
		{"CSI inline volume test with pod portability - read key from pod",
			func(t *testing.T) { d.checkKey(t, "app", "/secrets") }},
		{"CSI inline volume test with pod portability - rotation succeeds", func(t *testing.T) {
			d.change(t, d.token()+"-"+secondToken)
			d.waitText(t, "app", d.token()+"-"+secondToken)
			d.checkText(t, "app", "/secrets", d.token()+"-"+secondToken)
			d.checkKey(t, "app", "/secrets")
			d.checkStarted(t, "app", withFiles) // and not again
			d.checkSecrets(t, secretName)
		}},
		{"Validate metrics", d.validateMetrics},
		{"CSI inline volume test with pod portability - unmount succeeds", d.unmount},
	}
}

func (d *driverFixture) inlineVolumeV1alpha1() []driverCase {
	return []driverCase{
		{"[v1alpha1] deploy secretproviderclass crd", func(t *testing.T) {
			d.setUpVault(t)
			apply(t, d.class("v1alpha1", "matrix", ""))
			d.checkClass(t, "matrix")
		}},
		{"[v1alpha1] CSI inline volume test with pod portability", func(t *testing.T) {
			d.pod(t, "app")
			d.waitReady(t, "app")
		}},
		{"[v1alpha1] CSI inline volume test with pod portability - read secret from pod",
			func(t *testing.T) { d.checkText(t, "app", "/secrets", d.token()) }},
		{"[v1alpha1] CSI inline volume test with pod portability - read key from pod",
			func(t *testing.T) { d.checkKey(t, "app", "/secrets") }},
	}
}

// checkSecrets checks which Secrets the namespace has: without secretObjects in the
// class, no plaintext is sent to the API server.
func (d *driverFixture) checkSecrets(t *testing.T, want ...string) {
	t.Helper()
	list, err := shared.Client.CoreV1().Secrets(d.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, secret := range list.Items {
		names = append(names, secret.Name)
	}
	if fmt.Sprint(names) != fmt.Sprint(want) {
		t.Errorf("the namespace has the Secrets %q, want %q", names, want)
	}
}

// validateMetrics checks the driver's metrics of our provider, and the provider's own.
func (d *driverFixture) validateMetrics(t *testing.T) {
	pods, err := shared.Client.CoreV1().Pods(cluster.DriverNamespace).
		List(t.Context(), metav1.ListOptions{LabelSelector: cluster.DriverSelector})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d pods of the driver, %v", len(pods.Items), err)
	}
	text := metrics(t, cluster.DriverNamespace, pods.Items[0].Name, 8095)
	for _, name := range []string{"node_publish_total", "node_unpublish_total", "rotation_reconcile_total"} {
		if !strings.Contains(text, name) {
			t.Errorf("the driver has no metric %s", name)
		}
	}
	if published := regexp.MustCompile(`(?m)^\w*node_publish_total\{[^}]*provider="` + d.own.name +
		`"[^}]*\} [1-9]`); !published.MatchString(text) {
		t.Errorf("the driver has not counted a mount by provider %s", d.own.name)
	}
	if n := d.metric(t, `secretmanager_provider_mounts_total{reason="OK",result="success"}`); n < 2 {
		t.Errorf("the provider has counted %d mounts", n)
	}
}

// metrics reads the metrics of a pod through the API server.
func metrics(t *testing.T, namespace, pod string, port int) string {
	t.Helper()
	text, err := shared.Client.CoreV1().RESTClient().Get().Namespace(namespace).Resource("pods").
		Name(fmt.Sprintf("%s:%d", pod, port)).SubResource("proxy").Suffix("metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatalf("reading the metrics of %s: %v\n%s", pod, err, text)
	}
	return string(text)
}

// metric reads a metric of the scenario's own provider.
func (d *driverFixture) metric(t *testing.T, series string) int {
	t.Helper()
	pods, err := d.own.pods(t.Context())
	if err != nil || len(pods) != 1 {
		t.Fatalf("%d pods of the provider, %v", len(pods), err)
	}
	for line := range strings.Lines(metrics(t, system, pods[0].Name, 9090)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatalf("%s is %q", series, value)
			}
			return n
		}
	}
	t.Fatalf("the provider has no metric %s", series)
	return 0
}

// unmount deletes the pod. Only its volume had the plaintext on the node, and afterwards
// nothing has. The provider is not notified: its response stays in memory for ten
// minutes, which tests of the provider check, or until it is evicted.
func (d *driverFixture) unmount(t *testing.T) {
	ctx := t.Context()
	pod, err := shared.Client.CoreV1().Pods(d.namespace).Get(ctx, "app", getOptions)
	if err != nil {
		t.Fatal(err)
	}
	uid := string(pod.UID)
	d.waitPodStatus(t, "app", "matrix")
	where := plaintextOnNode(t, d.token())
	if len(where) != 2 {
		t.Errorf("the token is in %q, want its two files", where)
	}
	for _, file := range where {
		if !strings.HasPrefix(file, "/var/lib/kubelet/pods/"+uid+"/volumes/kubernetes.io~csi/secrets/mount/") {
			t.Errorf("the token is in %s, which is not the pod's volume", file)
		}
	}
	mounts := func() []string { return onNodeLines(t, "grep", "-F", uid, "/proc/mounts") }
	files := func() []string { return onNodeLines(t, "find", "/var/lib/kubelet", "-xdev", "-name", "*"+uid+"*") }
	if len(mounts()) == 0 || len(files()) == 0 {
		t.Error("the volume is not where this test looks for it")
	}

	if err := shared.Client.CoreV1().Pods(d.namespace).Delete(ctx, "app", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	d.wait(t, "the pod to be deleted", func(ctx context.Context) (bool, string, error) {
		_, err := shared.Client.CoreV1().Pods(d.namespace).Get(ctx, "app", getOptions)
		return apierrors.IsNotFound(err), "it is there", nil
	})
	// The kubelet deletes the directory of the pod after the pod.
	d.wait(t, "nothing of the volume to be left", func(ctx context.Context) (bool, string, error) {
		left := slices.Concat(mounts(), files())
		if _, err := d.podStatus(ctx, "app", "matrix"); !apierrors.IsNotFound(err) {
			left = append(left, "SecretProviderClassPodStatus")
		}
		return len(left) == 0, strings.Join(left, "\n"), nil
	})
	if where := plaintextOnNode(t, d.token()); len(where) > 0 {
		t.Errorf("the token is still in %q", where)
	}
	log, err := shared.DriverLog(ctx, cluster.Driver)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, uid) && strings.Contains(line, "failed to clean and unmount target path") {
			t.Errorf("the driver logs: %s", line)
		}
	}

	// The cache has one response before and after, of any pod.
	const kept, evicted = "secretmanager_provider_republish_cache_entries",
		"secretmanager_provider_republish_cache_evictions_total"
	if n, removed := d.metric(t, kept), d.metric(t, evicted); n != 1 || removed != 0 {
		t.Errorf("the provider caches %d responses and has evicted %d, want 1 and 0", n, removed)
	}
	d.pod(t, "next")
	d.waitReady(t, "next")
	if n, removed := d.metric(t, kept), d.metric(t, evicted); n != 1 || removed != 1 {
		t.Errorf("after another pod the provider caches %d responses and has evicted %d, want 1 and 1", n, removed)
	}
}

// onNodeLines runs a command on the node and returns the lines of its output. It is no
// error if the command finds nothing, or a file that was just deleted.
func onNodeLines(t *testing.T, command ...string) []string {
	t.Helper()
	out, err := shared.OnNode(t.Context(), cluster.ControlPlane, command...).Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() >= 125) { // an exit code of Docker
		t.Fatalf("%q on the node: %v", command, err)
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
}

// plaintextOnNode returns the files of the node that contain the text, in all directories
// to which kubelet, driver, provider or API server write.
func plaintextOnNode(t *testing.T, text string) []string {
	t.Helper()
	return onNodeLines(t, "grep", "-rslF", "-D", "skip", "--", text,
		"/etc", "/run", "/tmp", "/var/lib/etcd", "/var/lib/kubelet", "/var/lib/secretmanager", "/var/log")
}

// wait waits for a condition.
func (f *fixture) wait(t *testing.T, what string, condition func(context.Context) (bool, string, error)) {
	t.Helper()
	if err := cluster.Wait(t.Context(), 5*time.Minute, what, condition); err != nil {
		t.Fatal(err)
	}
}

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
)

// restart replaces the pods of a DaemonSet, as `kubectl rollout restart` does, and returns
// when the new ones serve and the old ones are deleted. The stamp is any new text.
func restart(t *testing.T, daemonSet, selector, stamp string) {
	t.Helper()
	old, err := shared.Client.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	patchTemplate(t, daemonSet, stamp)
	if err := shared.WaitDaemonSet(t.Context(), system, daemonSet); err != nil {
		t.Fatal(err)
	}
	err = cluster.Wait(t.Context(), 3*time.Minute, "the replaced pods of "+daemonSet+" to be deleted",
		func(ctx context.Context) (bool, string, error) {
			now, err := shared.Client.CoreV1().Pods(system).List(ctx, metav1.ListOptions{LabelSelector: selector})
			if err != nil {
				return false, "", err
			}
			var left []string
			for _, pod := range now.Items {
				if slices.ContainsFunc(old.Items, func(o corev1.Pod) bool { return o.UID == pod.UID }) {
					left = append(left, pod.Name)
				}
			}
			return len(left) == 0 && len(now.Items) > 0, fmt.Sprintf("%d pods, of which old: %v", len(now.Items), left), nil
		})
	if err != nil {
		t.Fatal(err)
	}
}

func patchTemplate(t *testing.T, daemonSet, stamp string) {
	t.Helper()
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`,
		stamp)
	_, err := shared.Client.AppsV1().DaemonSets(system).
		Patch(t.Context(), daemonSet, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// mountLoad is the input of the program mountload, and its report.
type mountLoad struct {
	Directory string              `json:"directory"`
	Provider  string              `json:"provider"`
	Targets   string              `json:"targets"`
	Rate      int                 `json:"rate"`
	Pods      []map[string]string `json:"pods"`
	Secrets   map[string][]byte   `json:"secrets"`
	Files     map[string]string   `json:"files"`
}

type mountReport struct {
	Cold, Repeated, Fresh, Failed int
	Errors                        []string
	Slowest                       string
}

var mountloadOnNode = sync.OnceValues(func() (string, error) { return onNode("mountload", "test/mountload", ".") })

// TestReplacementUnderLoad replaces the provider three times while the driver's own client
// mounts 50 volumes a second, and checks that none fails. It does not run in parallel,
// because other tests count the provider's mounts.
func TestReplacementUnderLoad(t *testing.T) {
	requireProduct(t)
	f := &fixture{namespace: newNamespace(t)}
	f.key = f.namespace
	f.setUp(t)
	command(t, f.author, shared.Kubeconfig, f.encryptArgs(t)...)

	end := f.startMountLoad(t, cluster.ControlPlane, "secretmanager", 50)

	const selector = "app.kubernetes.io/name=secretmanager-provider"
	for n := range 3 {
		before := f.mountedBy(t, selector)
		restart(t, "secretmanager-provider", selector, fmt.Sprintf("%s-%d", f.namespace, n))
		after := f.waitMountedBy(t, selector)
		for pod := range after {
			if before[pod] > 0 {
				t.Errorf("pod %s is still there", pod)
			}
		}
	}

	end().check(t)
}

// startMountLoad has the driver's own client mount volumes at a rate per second on a node
// with the named provider, and returns when the first is mounted. The returned function
// ends it.
func (f *fixture) startMountLoad(t *testing.T, node, provider string, rate int) (end func() mountReport) {
	t.Helper()
	program, err := mountloadOnNode()
	if err != nil {
		t.Fatal(err)
	}
	load := mountLoad{
		Directory: "/var/run/secrets-store-csi-providers", Provider: provider,
		Targets: "/run/mountload-" + f.namespace, Rate: rate,
		Secrets: f.secret(t, secretName).Data, Files: map[string]string{"secrets.json": jsonText, "api-token": firstToken},
	}
	for n := range 20 {
		load.Pods = append(load.Pods, f.podAttributes(t, fmt.Sprintf("%s-%d", node, n)))
	}
	// It ends when its standard input is closed, also if the test is killed.
	cmd := shared.OnNode(context.WithoutCancel(t.Context()), node, program)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := sync.OnceValue(func() error {
		stdin.Close()
		return cmd.Wait()
	})
	t.Cleanup(func() { ended() })
	if err := json.NewEncoder(stdin).Encode(load); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	if line, err := lines.ReadString('\n'); line != "mounting\n" {
		t.Fatalf("mountload printed %q, %v\n%s", line, err, stderr.String())
	}

	return func() mountReport {
		t.Helper()
		stdin.Close()
		text, err := io.ReadAll(lines)
		if err != nil {
			t.Fatal(err)
		}
		if err := ended(); err != nil {
			t.Fatalf("mountload: %v\n%s", err, stderr.String())
		}
		var report mountReport
		if err := json.Unmarshal(text, &report); err != nil {
			t.Fatalf("mountload reports %q: %v", text, err)
		}
		return report
	}
}

// check checks that no mount failed, and that there were mounts of each kind.
func (report mountReport) check(t *testing.T) {
	t.Helper()
	t.Logf("mounts: %d cold, of which %d by a driver that had just started, %d repeated, %d failed; the slowest took %s",
		report.Cold, report.Fresh, report.Repeated, report.Failed, report.Slowest)
	if report.Failed > 0 {
		t.Errorf("%d mounts failed, the first of them: %q", report.Failed, report.Errors)
	}
	if report.Cold == 0 || report.Fresh == 0 || report.Repeated == 0 {
		t.Error("some kind of mount did not happen")
	}
}

// podAttributes creates a pod that is not scheduled, and returns the attributes that the
// driver would get for it, with tokens for this pod from the API server.
func (f *fixture) podAttributes(t *testing.T, name string) map[string]string {
	t.Helper()
	pod, err := shared.Client.CoreV1().Pods(f.namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			ServiceAccountName: "matrix",
			SchedulingGates:    []corev1.PodSchedulingGate{{Name: "secretmanager.io/never"}},
			Containers:         []corev1.Container{{Name: "app", Image: shared.Images.App}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	response, err := shared.Client.CoreV1().ServiceAccounts(f.namespace).
		CreateToken(t.Context(), "matrix", &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{
				Audiences:      []string{"vault"},
				BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: name, UID: pod.UID},
			},
		}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := json.Marshal(map[string]authenticationv1.TokenRequestStatus{"vault": response.Status})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"roleName": f.role("matrix"), "secretName": secretName, "transitKey": f.key,
		"secretProviderClass":                      "matrix",
		"csi.storage.k8s.io/pod.name":              name,
		"csi.storage.k8s.io/pod.namespace":         f.namespace,
		"csi.storage.k8s.io/pod.uid":               string(pod.UID),
		"csi.storage.k8s.io/serviceAccount.name":   "matrix",
		"csi.storage.k8s.io/ephemeral":             "true",
		"csi.storage.k8s.io/serviceAccount.tokens": string(tokens),
	}
}

// mountedBy counts the mounts of the namespace's pods in the log of each of the
// provider's pods.
func (f *fixture) mountedBy(t *testing.T, selector string) map[string]int {
	t.Helper()
	pods, err := shared.Client.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	mounted := map[string]int{}
	for _, pod := range pods.Items {
		log, err := shared.Logs(t.Context(), system, pod.Name, "")
		if err != nil {
			continue // the pod was just deleted
		}
		mounted[pod.Name] = 0
		for line := range strings.Lines(log) {
			if containsEach(line, `"msg":"mounted"`, fmt.Sprintf(`"namespace":%q`, f.namespace)) {
				mounted[pod.Name]++
			}
		}
	}
	return mounted
}

// containsEach reports whether a log line contains all the texts.
func containsEach(line string, texts ...string) bool {
	return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) })
}

// waitMountedBy waits until each of the provider's pods has mounted something.
func (f *fixture) waitMountedBy(t *testing.T, selector string) map[string]int {
	t.Helper()
	var mounted map[string]int
	err := cluster.Wait(t.Context(), time.Minute, "mounts by the new provider",
		func(context.Context) (bool, string, error) {
			mounted = f.mountedBy(t, selector)
			done := len(mounted) > 0
			for _, n := range mounted {
				done = done && n > 0
			}
			return done, fmt.Sprint(mounted), nil
		})
	if err != nil {
		t.Fatal(err)
	}
	return mounted
}

// TestReplacementFinishesItsMounts replaces a provider during a mount, and checks that the
// old one finishes it, and that the driver does not repeat the call.
func TestReplacementFinishesItsMounts(t *testing.T) {
	t.Parallel()
	requireProduct(t)
	f := newFaultFixture(t, cluster.ThrottledDriver)
	proxy := newFaultProxy(t)
	provider := newProvider(t, f.provider, "--vault-addr="+proxy.address, "--mount-timeout=1m")
	provider.start(t)
	pods, err := provider.pods(t.Context())
	if err != nil || len(pods) != 1 {
		t.Fatalf("%d pods, %v", len(pods), err)
	}
	// Follow the log, because it is deleted with the pod.
	log, err := shared.Client.CoreV1().Pods(system).GetLogs(pods[0].Name, &corev1.PodLogOptions{Follow: true}).
		Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	lines := bufio.NewScanner(log)
	waitLine := func(texts ...string) {
		t.Helper()
		for lines.Scan() {
			if containsEach(lines.Text(), texts...) {
				return
			}
		}
		t.Fatalf("the log of the old provider ends without a line with %q: %v", texts, lines.Err())
	}

	proxy.set(t, "hold")
	f.pod(t, "app")
	proxy.wait(t, "hold", 1)
	patchTemplate(t, provider.name, f.namespace)
	waitLine(`"msg":"stopping: finishing the mounts in progress"`)
	f.checkWaiting(t, "app")
	proxy.set(t, "pass")
	waitLine(`"msg":"mounted"`, fmt.Sprintf(`"namespace":%q`, f.namespace), `"pod":"app"`)
	waitLine(`"msg":"stopped"`)
	f.waitReady(t, "app")
	f.checkFiles(t, "app", firstToken)
	if n := proxy.count("hold"); n != 1 {
		t.Errorf("%d logins were tried, want one", n)
	}
	// The old provider must not remove the socket of the new one.
	f.pod(t, "after")
	f.waitReady(t, "after")
}

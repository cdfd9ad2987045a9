package e2e

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
)

// podsOnNode is the number of pods on the node that is restarted.
const podsOnNode = 30

// TestNodes tests a cluster with two workers: NODES=3 make e2e. Every pod gets its files without help, and no container
// starts with an empty volume.
func TestNodes(t *testing.T) {
	requireProduct(t)
	nodes, err := shared.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var workers []string
	for _, node := range nodes {
		if node.Name != cluster.ControlPlane {
			workers = append(workers, node.Name)
		}
	}
	if len(workers) < 2 {
		t.Fatalf("workers: %q, want two; set NODES=3", workers)
	}
	f := &nodesFixture{fixture: &fixture{namespace: newNamespace(t)}, workers: workers}
	f.key = f.namespace
	f.setUp(t)
	command(t, f.author, shared.Kubeconfig, f.encryptArgs(t)...)
	apply(t, f.classYAML("matrix", f.role("matrix"), secretName))

	t.Run("rollout under load", f.testRollout)
	t.Run("driver pods restarted", f.testDriverRestart)
	t.Run("pod moved", f.testMove)
	t.Run("node restarted", f.testRestart)
	f.logMemory(t)
}

// nodesFixture has the namespace of TestNodes.
type nodesFixture struct {
	*fixture
	workers []string
}

// testRollout replaces the provider on one node after another, while the driver's own client mounts ten volumes a
// second on each worker, and the kubelets start pods.
func (f *nodesFixture) testRollout(t *testing.T) {
	var ends []func() mountReport
	for _, node := range f.workers {
		ends = append(ends, f.startMountLoad(t, node, "secretmanager", 10))
	}
	stop := f.startPods(t)
	const selector = "app.kubernetes.io/name=secretmanager-provider"
	start := time.Now()
	restart(t, "secretmanager-provider", selector, f.namespace)
	t.Logf("the rollout took %s", time.Since(start).Round(time.Second))
	stop()
	for _, end := range ends {
		end().check(t)
	}
}

// testDriverRestart deletes the driver's pods on all nodes, while the kubelets start pods.
func (f *nodesFixture) testDriverRestart(t *testing.T) {
	stop := f.startPods(t)
	pods, err := shared.Client.CoreV1().Pods(cluster.DriverNamespace).
		List(t.Context(), metav1.ListOptions{LabelSelector: cluster.DriverSelector})
	if err != nil || len(pods.Items) != len(f.workers)+1 {
		t.Fatalf("%d pods of the driver, %v", len(pods.Items), err)
	}
	for _, pod := range pods.Items {
		err := shared.Client.CoreV1().Pods(pod.Namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := shared.WaitDaemonSet(t.Context(), cluster.DriverNamespace, "csi-secrets-store"); err != nil {
		t.Fatal(err)
	}
	stop()
}

// startPods starts pods on the workers in turn, until stop is called, which waits until all are ready and checks them.
// At least six start.
func (f *nodesFixture) startPods(t *testing.T) (stop func()) {
	t.Helper()
	const interval = 3 * time.Second
	prefix := "p" + strconv.FormatInt(time.Now().UnixNano(), 36) + "-"
	ctx, cancel := context.WithCancel(t.Context())
	var count atomic.Int64
	done := make(chan error, 1)
	go func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for n := 0; n < 6 || ctx.Err() == nil; n++ {
			pod := f.podYAML(prefix+strconv.Itoa(n), "matrix", "matrix", secretName)
			pod = strings.Replace(pod, "spec:\n", "spec:\n  nodeName: "+f.workers[n%len(f.workers)]+"\n", 1)
			if err := shared.ApplyYAML(context.WithoutCancel(ctx), pod); err != nil {
				done <- err
				return
			}
			count.Add(1)
			<-ticker.C
		}
		done <- nil
	}()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for n := range int(count.Load()) {
			pod := prefix + strconv.Itoa(n)
			f.waitReady(t, pod)
			if n%5 == 0 {
				f.checkFiles(t, pod, firstToken)
			}
			f.deletePod(t, pod)
		}
		t.Logf("%d pods got their files", count.Load())
	}
}

func (f *nodesFixture) deletePod(t *testing.T, pod string) {
	t.Helper()
	if err := shared.Client.CoreV1().Pods(f.namespace).Delete(t.Context(), pod, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// deploy creates a Deployment of pods on the nodes with the label, and returns when all are ready.
func (f *nodesFixture) deploy(t *testing.T, name string, replicas int) {
	t.Helper()
	pod := f.podYAML(name, "matrix", "matrix", secretName)
	_, spec, _ := strings.Cut(pod, "spec:\n")
	apply(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  replicas: %[3]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      nodeSelector: {secretmanager.io/e2e: %[1]s}
%[4]s`, name, f.namespace, replicas, indent(spec, "    ")))
	if err := shared.WaitDeployment(t.Context(), f.namespace, name); err != nil {
		t.Fatal(err)
	}
}

func indent(text, prefix string) string {
	return prefix + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+prefix) + "\n"
}

// label sets the label by which deploy selects nodes, or removes it if the value is empty.
func (f *nodesFixture) label(t *testing.T, node, value string) {
	t.Helper()
	text := "null"
	if value != "" {
		text = strconv.Quote(value)
	}
	patch := fmt.Sprintf(`{"metadata":{"labels":{"secretmanager.io/e2e":%s}}}`, text)
	_, err := shared.Client.CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, []byte(patch),
		metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (f *nodesFixture) podsOf(t *testing.T, deployment string) []corev1.Pod {
	t.Helper()
	pods, err := shared.Client.CoreV1().Pods(f.namespace).
		List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + deployment})
	if err != nil {
		t.Fatal(err)
	}
	return pods.Items
}

// testMove moves a pod to the other worker, and back to the first.
func (f *nodesFixture) testMove(t *testing.T) {
	f.label(t, f.workers[0], "moved")
	f.deploy(t, "moved", 1)
	for _, node := range []string{f.workers[1], f.workers[0]} {
		old := f.podsOf(t, "moved")[0]
		f.label(t, old.Spec.NodeName, "")
		f.label(t, node, "moved")
		f.deletePod(t, old.Name)
		var pod corev1.Pod
		err := cluster.Wait(t.Context(), 2*time.Minute, "the pod on "+node, func(ctx context.Context) (bool, string, error) {
			pods := f.podsOf(t, "moved")
			if len(pods) != 1 || pods[0].UID == old.UID {
				return false, fmt.Sprintf("%d pods", len(pods)), nil
			}
			pod = pods[0]
			return true, "", nil
		})
		if err != nil {
			t.Fatal(err)
		}
		f.waitReady(t, pod.Name)
		f.checkFiles(t, pod.Name, firstToken)
		p, err := shared.Client.CoreV1().Pods(f.namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
		if err != nil || p.Spec.NodeName != node {
			t.Errorf("the pod is on %s, want %s (%v)", p.Spec.NodeName, node, err)
		}
		f.waitRemoved(t, &old)
	}
	f.label(t, f.workers[0], "")
}

// waitRemoved waits until the kubelet has removed the directory of a deleted pod, and with it the volume.
func (f *nodesFixture) waitRemoved(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	err := cluster.Wait(t.Context(), 2*time.Minute, "the directory of "+pod.Name+" to be removed",
		func(ctx context.Context) (bool, string, error) {
			left, err := shared.OnNode(ctx, pod.Spec.NodeName, "find", "/var/lib/kubelet/pods", "-maxdepth", "1",
				"-name", string(pod.UID)).Output()
			return len(left) == 0, strings.TrimSpace(string(left)), err
		})
	if err != nil {
		t.Fatal(err)
	}
}

// testRestart restarts a worker with 30 pods.
func (f *nodesFixture) testRestart(t *testing.T) {
	node := f.workers[0]
	f.label(t, node, "restarted")
	f.deploy(t, "restarted", podsOnNode)
	before := f.podsOf(t, "restarted")
	start := time.Now()
	if err := shared.RestartNode(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	ready := time.Now()
	for _, pod := range before {
		f.waitRestarted(t, pod)
	}
	t.Logf("the node was ready after %s, and its %d pods %s later", ready.Sub(start).Round(time.Second), len(before),
		time.Since(ready).Round(time.Second))
	if now := f.podsOf(t, "restarted"); len(now) != len(before) {
		t.Errorf("%d pods after the restart, %d before", len(now), len(before))
	}
	// A mount after the restart, and an update of the files.
	command(t, f.author, shared.Kubeconfig, "encrypt", secretName, "-n", f.namespace, "--transit-key", f.key,
		"--from-literal", "api-token="+secondToken)
	for _, pod := range before {
		err := cluster.Wait(t.Context(), 2*time.Minute, "the new value in "+pod.Name,
			func(ctx context.Context) (bool, string, error) {
				text, err := shared.Exec(ctx, f.namespace, pod.Name, "", "cat", "/secrets/api-token")
				return text == secondToken, "the old value", err
			})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// waitRestarted waits until the pod's container was started again and the pod is ready, and checks that no container of
// it started with an empty volume.
func (f *nodesFixture) waitRestarted(t *testing.T, pod corev1.Pod) {
	t.Helper()
	old := pod.Status.ContainerStatuses[0].ContainerID
	err := cluster.Wait(t.Context(), 5*time.Minute, "pod "+pod.Name+" to run again",
		func(ctx context.Context) (bool, string, error) {
			now, err := shared.Client.CoreV1().Pods(f.namespace).Get(ctx, pod.Name, metav1.GetOptions{})
			if err != nil {
				return false, "", err
			}
			if now.UID != pod.UID || len(now.Status.ContainerStatuses) != 1 {
				return false, "another pod", nil
			}
			c := now.Status.ContainerStatuses[0]
			return c.ContainerID != old && c.Ready, fmt.Sprintf("%s, %+v", now.Status.Phase, c.State), nil
		})
	if err != nil {
		t.Fatal(err)
	}
	// The kubelet keeps the log of the container before.
	for _, previous := range []bool{false, true} {
		text, err := shared.Client.CoreV1().Pods(f.namespace).
			GetLogs(pod.Name, &corev1.PodLogOptions{Previous: previous}).DoRaw(t.Context())
		if err != nil || string(text) != withFiles {
			t.Errorf("%s (previous container: %v) printed %q, %v", pod.Name, previous, text, err)
		}
	}
	f.checkFiles(t, pod.Name, firstToken)
}

// logMemory reports the resident memory of the provider on each node. ps knows the first 15 characters of its name.
func (f *nodesFixture) logMemory(t *testing.T) {
	t.Helper()
	for _, node := range append(slices.Clone(f.workers), cluster.ControlPlane) {
		out, err := shared.OnNode(t.Context(), node, "ps", "-C", "secretmanager-p", "-o", "rss=").Output()
		if err != nil {
			t.Errorf("memory of the provider on %s: %v", node, err)
			continue
		}
		kib, err := strconv.Atoi(strings.TrimSpace(string(out)))
		if err != nil {
			t.Errorf("memory of the provider on %s: %q", node, out)
			continue
		}
		t.Logf("%s: the provider uses %.1f MiB", node, float64(kib)/1024)
	}
}

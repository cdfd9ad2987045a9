package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
)

// providerLabel is the label of a test's own provider.
const providerLabel = "secretmanager.io/e2e-provider"

// ownProvider is the provider of one test: a copy of the installed DaemonSet with another
// socket. Its name, which a class uses, is that of the test's namespace.
type ownProvider struct {
	name string
	set  *appsv1.DaemonSet
}

// newProvider returns a provider that start starts. The arguments are appended to those
// of the manifest, and override them.
func newProvider(t *testing.T, name string, args ...string) *ownProvider {
	t.Helper()
	requireProduct(t)
	installed, err := shared.Client.AppsV1().DaemonSets(system).
		Get(t.Context(), "secretmanager-provider", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	set := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: *installed.Spec.DeepCopy()}
	labels := map[string]string{providerLabel: name}
	set.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	set.Spec.Template.Labels = labels
	container := &set.Spec.Template.Spec.Containers[0]
	container.Args = append(container.Args, "--endpoint=/var/run/secrets-store-csi-providers/"+name+".sock")
	container.Args = append(container.Args, args...)
	return &ownProvider{name, set}
}

// start starts the provider and waits until it is ready. It is deleted after the test,
// unless the test failed.
func (p *ownProvider) start(t *testing.T) {
	t.Helper()
	if _, err := shared.Client.AppsV1().DaemonSets(system).
		Create(t.Context(), p.set.DeepCopy(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		err := shared.Client.AppsV1().DaemonSets(system).
			Delete(context.WithoutCancel(t.Context()), p.name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("deleting the provider: %v", err)
		}
	})
	if err := shared.WaitDaemonSet(t.Context(), system, p.name); err != nil {
		t.Fatal(err)
	}
}

// stop stops the provider and waits until its pod is deleted.
func (p *ownProvider) stop(t *testing.T) {
	t.Helper()
	if err := shared.Client.AppsV1().DaemonSets(system).Delete(t.Context(), p.name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	err := cluster.Wait(t.Context(), 2*time.Minute, "provider "+p.name+" to be deleted",
		func(ctx context.Context) (bool, string, error) {
			pods, err := p.pods(ctx)
			return len(pods) == 0, fmt.Sprintf("%d pods are there", len(pods)), err
		})
	if err != nil {
		t.Fatal(err)
	}
}

func (p *ownProvider) pods(ctx context.Context) ([]corev1.Pod, error) {
	list, err := shared.Client.CoreV1().Pods(system).
		List(ctx, metav1.ListOptions{LabelSelector: providerLabel + "=" + p.name})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// kill kills the provider's process with SIGKILL. The kubelet starts it again.
func (p *ownProvider) kill(t *testing.T) {
	t.Helper()
	kill(t, system, providerLabel+"="+p.name, "provider")
}

// kill kills a container of the only selected pod with SIGKILL, and waits until the
// kubelet has started it again.
func kill(t *testing.T, namespace, selector, container string) {
	t.Helper()
	var node string
	status := func(ctx context.Context) (corev1.ContainerStatus, error) {
		list, err := shared.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return corev1.ContainerStatus{}, err
		}
		if len(list.Items) != 1 {
			return corev1.ContainerStatus{}, fmt.Errorf("there are %d pods with %s", len(list.Items), selector)
		}
		node = list.Items[0].Spec.NodeName
		all := list.Items[0].Status.ContainerStatuses
		n := slices.IndexFunc(all, func(s corev1.ContainerStatus) bool { return s.Name == container })
		if n < 0 {
			return corev1.ContainerStatus{}, fmt.Errorf("it has no container %s", container)
		}
		return all[n], nil
	}
	old, err := status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, id, _ := strings.Cut(old.ContainerID, "://")
	output, err := shared.OnNode(t.Context(), node, "ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL",
		id).CombinedOutput()
	if err != nil {
		t.Fatalf("killing container %s of %s: %v\n%s", container, selector, err, output)
	}
	err = cluster.Wait(t.Context(), time.Minute, "container "+container+" of "+selector+" to run again",
		func(ctx context.Context) (bool, string, error) {
			now, err := status(ctx)
			return now.State.Running != nil && now.ContainerID != old.ContainerID, fmt.Sprintf("%+v", now.State), err
		})
	if err != nil {
		t.Fatal(err)
	}
}

// faultProxy is a faultproxy on the node, between the provider of a test and Vault.
type faultProxy struct {
	address string
	stdin   io.WriteCloser
	modes   chan string

	mu       sync.Mutex
	requests map[string]int // by mode
}

var faultProxyOnNode = sync.OnceValues(func() (string, error) {
	return onNode("faultproxy", "test/e2e", "./cmd/faultproxy")
})

// newFaultProxy starts a proxy that ends with the test. At first it passes all requests.
func newFaultProxy(t *testing.T) *faultProxy {
	t.Helper()
	path, err := faultProxyOnNode()
	if err != nil {
		t.Fatal(err)
	}
	node, err := shared.NodeAddress(t.Context(), cluster.ControlPlane)
	if err != nil {
		t.Fatal(err)
	}
	// It ends when its standard input is closed, after all other cleanups of the test.
	cmd := shared.OnNode(context.WithoutCancel(t.Context()), cluster.ControlPlane, path, "--listen", node+":0",
		"--to", shared.Vault.OnNode(node))
	p := &faultProxy{modes: make(chan string, 1), requests: map[string]int{}}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if lines.Scan() {
		p.address = lines.Text()
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.modes)
		for lines.Scan() {
			kind, rest, _ := strings.Cut(lines.Text(), " ")
			if kind == "mode" {
				p.modes <- rest
				continue
			}
			mode, _, _ := strings.Cut(rest, " ")
			p.mu.Lock()
			p.requests[mode]++
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		p.stdin.Close()
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("the fault proxy ended: %v", err)
		}
	})
	if !strings.HasPrefix(p.address, "http://") {
		t.Fatalf("the fault proxy printed %q", p.address)
	}
	return p
}

// set sets the mode: see faultproxy.
func (p *faultProxy) set(t *testing.T, mode string) {
	t.Helper()
	if _, err := io.WriteString(p.stdin, mode+"\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-p.modes:
		if got != mode {
			t.Fatalf("the fault proxy is in mode %q, want %q", got, mode)
		}
	case <-t.Context().Done():
		t.Fatal("the fault proxy does not respond")
	}
}

// count returns the number of requests in a mode.
func (p *faultProxy) count(mode string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests[mode]
}

// wait waits for n requests in a mode.
func (p *faultProxy) wait(t *testing.T, mode string, n int) {
	t.Helper()
	err := cluster.Wait(t.Context(), 2*time.Minute, fmt.Sprintf("%d requests in mode %s", n, mode),
		func(context.Context) (bool, string, error) {
			count := p.count(mode)
			return count >= n, fmt.Sprintf("%d", count), nil
		})
	if err != nil {
		t.Fatal(err)
	}
}

// newFaultFixture returns a fixture with its own namespace, key and Secret, whose class
// names a provider of the same name, on the driver.
func newFaultFixture(t *testing.T, driver string) *fixture {
	t.Helper()
	namespace := newNamespace(t)
	f := &fixture{namespace: namespace, key: namespace, provider: namespace, driver: driver}
	f.setUp(t)
	command(t, f.author, shared.Kubeconfig, f.encryptArgs(t)...)
	apply(t, f.classYAML("matrix", f.role("matrix"), secretName))
	return f
}

// pod creates a pod that mounts the class.
func (f *fixture) pod(t *testing.T, name string) {
	t.Helper()
	apply(t, f.podYAML(name, "matrix", "matrix", secretName))
}

// waitTries waits until the kubelet has reported n failed mounts of the pod. It fails if
// the pod starts meanwhile.
func (f *fixture) waitTries(t *testing.T, pod string, n int32) {
	t.Helper()
	tries, started := int32(0), false
	err := cluster.Wait(t.Context(), 2*time.Minute, fmt.Sprintf("%d failed mounts of %s", n, pod),
		func(ctx context.Context) (bool, string, error) {
			list, err := shared.Client.CoreV1().Events(f.namespace).List(ctx, metav1.ListOptions{
				FieldSelector: "involvedObject.kind=Pod,reason=FailedMount,involvedObject.name=" + pod,
			})
			if err != nil {
				return false, "", err
			}
			tries = 0
			for _, event := range list.Items {
				tries += event.Count
			}
			p, err := shared.Client.CoreV1().Pods(f.namespace).Get(ctx, pod, metav1.GetOptions{})
			if err != nil {
				return false, "", err
			}
			started = p.Status.Phase != corev1.PodPending
			return tries >= n || started, fmt.Sprintf("%d", tries), nil
		})
	if err != nil {
		t.Fatal(err)
	}
	if started {
		f.checkStarted(t, pod, "") // prints its log
		t.Fatalf("%s started after %d failed mounts", pod, tries)
	}
}

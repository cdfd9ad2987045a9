package doctor

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
	spcv1 "sigs.k8s.io/secrets-store-csi-driver/apis/v1"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/doctor/workload"
)

var testNow = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// newClusterRun returns a run whose cluster has objects.
func newClusterRun(objects ...runtime.Object) *run {
	return newTestRun(Options{Kube: fake.NewClientset(objects...), ProviderNamespace: systemNamespace, Namespace: "demo",
		Now: func() time.Time { return testNow }})
}

// waitingPod is a pod whose volume could not be mounted.
func waitingPod(namespace, name, className string, age time.Duration) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name),
		CreationTimestamp: metav1.NewTime(testNow.Add(-age))},
		Spec: corev1.PodSpec{NodeName: "n", Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
			CSI: &corev1.CSIVolumeSource{Driver: driverName,
				VolumeAttributes: map[string]string{class.AttributeClass: className}}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodPending}}
}

// A class that 50 pods use gives one line.
func TestHangingPodsAreGrouped(t *testing.T) {
	var objects []runtime.Object
	for i := range 50 {
		objects = append(objects, waitingPod("demo", fmt.Sprintf("web-%d", i), "web", time.Hour))
	}
	objects = append(objects, waitingPod("shop", "one", "shop", time.Hour), waitingPod("shop", "new", "shop", time.Second),
		&corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "e"}, Reason: "FailedMount",
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "one", UID: "one"},
			Message:        "rpc error: code = Internal desc = VaultSealed: x"})
	started := waitingPod("shop", "started", "shop", time.Hour)
	started.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{
		Running: &corev1.ContainerStateRunning{}}}}
	f := newClusterRun(append(objects, started)...).checkPods(t.Context())
	want := "51 pods wait in ContainerCreating in the cluster; class demo/web: 50 pods, such as web-0; class " +
		"shop/shop: one: "
	if f.State != Broken || !strings.HasPrefix(f.Detail, want) || !strings.Contains(f.Detail, "VaultSealed") ||
		len(f.Inspect) != 2 || f.Inspect[0] != "secretmanager doctor web-0 -n demo" {
		t.Errorf("%+v", f)
	}
	if f := newClusterRun(started).checkPods(t.Context()); f.State != OK {
		t.Errorf("%+v", f)
	}
}

func TestParseTarget(t *testing.T) {
	for text, want := range map[string][2]string{
		"web-0": {"Pod", "web-0"}, "po/web-0": {"Pod", "web-0"}, "deploy/web": {"Deployment", "web"},
		"deployments.apps/web": {"Deployment", "web"}, "sts/db": {"StatefulSet", "db"}, "DS/x": {"DaemonSet", "x"},
		"job.batch/j": {"Job", "j"}, "cj/c": {"CronJob", "c"}, "cronjob/c": {"CronJob", "c"}, "svc/x": {"", "x"},
	} {
		if kind, name := workload.ParseTarget(text); kind != want[0] || name != want[1] {
			t.Errorf("%s: %s %s", text, kind, name)
		}
	}
}

// The pod to check is one that waits, and the controller whose template made it is the Deployment.
func TestWorkload(t *testing.T) {
	yes := true
	owned := func(by, kind, name string) []metav1.OwnerReference {
		return []metav1.OwnerReference{{UID: types.UID(by), Kind: kind, Name: name, Controller: &yes}}
	}
	waits, runs := waitingPod("demo", "web-1-b", "web", time.Hour), waitingPod("demo", "web-1-a", "web", time.Minute)
	runs.Status.Phase = corev1.PodRunning
	runs.OwnerReferences, waits.OwnerReferences = owned("r", "ReplicaSet", "web-1"), owned("r", "ReplicaSet", "web-1")
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "web", UID: "d"}}
	deployment.Spec.Template.Spec = runs.Spec
	w := newClusterRun(deployment, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "web-1",
		UID:             "r",
		OwnerReferences: owned("d", "Deployment", "web")}}, runs, waits)
	w.Kind, w.Pod = "Deployment", "web"
	w.loadWorkload(t.Context())
	if s := w.target; s.podErr != nil || s.pod.Name != "web-1-b" || s.pods != 2 || s.fromTemplate {
		t.Errorf("%+v", s)
	}
	if l := workload.Controller(t.Context(), w.Kube, runs); l == nil || l.String() != "Deployment demo/web" {
		t.Errorf("controller: %v", l)
	}
	c := &classCheck{run: w, name: "web", volumeName: "v"}
	want := `kubectl -n demo patch deployment web --type=json -p '[{"op":"test",` +
		`"path":"/spec/template/spec/volumes/0/name","value":"v"},` +
		`{"op":"test","path":"/spec/template/spec/volumes/0/csi/nodePublishSecretRef/name","value":"webb"},` +
		`{"op":"replace","path":"/spec/template/spec/volumes/0/csi/nodePublishSecretRef/name","value":"web"}]'`
	if fix := c.volumePatch(t.Context(), "webb", "web", "nodePublishSecretRef", "name"); len(fix) != 1 || fix[0] != want {
		t.Errorf("%q", fix)
	}
	// A pod in another namespace.
	w = newClusterRun(waitingPod("shop", "one", "shop", time.Hour))
	w.Pod = "one"
	if f := w.podMissing(t.Context()); !strings.Contains(f.Detail, "it does in namespace shop") ||
		f.Inspect[0] != "secretmanager doctor one -n shop" {
		t.Errorf("%+v", f)
	}
	w = newClusterRun(deployment)
	w.Pod = "web"
	if f := w.podMissing(t.Context()); f.Inspect[0] != "secretmanager doctor deploy/web -n demo" {
		t.Errorf("%+v", f)
	}
}

// A class that others use, or perhaps use, is not changed without a decision.
func TestSharedClass(t *testing.T) {
	other := waitingPod("demo", "other", "web", time.Hour)
	other.Spec.ServiceAccountName = "other"
	denied := newClusterRun()
	denied.Kube.(*fake.Clientset).PrependReactor("list", "pods", func(ktesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New("no"))
	})
	for name, test := range map[string]struct {
		run     *run
		certain bool
		when    string
	}{
		"nobody else":       {newClusterRun(), true, ""},
		"another pod":       {newClusterRun(other), false, "such as pod other of service account other"},
		"who else: unknown": {denied, false, "you may not list pods"},
	} {
		c := &classCheck{run: test.run, name: "web", account: "web", object: &spcv1.SecretProviderClass{}}
		choices := c.parameterFixes(t.Context(), "roleName", "wrong", "right")
		if certain(choices) != test.certain || len(choices) != 1 || !strings.Contains(choices[0].When, test.when) {
			t.Errorf("%s: %+v", name, choices)
		}
	}
}

// An author of classes can name a Secret that others read. No fix converts it.
func TestOrdinarySecret(t *testing.T) {
	ordinary := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "db"}, Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{"password": []byte("hunter2")}}
	for name, test := range map[string]struct {
		entries []string
		choices int
	}{"every entry": {nil, 1}, "another entry": {[]string{"token"}, 0}, "both": {[]string{"password", "token"}, 0}} {
		c := &classCheck{run: newClusterRun(ordinary), name: "web", account: "web", entries: test.entries}
		c.Secret, c.Key.Name = "db", "web"
		f := c.checkSecret(t.Context())
		if f.State != Broken || len(f.Fix) != 0 || len(f.Choices) != test.choices {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

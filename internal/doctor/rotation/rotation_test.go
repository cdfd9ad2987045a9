package rotation

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/rotator"
)

const systemNamespace = "secretmanager-system"

var testNow = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// newChain returns the rotation of a cluster with objects.
func newChain(objects ...runtime.Object) *Chain {
	return &Chain{Kube: fake.NewClientset(objects...), Namespaces: []string{systemNamespace}, Program: "secretmanager",
		Now: func() time.Time { return testNow }}
}

func cronJob(suspend bool, args ...string) *batchv1.CronJob {
	job := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: "secretmanager-rotator",
		UID:    "1",
		Labels: map[string]string{"app.kubernetes.io/name": "secretmanager-rotator"}, CreationTimestamp: metav1.NewTime(
			testNow.Add(-9 * 24 * time.Hour))},
		Spec: batchv1.CronJobSpec{Schedule: "0 3 * * *", Suspend: &suspend}}
	job.Spec.JobTemplate.Spec.Template.Spec = corev1.PodSpec{ServiceAccountName: "secretmanager-rotator",
		Containers: []corev1.Container{{Name: "rotator", Args: args}}}
	return job
}

// stateMap has the report of a run that ended some time ago.
func stateMap(t *testing.T, ago time.Duration, result rotator.Result) *corev1.ConfigMap {
	t.Helper()
	end := testNow.Add(-ago)
	text, err := json.Marshal(rotator.Report{Started: end.Add(-time.Minute), Finished: end, Result: result})
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: rotator.StateName},
		Data: map[string]string{"run": string(text)}}
}

func TestRotator(t *testing.T) {
	for name, test := range map[string]struct {
		objects []runtime.Object
		state   result.State
		want    string // in detail, warnings or fixes
	}{
		"not installed": {nil, result.OK, "not installed"},
		"CronJob is missing": {[]runtime.Object{stateMap(t, time.Hour, rotator.ResultDone)}, result.Broken,
			"the CronJob of the rotator does not exist"},
		"running":                 {[]runtime.Object{cronJob(false, "--transit-key=web")}, result.OK, "at 0 3 * * *"},
		"suspended without a key": {[]runtime.Object{cronJob(true)}, result.OK, "selects no key"},
		"suspended": {[]runtime.Object{cronJob(true, "--transit-key=web")}, result.Broken,
			`"path":"/spec/suspend","value":false`},
		"suspended, with two args": {[]runtime.Object{cronJob(true, "--transit-key", "web")}, result.Broken, "is suspended"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newChain(test.objects...).CheckRotator(t.Context())
			if all := f.Detail + strings.Join(append(f.Warnings, f.Fix...), ""); f.State != test.state ||
				!strings.Contains(all, test.want) {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestRotatorRun(t *testing.T) {
	waiting := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: "rotator-1", UID: "2",
		Labels: map[string]string{"app.kubernetes.io/name": "secretmanager-rotator"}},
		Spec: corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{Phase: corev1.PodPending}}
	why := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: "e"}, Reason: "FailedMount",
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "rotator-1", Namespace: systemNamespace, UID: "2"},
		Message:        `configmap "vault-ca" not found`}
	for name, test := range map[string]struct {
		objects []runtime.Object
		state   result.State
		want    string
	}{
		"done":       {[]runtime.Object{stateMap(t, 8*time.Hour, rotator.ResultDone)}, result.OK, "done"},
		"failed":     {[]runtime.Object{stateMap(t, 8*time.Hour, rotator.ResultFailed)}, result.Broken, "failed"},
		"stopped":    {[]runtime.Object{stateMap(t, 8*time.Hour, rotator.ResultStopped)}, result.Broken, "stopped"},
		"incomplete": {[]runtime.Object{stateMap(t, 8*time.Hour, rotator.ResultIncomplete)}, result.OK, "status -A"},
		"overdue": {[]runtime.Object{stateMap(t, 40*time.Hour, rotator.ResultDone)}, result.Broken, "a run was due at " +
			"2026-03-01T03:00:00Z"},
		"never": {nil, result.Broken, "there was no run yet"},
		"waiting pod": {[]runtime.Object{stateMap(t, 8*time.Hour, rotator.ResultDone), waiting, why}, result.Broken,
			`pod rotator-1 of a run waits: configmap "vault-ca" not found`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newChain(test.objects...)
			w.Job = cronJob(false, "--transit-key=web")
			f := w.CheckRun(t.Context())
			if all := f.Detail + strings.Join(f.Warnings, ""); f.State != test.state || !strings.Contains(all, test.want) {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestRetirement(t *testing.T) {
	key := func(name string, blocked rotator.Blocker) rotator.KeySummary {
		return rotator.KeySummary{KeyReport: rotator.KeyReport{Mount: "transit", Name: name, Retire: &rotator.RetireReport{
			Blocked: blocked, Reason: "why " + name, WouldBreak: []rotator.Problem{{Location: rotator.Location{Namespace: "demo",
				Name: "old", Entry: "a"}, Reason: "decrypts"}}}}}
	}
	for name, test := range map[string]struct {
		args  string
		keys  []rotator.KeySummary
		state result.State
		want  string
	}{
		"off":     {"", []rotator.KeySummary{key("a", rotator.BlockerInUse)}, result.OK, "off"},
		"nothing": {"--retire", []rotator.KeySummary{key("a", "")}, result.OK, "nothing prevents"},
		"in use": {"--retire", []rotator.KeySummary{key("a", rotator.BlockerInUse)}, result.Broken, "transit/a: why a, " +
			"such as demo/old/a"},
		"searching": {"--retire", []rotator.KeySummary{key("b", rotator.BlockerSearch)}, result.OK, "continues in the next " +
			"run; transit/b"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newChain()
			w.Args, w.summary = strings.Fields(test.args), &rotator.Summary{Keys: test.keys}
			f := w.CheckRetirement(t.Context())
			if all := f.Detail + strings.Join(f.Warnings, ""); f.State != test.state || !strings.Contains(all, test.want) {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestExporter(t *testing.T) {
	deployment := func(replicas, ready int32) *appsv1.Deployment {
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: "e", UID: "1",
			Labels: map[string]string{"app.kubernetes.io/name": "secretmanager-exporter"}},
			Spec:   appsv1.DeploymentSpec{Replicas: &replicas},
			Status: appsv1.DeploymentStatus{ObservedGeneration: 1, ReadyReplicas: ready}}
	}
	yes := true
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: "e-1", UID: "2",
		OwnerReferences: []metav1.OwnerReference{{UID: "1", Kind: "Deployment", Name: "e", Controller: &yes}}}}
	refused := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: "x"}, Reason: "FailedCreate",
		InvolvedObject: corev1.ObjectReference{Kind: "ReplicaSet", Name: "e-1", Namespace: systemNamespace, UID: "2"},
		Message:        "exceeded quota"}
	for name, test := range map[string]struct {
		objects []runtime.Object
		state   result.State
		want    string
	}{
		"none":      {nil, result.OK, "not installed"},
		"ready":     {[]runtime.Object{deployment(1, 1)}, result.OK, "ready"},
		"not ready": {[]runtime.Object{deployment(1, 0)}, result.Broken, "no pod of Deployment"},
		"scaled":    {[]runtime.Object{deployment(0, 0)}, result.Broken, "--current-replicas=0 --replicas=1"},
		"refused": {[]runtime.Object{deployment(1, 0), set, refused}, result.Broken, "ReplicaSet secretmanager-system/e-1 " +
			"cannot create pods"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newChain(test.objects...).CheckExporter(t.Context())
			if all := f.Detail + strings.Join(f.Fix, ""); f.State != test.state || !strings.Contains(all, test.want) {
				t.Errorf("%+v", f)
			}
		})
	}
}

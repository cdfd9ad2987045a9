package memorykube_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/test/memorykube"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// TestContract sends the same requests to the API server in memory and to a real one, and compares the outcomes.
func TestContract(t *testing.T) {
	f := fixture.New(t)
	want := outcomes(t, f.Kube, f.Namespace)
	if diff := cmp.Diff(want, outcomes(t, memorykube.New().Client(nil), f.Namespace)); diff != "" {
		t.Errorf("(-real +memory):\n%s", diff)
	}
}

// outcomes returns what a caller sees of a series of requests.
func outcomes(t *testing.T, kube kubernetes.Interface, namespace string) (all []string) {
	t.Helper()
	ctx, secrets := t.Context(), kube.CoreV1().Secrets(namespace)
	add := func(what string, err error, details ...any) {
		all = append(all, fmt.Sprintln(append([]any{what, apierrors.ReasonForError(err), code(err)}, details...)...))
	}
	patch := func(what string, kind types.PatchType, text string) {
		s, err := secrets.Patch(ctx, "s1", kind, []byte(text), metav1.PatchOptions{})
		if err != nil {
			s = &corev1.Secret{}
		}
		add(what, err, s.Data, s.Labels, s.Annotations)
	}
	for i := range 5 {
		s, err := secrets.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("s", i), Labels: map[string]string{"app": fmt.Sprint(i % 2)}},
			Type:       corev1.SecretType(fmt.Sprint("example.com/", i/3)),
			StringData: map[string]string{"text": "x"}, Data: map[string][]byte{"bytes": {0, 255}},
		}, metav1.CreateOptions{})
		add("create", err, s.Namespace, s.Name, s.Type, s.Data, s.UID != "", s.ResourceVersion != "",
			s.CreationTimestamp.IsZero())
	}
	first, err := secrets.Get(ctx, "s1", metav1.GetOptions{})
	add("get", err, first.Data)
	_, err = secrets.Get(ctx, "none", metav1.GetOptions{})
	add("get a missing one", err)
	_, err = secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s1"}}, metav1.CreateOptions{})
	add("create again", err)

	for _, opts := range []metav1.ListOptions{{LabelSelector: "app=1"}, {LabelSelector: "!app"},
		{LabelSelector: "app", FieldSelector: "type=example.com/1"}, {LabelSelector: "app", Limit: 2}} {
		for page := 0; page == 0 || opts.Continue != ""; page++ {
			list, err := secrets.List(ctx, opts)
			var names []string
			for _, s := range list.Items {
				names = append(names, s.Name)
			}
			add("list", err, names, list.Continue != "", list.ResourceVersion != "")
			opts.Continue = list.Continue
		}
	}

	changed := first.DeepCopy()
	changed.Data["bytes"] = []byte("new")
	second, err := secrets.Update(ctx, changed, metav1.UpdateOptions{})
	add("update", err, second.Data, second.UID == first.UID, second.ResourceVersion != first.ResourceVersion)
	_, err = secrets.Update(ctx, changed, metav1.UpdateOptions{})
	add("update an old version", err)

	patch("patch", types.JSONPatchType, `[{"op":"test","path":"/data/text","value":"eA=="},
		{"op":"replace","path":"/data/text","value":"eQ=="},{"op":"test","path":"/metadata/annotations","value":null},
		{"op":"add","path":"/metadata/annotations","value":{"a":"b"}}]`)
	patch("patch of another value", types.JSONPatchType, `[{"op":"test","path":"/data/text","value":"eA=="}]`)
	patch("patch of a missing entry", types.JSONPatchType, `[{"op":"replace","path":"/data/none","value":"eA=="}]`)
	patch("merge", types.MergePatchType, `{"stringData":{"text":"z"},"metadata":{"labels":{"app":null,"b":"c"}}}`)

	event, err := kube.CoreV1().Events(namespace).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: "clock", Namespace: namespace},
		InvolvedObject: corev1.ObjectReference{Namespace: namespace},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	add("dry run", err, event.CreationTimestamp.IsZero())
	_, err = kube.CoreV1().Events(namespace).Get(ctx, "clock", metav1.GetOptions{})
	add("after the dry run", err)

	lease, err := kube.CoordinationV1().Leases(namespace).Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "l"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: new("me")},
	}, metav1.CreateOptions{})
	add("lease", err, *lease.Spec.HolderIdentity)
	now := metav1.NowMicro()
	lease.Spec.RenewTime = &now
	lease, err = kube.CoordinationV1().Leases(namespace).Update(ctx, lease, metav1.UpdateOptions{})
	add("renewed", err, lease.Spec.RenewTime.Equal(&now))

	add("delete", secrets.Delete(ctx, "s2", metav1.DeleteOptions{}))
	add("delete again", secrets.Delete(ctx, "s2", metav1.DeleteOptions{}))
	add("delete all", secrets.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
	list, err := secrets.List(ctx, metav1.ListOptions{LabelSelector: "app"})
	add("list", err, len(list.Items))
	return all
}

func code(err error) int32 {
	if status, ok := err.(apierrors.APIStatus); ok {
		return status.Status().Code
	}
	return 0
}

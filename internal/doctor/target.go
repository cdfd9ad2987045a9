package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/internal/doctor/workload"
)

// loadWorkload finds the pod of the workload that the user names. Without one it makes a pod from the template, whose
// classes can be checked too.
func (w *run) loadWorkload(ctx context.Context) {
	s := &w.target
	l, err := workload.Get(ctx, w.Kube, w.Namespace, w.Kind, w.Pod)
	if err != nil {
		s.podErr = err
		return
	}
	s.workload = l
	s.pod, s.pods, s.podErr = l.Pod(ctx, w.Kube)
	if s.pod == nil && s.podErr == nil {
		s.pod = &corev1.Pod{Spec: l.Template}
		s.pod.Namespace, s.fromTemplate = l.Namespace, true
		if refused, found := l.RefusedPods(ctx, w.Kube); found {
			s.refused = &refused
		}
	}
}

// podMissing returns the finding for a pod or a workload that does not exist, with where it does.
func (w *run) podMissing(ctx context.Context) result.Finding {
	kind := cmp.Or(w.Kind, "Pod")
	f := result.Brokenf("%s %s does not exist in namespace %s", strings.ToLower(kind), w.Pod, w.Namespace)
	inspect := func(target, namespace string) string {
		return result.Command(w.program(), "doctor", target, "-n", namespace)
	}
	if kind != "Pod" {
		return f.WithInspect(w.kubectl("get", strings.ToLower(kind)+"s"))
	}
	// A name of a workload instead of a pod's is a likely mistake.
	for _, other := range []string{"Deployment", "StatefulSet", "DaemonSet", "CronJob", "Job"} {
		if _, err := workload.Get(ctx, w.Kube, w.Namespace, other, w.Pod); err == nil {
			f.Detail += ", and a " + other + " of that name does"
			return f.WithInspect(inspect(workload.KindNames[other][len(workload.KindNames[other])-1]+"/"+w.Pod, w.Namespace))
		}
	}
	list, err := w.Kube.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + w.Pod})
	if apierrors.IsForbidden(err) {
		return f.WithInspect(w.kubectl("get", "pods")).
			WithAdvice("other namespaces were not searched: you may not list pods -A")
	}
	if err != nil || len(list.Items) == 0 {
		return f.WithInspect(w.kubectl("get", "pods"))
	}
	var namespaces []string
	for _, pod := range list.Items {
		namespaces = append(namespaces, pod.Namespace)
		f = f.WithInspect(inspect(w.Pod, pod.Namespace))
	}
	f.Detail += "; it does in namespace " + strings.Join(namespaces, ", ")
	return f
}

// volumePatch returns the commands that change a field of a volume in the template of the pod's controller, and nil if
// no command can: a pod without a controller, and a Job, cannot be changed. The patch tests what it replaces. Where
// current is empty, the field is added.
func (c *classCheck) volumePatch(ctx context.Context, current, value any, field ...string) []string {
	l := c.target.workload
	if l == nil && c.target.pod != nil {
		l = workload.Controller(ctx, c.Kube, c.target.pod)
	}
	if l == nil || l.Kind == "Job" || l.Kind == "ReplicaSet" || c.volumeName == "" {
		return nil
	}
	i := slices.IndexFunc(l.Template.Volumes, func(v corev1.Volume) bool { return v.Name == c.volumeName && v.CSI != nil })
	if i < 0 {
		return nil
	}
	volume := fmt.Sprintf("%s/volumes/%d", l.At, i)
	path := volume + "/csi"
	for _, part := range field {
		path += "/" + strings.ReplaceAll(strings.ReplaceAll(part, "~", "~0"), "/", "~1")
	}
	op := "add"
	if current != nil {
		op = "replace"
	}
	patch := []operation{{"test", volume + "/name", c.volumeName}, {"test", path, current}, {op, path, value}}
	return []string{c.kubectl("patch", strings.ToLower(l.Kind), l.Name, "--type=json", "-p", jsonPatch(patch))}
}

// otherUsers returns the pods of other service accounts that use the class too.
func (c *classCheck) otherUsers(ctx context.Context) (others []corev1.Pod, err error) {
	list, err := c.Kube.CoreV1().Pods(c.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, pod := range list.Items {
		uses := slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return classOf(v) == c.name })
		if uses && cmp.Or(pod.Spec.ServiceAccountName, "default") != c.account {
			others = append(others, pod)
		}
	}
	return others, nil
}

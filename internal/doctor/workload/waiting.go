package workload

import (
	"cmp"
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// hangsAfter is the time for which a pod may wait: images are pulled meanwhile, and a mount is tried again.
const hangsAfter = 30 * time.Second

// Hangs reports whether a pod has been on a node for a while, and none of its containers has started.
func Hangs(p *corev1.Pod, now time.Time) bool {
	if p.Status.Phase != corev1.PodPending && p.Status.Phase != "" || p.Spec.NodeName == "" || p.DeletionTimestamp != nil {
		return false
	}
	started := slices.ContainsFunc(append(slices.Clone(p.Status.InitContainerStatuses), p.Status.ContainerStatuses...),
		func(c corev1.ContainerStatus) bool {
			return c.State.Running != nil || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil
		})
	return !started && now.Sub(p.CreationTimestamp.Time) >= hangsAfter
}

// LastFailedMount returns the message of the last failed mount of a pod; empty for none.
func LastFailedMount(ctx context.Context, kube kubernetes.Interface, p *corev1.Pod) string {
	list, err := kube.CoreV1().Events(p.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.kind=Pod,involvedObject.name=" + p.Name + ",reason=FailedMount",
	})
	if err != nil {
		return ""
	}
	return NewestMessage(list.Items, p)
}

// NewestMessage returns the message of the newest event of a pod, without the name of its reason.
func NewestMessage(events []corev1.Event, p *corev1.Pod) string {
	own := slices.DeleteFunc(slices.Clone(events), func(e corev1.Event) bool { return e.InvolvedObject.UID != p.UID })
	if len(own) == 0 {
		return ""
	}
	last := slices.MaxFunc(own, func(a, b corev1.Event) int { return EventTime(a).Compare(EventTime(b)) })
	_, text := failure.Parse(last.Message)
	return text
}

// EventTime returns the time of an event.
func EventTime(e corev1.Event) time.Time {
	if e.Series != nil {
		return e.Series.LastObservedTime.Time
	}
	return cmp.Or(e.LastTimestamp.Time, e.EventTime.Time, e.CreationTimestamp.Time)
}

// WhyNotReady returns the reason of a container that waits.
func WhyNotReady(p *corev1.Pod) string {
	for _, c := range p.Status.ContainerStatuses {
		if waiting := c.State.Waiting; waiting != nil && waiting.Reason != "" {
			return waiting.Reason
		}
	}
	return "not ready"
}

// checkVersion compares the provider with this program.

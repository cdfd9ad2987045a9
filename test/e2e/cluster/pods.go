package cluster

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
)

// Exec runs a command in a container of the pod and returns its standard output.
// container can be empty if the pod has only one.
func (c *Cluster) Exec(ctx context.Context, namespace, pod, container string, command ...string) (string, error) {
	doing := fmt.Sprintf("running %q in Pod %s/%s", strings.Join(command, " "), namespace, pod)
	request := c.Client.CoreV1().RESTClient().Post().
		Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Command: command, Stdout: true, Stderr: true},
			scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(c.Config, "GET", request.URL().String())
	if err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	var stdout, stderr bytes.Buffer
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr}); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", doing, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Logs returns the log of a container of the pod. container can be empty if the pod has
// only one.
func (c *Cluster) Logs(ctx context.Context, namespace, pod, container string) (string, error) {
	text, err := c.Client.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(ctx)
	if err != nil {
		return "", fmt.Errorf("reading the log of Pod %s/%s: %w", namespace, pod, err)
	}
	return string(text), nil
}

// ready reports whether the pod's containers are ready, or have all succeeded.
func ready(pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodSucceeded {
		return true
	}
	return slices.ContainsFunc(pod.Status.Conditions, func(condition corev1.PodCondition) bool {
		return condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue
	})
}

// pods returns a short description of the selected pods.
func (c *Cluster) pods(ctx context.Context, namespace string, selector *metav1.LabelSelector) string {
	list, err := c.Client.CoreV1().Pods(namespace).
		List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(selector)})
	if err != nil {
		return err.Error()
	}
	if len(list.Items) == 0 {
		return "no pods yet"
	}
	var all []string
	for i := range list.Items {
		if pod := &list.Items[i]; !ready(pod) {
			all = append(all, c.describe(ctx, pod))
		}
	}
	return strings.Join(all, "; ")
}

// describe returns a short description of the pod: containers that do not run, and its
// last event.
func (c *Cluster) describe(ctx context.Context, pod *corev1.Pod) string {
	text := fmt.Sprintf("%s is %s", pod.Name, pod.Status.Phase)
	for _, container := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		switch state := container.State; {
		case state.Waiting != nil:
			text += fmt.Sprintf(", %s waits: %s %s", container.Name, state.Waiting.Reason, state.Waiting.Message)
		case state.Terminated != nil && state.Terminated.ExitCode != 0:
			text += fmt.Sprintf(", %s ended with %d: %s %s", container.Name, state.Terminated.ExitCode,
				state.Terminated.Reason, state.Terminated.Message)
		case container.RestartCount > 0:
			text += fmt.Sprintf(", %s restarted %d times", container.Name, container.RestartCount)
		}
	}
	events, err := c.podEvents(ctx, pod.Namespace, pod.Name)
	if err == nil && len(events) > 0 {
		last := events[len(events)-1]
		text += fmt.Sprintf(", last event %s: %s", last.Reason, last.Message)
	}
	return text
}

// podEvents returns the pod's events, the latest last.
func (c *Cluster) podEvents(ctx context.Context, namespace, pod string) ([]corev1.Event, error) {
	list, err := c.Client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.kind=Pod,involvedObject.name=" + pod,
	})
	if err != nil {
		return nil, err
	}
	sortEvents(list.Items)
	return list.Items, nil
}

func sortEvents(events []corev1.Event) {
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return eventTime(a).Compare(eventTime(b)) })
}

// eventTime is the time of an event. Which field has it depends on who wrote it.
func eventTime(event corev1.Event) time.Time {
	switch {
	case event.Series != nil:
		return event.Series.LastObservedTime.Time
	case !event.LastTimestamp.IsZero():
		return event.LastTimestamp.Time
	case !event.EventTime.IsZero():
		return event.EventTime.Time
	}
	return event.CreationTimestamp.Time
}

func showEvents(events []corev1.Event) string {
	if len(events) == 0 {
		return "no events"
	}
	var text strings.Builder
	for _, event := range events {
		fmt.Fprintf(&text, "\n  %s %s %s/%s: %s", eventTime(event).Format(time.TimeOnly), event.Reason,
			event.InvolvedObject.Kind, event.InvolvedObject.Name, strings.TrimSpace(event.Message))
	}
	return text.String()
}

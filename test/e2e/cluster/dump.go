package cluster

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// control selects the pods of Kubernetes itself in kube-system: their logs are long, and
// seldom explain a failed mount.
var control = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns",
	"kindnet"}

// dumpLines bounds the lines of each container's log.
const dumpLines = 150

// Dump writes information about a failed test: pods, events, the state of pods that are
// not ready, and the logs of the driver, the provider, the rotator, Vault and the pods of
// tests. If something cannot be read, Dump writes the error instead.
func (c *Cluster) Dump(ctx context.Context, w io.Writer) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	fmt.Fprintf(w, "\n======== state of the cluster ========\n")
	defer fmt.Fprintf(w, "======== end of the cluster's state ========\n\n")

	list, err := c.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		fmt.Fprintf(w, "pods cannot be listed: %v\n%s", err, c.nodeLogs(ctx))
		return
	}
	c.dumpPods(w, list.Items)
	c.dumpEvents(ctx, w)
	for _, pod := range list.Items {
		isControl := slices.ContainsFunc(control, func(name string) bool { return strings.HasPrefix(pod.Name, name) })
		if !ready(&pod) {
			c.dumpStatus(w, &pod)
		} else if pod.Namespace == "kube-system" && isControl {
			continue
		}
		c.dumpLogs(ctx, w, &pod)
	}
}

func (c *Cluster) dumpPods(w io.Writer, pods []corev1.Pod) {
	fmt.Fprintf(w, "---- pods\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAMESPACE\tNAME\tPHASE\tREADY\tRESTARTS\tAGE")
	for _, pod := range pods {
		var restarts int32
		for _, container := range pod.Status.ContainerStatuses {
			restarts += container.RestartCount
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%t\t%d\t%s\n", pod.Namespace, pod.Name, pod.Status.Phase, ready(&pod), restarts,
			time.Since(pod.CreationTimestamp.Time).Round(time.Second))
	}
	table.Flush()
}

func (c *Cluster) dumpEvents(ctx context.Context, w io.Writer) {
	fmt.Fprintf(w, "---- events")
	list, err := c.Client.CoreV1().Events("").List(ctx, metav1.ListOptions{})
	if err != nil {
		fmt.Fprintf(w, " cannot be listed: %v\n", err)
		return
	}
	events := slices.DeleteFunc(list.Items, func(event corev1.Event) bool {
		return event.Type == corev1.EventTypeNormal && event.InvolvedObject.Kind != "Pod"
	})
	sortEvents(events)
	fmt.Fprintln(w, showEvents(events))
}

func (c *Cluster) dumpStatus(w io.Writer, pod *corev1.Pod) {
	fmt.Fprintf(w, "---- status of %s/%s\n", pod.Namespace, pod.Name)
	text, err := yaml.Marshal(pod.Status)
	if err != nil {
		text = []byte(err.Error())
	}
	fmt.Fprintf(w, "%s", text)
}

func (c *Cluster) dumpLogs(ctx context.Context, w io.Writer, pod *corev1.Pod) {
	lines := int64(dumpLines)
	for _, container := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		for _, previous := range []bool{true, false} {
			if container.ContainerID == "" || previous && container.RestartCount == 0 {
				continue // no log
			}
			text, err := c.Client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{
				Container: container.Name, Previous: previous, TailLines: &lines,
			}).DoRaw(ctx)
			if err != nil {
				text = []byte(err.Error() + "\n")
			}
			before := ""
			if previous {
				before = ", before its last restart"
			}
			fmt.Fprintf(w, "---- log of %s/%s %s%s\n%s", pod.Namespace, pod.Name, container.Name, before, text)
		}
	}
}

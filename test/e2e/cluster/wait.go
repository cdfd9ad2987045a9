package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// interval is the time between checks of a condition.
	interval = 250 * time.Millisecond
	// rollout bounds the start of a workload, whose images may have to be pulled.
	rollout = 4 * time.Minute
)

// Wait waits until the condition is true, for at most the limit. The condition also
// returns what it observed. An error of the condition does not end the wait, because
// servers refuse connections while they start. After the timeout, the error has the name
// of the condition and the last observation.
func Wait(ctx context.Context, limit time.Duration, what string,
	condition func(context.Context) (done bool, seen string, err error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s", limit))
	defer cancel()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	last := "nothing yet"
	for {
		done, seen, err := condition(ctx)
		if done && err == nil {
			return nil
		}
		// The error of a call that the deadline interrupted would hide the last observation.
		late := errors.Is(err, context.DeadlineExceeded) || err != nil &&
			strings.Contains(err.Error(), "would exceed context deadline")
		if err != nil && !late && ctx.Err() == nil {
			last = err.Error()
		} else if err == nil && seen != "" {
			last = seen
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (last seen: %s)", what, context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}

// WaitDeployment waits until all pods of the deployment are of its latest version
// and available.
func (c *Cluster) WaitDeployment(ctx context.Context, namespace, name string) error {
	return Wait(ctx, rollout, "Deployment "+namespace+"/"+name, func(ctx context.Context) (bool, string, error) {
		d, err := c.Client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, "", err
		}
		return deployed(d), fmt.Sprintf("%d of %d pods are up to date, %d available; %s", d.Status.UpdatedReplicas,
			*d.Spec.Replicas,
			d.Status.AvailableReplicas, c.pods(ctx, namespace, d.Spec.Selector)), nil
	})
}

func deployed(d *appsv1.Deployment) bool {
	s, want := d.Status, *d.Spec.Replicas
	return s.ObservedGeneration >= d.Generation && s.Replicas == want && s.UpdatedReplicas == want &&
		s.AvailableReplicas == want
}

// WaitDaemonSet waits until every node has a ready pod of the set's latest version.
func (c *Cluster) WaitDaemonSet(ctx context.Context, namespace, name string) error {
	return Wait(ctx, rollout, "DaemonSet "+namespace+"/"+name, func(ctx context.Context) (bool, string, error) {
		d, err := c.Client.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, "", err
		}
		s := d.Status
		done := s.ObservedGeneration >= d.Generation && s.DesiredNumberScheduled > 0 &&
			s.UpdatedNumberScheduled == s.DesiredNumberScheduled && s.NumberAvailable == s.DesiredNumberScheduled
		return done, fmt.Sprintf("%d of %d nodes have it up to date, %d available; %s", s.UpdatedNumberScheduled,
			s.DesiredNumberScheduled,
			s.NumberAvailable, c.pods(ctx, namespace, d.Spec.Selector)), nil
	})
}

// WaitPod waits until the pod is ready, or has succeeded.
func (c *Cluster) WaitPod(ctx context.Context, namespace, name string) error {
	return Wait(ctx, rollout, "Pod "+namespace+"/"+name, func(ctx context.Context) (bool, string, error) {
		pod, err := c.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, "", err
		}
		return ready(pod), c.describe(ctx, pod), nil
	})
}

// WaitPodEvent waits until there is an event of the pod whose message contains all
// the texts, and returns it.
func (c *Cluster) WaitPodEvent(ctx context.Context, namespace, pod string, limit time.Duration,
	texts ...string) (*corev1.Event, error) {
	var found *corev1.Event
	err := Wait(ctx, limit, fmt.Sprintf("an event of Pod %s/%s with %q", namespace, pod, texts),
		func(ctx context.Context) (bool, string, error) {
			events, err := c.podEvents(ctx, namespace, pod)
			if err != nil {
				return false, "", err
			}
			for i, event := range events {
				if containsAll(event.Message, texts) {
					found = &events[i]
					return true, "", nil
				}
			}
			return false, showEvents(events), nil
		})
	return found, err
}

func containsAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// waitNodesReady waits until the kubelet of every node reports it as ready, and service accounts are created, which
// pods require.
func (c *Cluster) waitNodesReady(ctx context.Context) error {
	return Wait(ctx, 2*time.Minute, "the nodes to be ready", func(ctx context.Context) (bool, string, error) {
		nodes, err := c.Nodes(ctx)
		if err != nil {
			return false, "", err
		}
		if _, err := c.Client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return false, "", err
		}
		for i := range nodes {
			if ready, why := nodeReady(&nodes[i]); !ready {
				return false, nodes[i].Name + ": " + why, nil
			}
		}
		return len(nodes) == c.options.nodes(), fmt.Sprintf("%d nodes", len(nodes)), nil
	})
}

// nodeReady reports whether the kubelet reports the node as ready, and why not.
func nodeReady(node *corev1.Node) (ready bool, why string) {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue, condition.Message
		}
	}
	return false, "its kubelet has not reported yet"
}

package workload

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// hangingGroup are the pods that wait for the same reason.
type hangingGroup struct {
	namespace, class, reason string
	pods                     []string
	message                  string
}

// Waiting looks for pods that wait for a volume.
type Waiting struct {
	Kube      kubernetes.Interface
	Namespace string // to look in, if the user may not list all
	Program   string // name of this program in commands
	Now       func() time.Time
	// ClassOf returns the class that a volume of the driver names; empty for another volume.
	ClassOf func(corev1.Volume) string
}

// Check looks for pods that wait for a volume of the driver now, and groups them by class and reason.
func (w Waiting) Check(ctx context.Context) result.Finding {
	const phase = "status.phase=Pending"
	namespace, where := "", "in the cluster"
	pods, err := w.Kube.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: phase, Limit: 2000})
	if apierrors.IsForbidden(err) && w.Namespace != "" {
		namespace, where = w.Namespace, "in namespace "+w.Namespace+", the only one that you may see"
		pods, err = w.Kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{FieldSelector: phase, Limit: 2000})
	}
	if err != nil {
		return result.RequestFailed("list pods -A", err)
	}
	byPod := map[string][]corev1.Event{}
	events, err := w.Kube.CoreV1().Events(namespace).
		List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Pod,reason=FailedMount"})
	if err == nil { // they only explain a finding
		for _, e := range events.Items {
			name := e.InvolvedObject.Namespace + "/" + e.InvolvedObject.Name
			byPod[name] = append(byPod[name], e)
		}
	}
	var groups []*hangingGroup
	count := 0
	for i := range pods.Items {
		p := &pods.Items[i]
		name := ""
		for _, v := range p.Spec.Volumes {
			name = cmp.Or(name, w.ClassOf(v))
		}
		if name == "" || !Hangs(p, w.Now()) {
			continue
		}
		count++
		message := NewestMessage(byPod[p.Namespace+"/"+p.Name], p)
		reason := ""
		if r, _ := failure.Parse(message); r != nil {
			reason = r.String()
		}
		j := slices.IndexFunc(groups, func(g *hangingGroup) bool {
			return g.namespace == p.Namespace && g.class == name && g.reason == reason
		})
		if j < 0 {
			groups = append(groups, &hangingGroup{namespace: p.Namespace, class: name, reason: reason, message: message})
			j = len(groups) - 1
		}
		groups[j].pods = append(groups[j].pods, p.Name)
	}
	if count == 0 {
		return result.OKf("no pod waits for a volume %s", where)
	}
	return describeGroups(w, groups, count, where)
}

func describeGroups(w Waiting, groups []*hangingGroup, count int, where string) result.Finding {
	slices.SortStableFunc(groups, func(a, b *hangingGroup) int { return len(b.pods) - len(a.pods) })
	var texts []string
	for _, g := range groups {
		why := ""
		if g.message != "" {
			why = ": " + result.Clip(g.message)
		}
		which := g.pods[0]
		if len(g.pods) > 1 {
			which = fmt.Sprintf("%d pods, such as %s", len(g.pods), which)
		}
		texts = append(texts, fmt.Sprintf("class %s/%s: %s%s", g.namespace, g.class, which, why))
	}
	f := result.Brokenf("%d pods wait in ContainerCreating %s%s", count, where, result.Named(texts))
	for _, g := range groups[:min(len(groups), result.MaxNamed)] {
		f = f.WithInspect(result.Command(w.Program, "doctor", g.pods[0], "-n", g.namespace))
	}
	return f
}

package workload

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
)

// OfDaemonSet returns a DaemonSet as a workload.
func OfDaemonSet(set *appsv1.DaemonSet) *Workload {
	return &Workload{Kind: "DaemonSet", Namespace: set.Namespace, Name: set.Name, UID: set.UID,
		Template: set.Spec.Template.Spec}
}

// Refused returns the finding that the controller of an owner may not create pods, if its last event says so. Events
// that cannot be read are none: they only explain a finding. Events before a time do not count.
func (l *Workload) Refused(ctx context.Context, kube kubernetes.Interface, since time.Time) (result.Finding, bool) {
	list, err := kube.CoreV1().Events(l.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.kind=" + l.Kind + ",involvedObject.name=" + l.Name + ",reason=FailedCreate",
	})
	if err != nil {
		return result.Finding{}, false
	}
	events := slices.DeleteFunc(list.Items, func(e corev1.Event) bool {
		return e.InvolvedObject.UID != "" && e.InvolvedObject.UID != l.UID || EventTime(e).Before(since)
	})
	if len(events) == 0 {
		return result.Finding{}, false
	}
	last := slices.MaxFunc(events, func(a, b corev1.Event) int { return EventTime(a).Compare(EventTime(b)) })
	message := strings.Join(strings.Fields(last.Message), " ")
	f := result.Brokenf("%s %s/%s cannot create pods: %s", l.Kind, l.Namespace, l.Name, result.Clip(message))
	return l.allow(f, message), true
}

// allow adds the command that lets the pods be created, and for other causes the one that shows the events.
func (l *Workload) allow(f result.Finding, message string) result.Finding {
	account := cmp.Or(l.Template.ServiceAccountName, "default")
	contains := func(text string) bool { return strings.Contains(message, text) }
	switch {
	case contains("insufficient quota to match these scopes") && l.Template.PriorityClassName != "":
		quota := `{"apiVersion":"v1","kind":"ResourceQuota","metadata":{"name":"` + l.Name + `","namespace":"` +
			l.Namespace + `"},"spec":{"hard":{"pods":"1000000"},"scopeSelector":{"matchExpressions":[{"scopeName":` +
			`"PriorityClass","operator":"In","values":["` + l.Template.PriorityClassName + `"]}]}}}`
		return f.WithFix("echo " + display.ShellWord(quota) + " | kubectl create -f -").
			WithAdvice("the cluster admits pods of priority class " + l.Template.PriorityClassName + " only in namespaces " +
				"with such a quota, which limits nothing; with Helm, set provider.resourceQuota: true instead")
	case contains("unable to validate against any security context constraint"):
		// Not the constraints named privileged, which allow everything.
		return f.WithInspect(result.Command("kubectl", "-n", l.Namespace, "describe", strings.ToLower(l.Kind), l.Name)).
			WithAdvice("with Helm, set provider.securityContextConstraints: true: those constraints allow the provider only " +
				"what it needs (docs/install.md)")
	case contains("violates PodSecurity"):
		const level = "pod-security.kubernetes.io/enforce=privileged"
		return f.WithFix(result.Command("kubectl", "label", "namespace", l.Namespace, level)).
			WithAdvice("the command fails if the namespace has a level already: then install the provider in a namespace of " +
				"its own (docs/install.md, In two namespaces)")
	case contains("exceeded quota"), contains("must specify"):
		return f.WithInspect(result.Command("kubectl", "-n", l.Namespace, "describe", "quota"))
	case contains("no PriorityClass"):
		return f.WithInspect(result.Command("kubectl", "get", "priorityclasses"))
	case contains(`serviceaccount "` + account + `" not found`), contains("error looking up service account"):
		return f.WithFix(result.Command("kubectl", "-n", l.Namespace, "create", "serviceaccount", account))
	}
	return f.WithInspect(result.Command("kubectl", "-n", l.Namespace, "describe", strings.ToLower(l.Kind), l.Name))
}

package doctor

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/secretmanager-io/secretmanager/internal/display"
)

const rotatorLabel = "app.kubernetes.io/name=secretmanager-rotator"

// owner is an object whose controller creates pods, or Jobs for pods.
type owner struct {
	kind, namespace, name string
	uid                   types.UID
	pod                   corev1.PodSpec
}

func daemonSetOwner(set *appsv1.DaemonSet) owner {
	return owner{"DaemonSet", set.Namespace, set.Name, set.UID, set.Spec.Template.Spec}
}

// refused returns the finding that the controller of an owner may not create pods, if its last event says so. Events
// that cannot be read are none: they only explain a finding. Events before a time do not count.
func (w *run) refused(ctx context.Context, o owner, since time.Time) (finding, bool) {
	list, err := w.Kube.CoreV1().Events(o.namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.kind=" + o.kind + ",involvedObject.name=" + o.name + ",reason=FailedCreate",
	})
	if err != nil {
		return finding{}, false
	}
	events := slices.DeleteFunc(list.Items, func(e corev1.Event) bool {
		return e.InvolvedObject.UID != "" && e.InvolvedObject.UID != o.uid || eventTime(e).Before(since)
	})
	if len(events) == 0 {
		return finding{}, false
	}
	last := slices.MaxFunc(events, func(a, b corev1.Event) int { return eventTime(a).Compare(eventTime(b)) })
	message := strings.Join(strings.Fields(last.Message), " ")
	f := brokenf("%s %s/%s cannot create pods: %s", o.kind, o.namespace, o.name, clip(message))
	return o.allow(f, message), true
}

// allow adds the command that lets the pods be created, and for other causes the one that shows the events.
func (o owner) allow(f finding, message string) finding {
	account := cmp.Or(o.pod.ServiceAccountName, "default")
	contains := func(text string) bool { return strings.Contains(message, text) }
	switch {
	case contains("insufficient quota to match these scopes") && o.pod.PriorityClassName != "":
		quota := `{"apiVersion":"v1","kind":"ResourceQuota","metadata":{"name":"` + o.name + `","namespace":"` +
			o.namespace + `"},"spec":{"hard":{"pods":"1000000"},"scopeSelector":{"matchExpressions":[{"scopeName":` +
			`"PriorityClass","operator":"In","values":["` + o.pod.PriorityClassName + `"]}]}}}`
		return f.withFix("echo " + display.ShellWord(quota) + " | kubectl create -f -").
			withAdvice("the cluster admits pods of priority class " + o.pod.PriorityClassName + " only in namespaces with " +
				"such a quota, which limits nothing; with Helm, set provider.resourceQuota: true instead")
	case contains("unable to validate against any security context constraint"):
		// Not the constraints named privileged, which allow everything.
		return f.withFix(command("kubectl", "-n", o.namespace, "describe", strings.ToLower(o.kind), o.name)).
			withAdvice("with Helm, set provider.securityContextConstraints: true: those constraints allow the provider only " +
				"what it needs (docs/install.md)")
	case contains("violates PodSecurity"):
		const level = "pod-security.kubernetes.io/enforce=privileged"
		return f.withFix(command("kubectl", "label", "namespace", o.namespace, level)).
			withAdvice("the command fails if the namespace has a level already: then install the provider in a namespace of " +
				"its own (docs/install.md, In two namespaces)")
	case contains("exceeded quota"), contains("must specify"):
		return f.withFix(command("kubectl", "-n", o.namespace, "describe", "quota"))
	case contains("no PriorityClass"):
		return f.withFix(command("kubectl", "get", "priorityclasses"))
	case contains(`serviceaccount "` + account + `" not found`), contains("error looking up service account"):
		return f.withFix(command("kubectl", "-n", o.namespace, "create", "serviceaccount", account))
	}
	return f.withFix(command("kubectl", "-n", o.namespace, "describe", strings.ToLower(o.kind), o.name))
}

// checkRotator checks that the pods of the rotator can be created.
func (w *run) checkRotator(ctx context.Context) finding {
	var jobs []batchv1.CronJob
	namespaces := []string{w.ProviderNamespace}
	if w.ProviderNamespace != systemNamespace {
		namespaces = append(namespaces, systemNamespace) // an installation in two namespaces
	}
	for _, namespace := range namespaces {
		list, err := w.Kube.BatchV1().CronJobs(namespace).List(ctx, metav1.ListOptions{LabelSelector: rotatorLabel})
		if err != nil {
			return requestFailed("list cronjobs.batch -n "+namespace, err)
		}
		jobs = append(jobs, list.Items...)
	}
	if len(jobs) == 0 {
		return okf("not installed in namespace %s", strings.Join(namespaces, " or "))
	}
	f := okf("CronJob %s/%s", jobs[0].Namespace, jobs[0].Name)
	for i := range jobs {
		job := &jobs[i]
		if broken, found := w.refusedRun(ctx, job); found {
			return broken
		}
		if job.Spec.Suspend != nil && *job.Spec.Suspend {
			f = f.withWarning("CronJob " + job.Namespace + "/" + job.Name + " is suspended: no key is rotated")
		}
	}
	return f
}

// refusedRun returns the finding that the last run of a CronJob has no pod because its creation was refused.
func (w *run) refusedRun(ctx context.Context, job *batchv1.CronJob) (finding, bool) {
	template := job.Spec.JobTemplate.Spec.Template.Spec
	list, err := w.Kube.BatchV1().Jobs(job.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return finding{}, false
	}
	runs := slices.DeleteFunc(list.Items, func(j batchv1.Job) bool {
		return !slices.ContainsFunc(j.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == job.UID })
	})
	var since time.Time
	if len(runs) > 0 {
		last := slices.MaxFunc(runs, func(a, b batchv1.Job) int {
			return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
		})
		since = last.CreationTimestamp.Time
		// Otherwise it has, or had, a pod.
		if s := last.Status; s.Active+s.Succeeded+s.Failed == 0 {
			if f, found := w.refused(ctx, owner{"Job", last.Namespace, last.Name, last.UID, template}, since); found {
				return f, true
			}
		}
	}
	return w.refused(ctx, owner{"CronJob", job.Namespace, job.Name, job.UID, template}, since)
}

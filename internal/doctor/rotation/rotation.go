// Package rotation checks the chain of the rotation: CronJob, last runs, role, retirement and exporter.
package rotation

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/internal/doctor/workload"
	"github.com/secretmanager-io/secretmanager/internal/exporter"
	"github.com/secretmanager-io/secretmanager/rotator"
)

const (
	rotatorLabel  = "app.kubernetes.io/name=secretmanager-rotator"
	exporterLabel = "app.kubernetes.io/name=secretmanager-exporter"

	// overdueAfter is the delay of a run after which the alert SecretManagerRotationOverdue fires.
	overdueAfter = 3 * time.Hour
)

// Chain is the rotation of a cluster. [Chain.CheckRotator] finds the CronJob that the other checks need.
type Chain struct {
	Kube       kubernetes.Interface
	Namespaces []string // where it can be installed
	Program    string   // name of this program in commands
	Now        func() time.Time

	Job     *batchv1.CronJob // nil if it could not be read
	Args    []string         // of the rotator
	absent  bool             // it is not installed
	summary *rotator.Summary // nil if it could not be read
}

// Container returns the container of the rotator; others may have been injected.
func Container(job *batchv1.CronJob) corev1.Container {
	containers := job.Spec.JobTemplate.Spec.Template.Spec.Containers
	if i := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == "rotator" }); i >= 0 {
		return containers[i]
	}
	return containers[0]
}

// transitKeys returns the keys that the rotator's --transit-key selects: names or patterns.
func (w *Chain) transitKeys() (keys []ciphertext.Key) {
	mount, found := workload.FlagValue(w.Args, "transit-mount")
	if !found {
		mount = ciphertext.DefaultTransitMount
	}
	for _, text := range workload.FlagValues(w.Args, "transit-key") {
		name, _, _ := strings.Cut(text, "=")
		key := ciphertext.Key{Mount: strings.Trim(mount, "/"), Name: name}
		if slash := strings.LastIndex(name, "/"); slash >= 0 {
			key = ciphertext.Key{Mount: name[:slash], Name: name[slash+1:]}
		}
		keys = append(keys, key)
	}
	return keys
}

// CheckRotator checks that the CronJob starts runs.
func (w *Chain) CheckRotator(ctx context.Context) result.Finding {
	var jobs []batchv1.CronJob
	for _, namespace := range w.Namespaces {
		list, err := w.Kube.BatchV1().CronJobs(namespace).List(ctx, metav1.ListOptions{LabelSelector: rotatorLabel})
		if err != nil {
			return result.RequestFailed("list cronjobs.batch -n "+namespace, err)
		}
		jobs = append(jobs, list.Items...)
	}
	if len(jobs) == 0 {
		return w.noCronJob(ctx)
	}
	job := &jobs[0]
	w.Job = job
	c := Container(job)
	w.Args = append(slices.Clone(c.Command), c.Args...)
	name := job.Namespace + "/" + job.Name
	for i := range jobs {
		if broken, found := w.refusedRun(ctx, &jobs[i]); found {
			return broken
		}
	}
	f := result.OKf("CronJob %s, at %s", name, job.Spec.Schedule)
	switch suspended := job.Spec.Suspend != nil && *job.Spec.Suspend; {
	case suspended && len(w.transitKeys()) == 0:
		return f.WithWarning("CronJob " + name + " is suspended, as its --transit-key selects no key: no key is rotated " +
			"(docs/rotation.md#which-keys)")
	case suspended:
		const patch = `[{"op":"test","path":"/spec/suspend","value":true},{"op":"replace","path":"/spec/suspend",` +
			`"value":false}]`
		return result.Brokenf("CronJob %s is suspended: no key is rotated", name).
			WithFix(result.Command("kubectl", "-n", job.Namespace, "patch", "cronjob", job.Name, "--type=json", "-p",
				patch)).
			WithAdvice("ask first if somebody suspended it on purpose, such as during a restore of Vault; with Helm, also set " +
				"rotator.suspend: false")
	}
	return f
}

// noCronJob returns the finding for a cluster without a CronJob of the rotator. The state shows whether there was one.
func (w *Chain) noCronJob(ctx context.Context) result.Finding {
	where := strings.Join(w.Namespaces, " or ")
	for _, namespace := range w.Namespaces {
		if _, err := w.Kube.CoreV1().ConfigMaps(namespace).Get(ctx, rotator.StateName, metav1.GetOptions{}); err == nil {
			return result.Brokenf("the CronJob of the rotator does not exist in namespace %s, but ConfigMap %s/%s has the "+
				"state of its runs", where, namespace, rotator.StateName).
				WithAdvice("nothing rotates the keys: apply the chart or the manifests again (docs/install.md, 3. Provider and " +
					"rotator)")
		}
	}
	w.absent = true
	return result.OKf("not installed in namespace %s", where)
}

// jobsOf returns the Jobs of a CronJob, the newest first.
func (w *Chain) jobsOf(ctx context.Context, job *batchv1.CronJob) ([]batchv1.Job, error) {
	list, err := w.Kube.BatchV1().Jobs(job.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	runs := slices.DeleteFunc(list.Items, func(j batchv1.Job) bool {
		return !slices.ContainsFunc(j.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == job.UID })
	})
	slices.SortStableFunc(runs, func(a,
		b batchv1.Job) int {
		return b.CreationTimestamp.Compare(a.CreationTimestamp.Time)
	})
	return runs, nil
}

// refusedRun returns the finding that the last run of a CronJob has no pod because its creation was refused.
func (w *Chain) refusedRun(ctx context.Context, job *batchv1.CronJob) (result.Finding, bool) {
	template := job.Spec.JobTemplate.Spec.Template.Spec
	runs, err := w.jobsOf(ctx, job)
	if err != nil {
		return result.Finding{}, false
	}
	var since time.Time
	if len(runs) > 0 {
		last := runs[0]
		since = last.CreationTimestamp.Time
		// Otherwise it has, or had, a pod.
		if s := last.Status; s.Active+s.Succeeded+s.Failed == 0 {
			if f, found := (&workload.Workload{Kind: "Job", Namespace: last.Namespace, Name: last.Name, UID: last.UID,
				Template: template}).Refused(ctx, w.Kube, since); found {
				return f, true
			}
		}
	}
	return (&workload.Workload{Kind: "CronJob", Namespace: job.Namespace, Name: job.Name, UID: job.UID,
		Template: template}).Refused(ctx, w.Kube, since)
}

// CheckRun checks the last runs: that there was one in time, and that it succeeded.
func (w *Chain) CheckRun(ctx context.Context) result.Finding {
	job := w.Job
	switch {
	case w.absent:
		return result.OKf("the rotator is not installed")
	case job == nil:
		return result.Unknownf("the CronJob of the rotator could not be read")
	}
	summary, err := rotator.FetchSummary(ctx, w.Kube, job.Namespace)
	if apierrors.IsForbidden(err) {
		return result.RequestFailed("get configmaps -n "+job.Namespace, err)
	}
	if err != nil {
		return result.Brokenf("the state of the rotator cannot be read: %s", result.OneLine(err))
	}
	w.summary = summary
	if f, found := w.hangingRun(ctx, job); found {
		return f
	}
	logs := result.Command("kubectl", "-n", job.Namespace, "logs", "-l", rotatorLabel, "--tail=50", "--prefix")
	suspended := job.Spec.Suspend != nil && *job.Spec.Suspend
	due, err := exporter.Due(job, summary.Started)
	switch {
	case err != nil:
		return result.Brokenf("%s: the CronJob starts no run", result.OneLine(err))
	case !suspended && w.Now().After(due.Add(overdueAfter)):
		last := "there was no run yet"
		if !summary.Finished.IsZero() {
			last = "the last run ended at " + summary.Finished.UTC().Format(time.RFC3339)
		}
		return result.Brokenf("a run was due at %s, and has left no record; %s", due.UTC().Format(time.RFC3339), last).
			WithInspect(result.Command("kubectl", "-n", job.Namespace, "get", "jobs,pods", "-l", rotatorLabel),
				result.Command("kubectl", "-n", job.Namespace, "describe", "cronjob", job.Name))
	case summary.Finished.IsZero():
		return result.OKf("no run yet; the first one is due at %s", due.UTC().Format(time.RFC3339))
	}
	at := summary.Finished.UTC().Format(time.RFC3339)
	var failed []string
	for i := range summary.Keys {
		if k := &summary.Keys[i]; k.Error != "" && !k.Finished.Before(summary.Started) {
			failed = append(failed, fmt.Sprintf("%s/%s: %s", k.Mount, k.Name, k.Error))
		}
	}
	switch {
	case summary.Result == rotator.ResultFailed || summary.Result == rotator.ResultStopped:
		return result.Brokenf("the last run, at %s: %s%s", at, summary.Result, result.Named(failed)).WithInspect(logs).
			WithAdvice("docs/runbook.md#secretmanagerrotationfailed")
	case summary.Result == rotator.ResultIncomplete:
		return result.OKf("the last run ended at %s", at).
			WithWarning("some entries keep an older version, or Secrets name no key: " +
				result.Command(w.Program, "status", "-A") + " shows them")
	}
	return result.OKf("the last run ended at %s: %s", at, cmp.Or(string(summary.Result), "result unknown"))
}

// hangingRun returns the finding that a pod of the last run waits, because its volume or its image is missing.
func (w *Chain) hangingRun(ctx context.Context, job *batchv1.CronJob) (result.Finding, bool) {
	pods, err := w.Kube.CoreV1().Pods(job.Namespace).List(ctx, metav1.ListOptions{LabelSelector: rotatorLabel})
	if err != nil {
		return result.Finding{}, false
	}
	for i := range pods.Items {
		if p := &pods.Items[i]; workload.Hangs(p, w.Now()) {
			message := cmp.Or(workload.LastFailedMount(ctx, w.Kube, p), workload.WhyNotReady(p))
			return result.Brokenf("pod %s of a run waits: %s", p.Name, result.Clip(message)).
				WithInspect(result.Command("kubectl", "-n", p.Namespace, "describe", "pod", p.Name)), true
		}
	}
	return result.Finding{}, false
}

// CheckRetirement shows why old versions of a key are not retired.
func (w *Chain) CheckRetirement(context.Context) result.Finding {
	summary := w.summary
	if w.absent {
		return result.OKf("the rotator is not installed")
	}
	if summary == nil {
		return result.Unknownf("the state of the rotator could not be read")
	}
	if value, found := workload.FlagValue(w.Args, "retire"); !found || value == "false" {
		return result.OKf("off: old versions of keys stay usable")
	}
	var blocked, waiting []string
	for i := range summary.Keys {
		k := &summary.Keys[i]
		switch r := k.Retire; {
		case r == nil || r.Blocked == "" || r.Done:
		case r.Blocked == rotator.BlockerSearch:
			waiting = append(waiting, fmt.Sprintf("%s/%s: %s", k.Mount, k.Name, r.Reason))
		default:
			text := fmt.Sprintf("%s/%s: %s", k.Mount, k.Name, r.Reason)
			if len(r.WouldBreak) > 0 {
				text += ", such as " + r.WouldBreak[0].String()
			}
			blocked = append(blocked, text)
		}
	}
	f := result.OKf("nothing prevents the retirement of old versions")
	if len(blocked) > 0 {
		f = result.Brokenf("old versions of %d keys are not retired%s", len(blocked), result.Named(blocked)).
			WithAdvice("not urgent: docs/rotation.md describes each condition, and status --simulate-retire what would break")
	}
	if len(waiting) > 0 {
		f = f.WithWarning("the search for old ciphertext continues in the next run" + result.Named(waiting))
	}
	return f
}

// CheckExporter checks that the metrics of the runs are served, without which no alert about the rotation fires.
func (w *Chain) CheckExporter(ctx context.Context) result.Finding {
	var all []appsv1.Deployment
	for _, namespace := range w.Namespaces {
		list, err := w.Kube.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{LabelSelector: exporterLabel})
		if err != nil {
			return result.RequestFailed("list deployments.apps -n "+namespace, err)
		}
		all = append(all, list.Items...)
	}
	if len(all) == 0 {
		f := result.OKf("not installed in namespace %s", strings.Join(w.Namespaces, " or "))
		if w.Job != nil {
			return f.WithWarning("without the exporter no alert about the rotation fires")
		}
		return f
	}
	d := &all[0]
	name := d.Namespace + "/" + d.Name
	kubectl := func(words ...string) string {
		return result.Command(append([]string{"kubectl", "-n", d.Namespace}, words...)...)
	}
	switch {
	case d.Spec.Replicas != nil && *d.Spec.Replicas == 0:
		return result.Brokenf("Deployment %s has 0 replicas: no alert about the rotation fires", name).
			WithFix(kubectl("scale", "deployment", d.Name, "--current-replicas=0", "--replicas=1"))
	case d.Status.ObservedGeneration == 0:
		return result.Unknownf("no controller has seen Deployment %s yet", name)
	case d.Status.ReadyReplicas > 0:
		return result.OKf("Deployment %s, ready", name)
	}
	if f, found := (&workload.Workload{Kind: "Deployment", Namespace: d.Namespace, Name: d.Name, UID: d.UID,
		Template: d.Spec.Template.Spec}).RefusedPods(ctx, w.Kube); found {
		return f
	}
	f := result.Brokenf("no pod of Deployment %s is ready: no alert about the rotation fires", name).
		WithInspect(kubectl("describe", "pods", "-l", exporterLabel), kubectl("logs", "-l", exporterLabel, "--tail=50"))
	if pods, err := w.Kube.CoreV1().Pods(d.Namespace).
		List(ctx, metav1.ListOptions{LabelSelector: exporterLabel}); err == nil && len(pods.Items) > 0 {
		f.Detail += " (" + pods.Items[0].Name + ": " + workload.WhyNotReady(&pods.Items[0]) + ")"
	}
	return f
}

// rotatorMount returns the auth mount of the rotator, and its Vault namespace.
func (w *Chain) rotatorMount(v Vault, env map[string]string) (namespace, mount string) {
	namespace = cmp.Or(env["VAULT_NAMESPACE"], v.Namespace)
	if value, found := workload.FlagValue(w.Args, "vault-namespace"); found {
		namespace = value
	}
	mount, found := workload.FlagValue(w.Args, "vault-auth-mount")
	if !found {
		mount = class.DefaultAuthMount
	}
	return namespace, strings.Trim(mount, "/")
}

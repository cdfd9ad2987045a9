// Package workload reads the controllers of pods, and why their pods are not created or do not start.
package workload

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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
)

// KindNames are the kinds of workloads, by the names that kubectl takes.
var KindNames = map[string][]string{
	"Pod":         {"pod", "pods", "po"},
	"Deployment":  {"deployment", "deployments", "deploy"},
	"StatefulSet": {"statefulset", "statefulsets", "sts"},
	"DaemonSet":   {"daemonset", "daemonsets", "ds"},
	"ReplicaSet":  {"replicaset", "replicasets", "rs"},
	"Job":         {"job", "jobs"},
	"CronJob":     {"cronjob", "cronjobs", "cj"},
}

// ParseTarget parses POD or TYPE/NAME, as kubectl takes it. The kind is empty if the type is not known.
func ParseTarget(text string) (kind, name string) {
	resource, name, found := strings.Cut(text, "/")
	if !found {
		return "Pod", text
	}
	resource, _, _ = strings.Cut(strings.ToLower(resource), ".") // such as deployments.apps
	for kind, names := range KindNames {
		if slices.Contains(names, resource) {
			return kind, name
		}
	}
	return "", name
}

// Workload is a controller of pods.
type Workload struct {
	Kind, Namespace, Name string
	UID                   types.UID
	Template              corev1.PodSpec
	At                    string // path of the template's spec in the object

	owners []metav1.OwnerReference
}

func (l *Workload) String() string { return l.Kind + " " + l.Namespace + "/" + l.Name }

// Get reads a workload.
func Get(ctx context.Context, kube kubernetes.Interface, namespace, kind, name string) (*Workload, error) {
	const at = "/spec/template/spec"
	wrap := func(m metav1.ObjectMeta, template corev1.PodTemplateSpec, at string, err error) (*Workload, error) {
		if err != nil {
			return nil, err
		}
		return &Workload{Kind: kind, Namespace: namespace, Name: name, UID: m.UID, Template: template.Spec, At: at,
			owners: m.OwnerReferences}, nil
	}
	apps, batch, get := kube.AppsV1(), kube.BatchV1(), metav1.GetOptions{}
	switch kind {
	case "Deployment":
		o, err := apps.Deployments(namespace).Get(ctx, name, get)
		return wrap(cmp.Or(o, &appsv1.Deployment{}).ObjectMeta, cmp.Or(o, &appsv1.Deployment{}).Spec.Template, at, err)
	case "StatefulSet":
		o, err := apps.StatefulSets(namespace).Get(ctx, name, get)
		return wrap(cmp.Or(o, &appsv1.StatefulSet{}).ObjectMeta, cmp.Or(o, &appsv1.StatefulSet{}).Spec.Template, at, err)
	case "DaemonSet":
		o, err := apps.DaemonSets(namespace).Get(ctx, name, get)
		return wrap(cmp.Or(o, &appsv1.DaemonSet{}).ObjectMeta, cmp.Or(o, &appsv1.DaemonSet{}).Spec.Template, at, err)
	case "ReplicaSet":
		o, err := apps.ReplicaSets(namespace).Get(ctx, name, get)
		return wrap(cmp.Or(o, &appsv1.ReplicaSet{}).ObjectMeta, cmp.Or(o, &appsv1.ReplicaSet{}).Spec.Template, at, err)
	case "Job":
		o, err := batch.Jobs(namespace).Get(ctx, name, get)
		return wrap(cmp.Or(o, &batchv1.Job{}).ObjectMeta, cmp.Or(o, &batchv1.Job{}).Spec.Template, at, err)
	case "CronJob":
		o, err := batch.CronJobs(namespace).Get(ctx, name, get)
		return wrap(cmp.Or(o, &batchv1.CronJob{}).ObjectMeta, cmp.Or(o, &batchv1.CronJob{}).Spec.JobTemplate.Spec.Template,
			"/spec/jobTemplate"+at, err)
	}
	return nil, fmt.Errorf("pods of a %s are not supported", kind)
}

// Controller returns the workload whose template made a pod: the outermost controller. It is nil for a pod without
// one, and where it cannot be read.
func Controller(ctx context.Context, kube kubernetes.Interface, pod *corev1.Pod) (found *Workload) {
	owners := pod.OwnerReferences
	for range 3 { // Pod, ReplicaSet or Job, Deployment or CronJob
		i := slices.IndexFunc(owners, func(r metav1.OwnerReference) bool { return r.Controller != nil && *r.Controller })
		if i < 0 {
			break
		}
		next, err := Get(ctx, kube, pod.Namespace, owners[i].Kind, owners[i].Name)
		if err != nil || next.UID != owners[i].UID {
			break
		}
		found, owners = next, next.owners
	}
	return found
}

// Pod returns the pod of a workload to check: one that waits, or else the newest. all has every pod.
func (l *Workload) Pod(ctx context.Context, kube kubernetes.Interface) (pod *corev1.Pod, all int, err error) {
	list, err := kube.CoreV1().Pods(l.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, 0, err
	}
	owned := map[types.UID]bool{l.UID: true}
	owns := func(refs []metav1.OwnerReference) bool {
		return slices.ContainsFunc(refs, func(r metav1.OwnerReference) bool { return owned[r.UID] })
	}
	switch l.Kind {
	case "Deployment":
		sets, err := kube.AppsV1().ReplicaSets(l.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, 0, err
		}
		for _, set := range sets.Items {
			if owns(set.OwnerReferences) {
				owned[set.UID] = true
			}
		}
	case "CronJob":
		jobs, err := kube.BatchV1().Jobs(l.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, 0, err
		}
		for _, job := range jobs.Items {
			if owns(job.OwnerReferences) {
				owned[job.UID] = true
			}
		}
	}
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return !owns(p.OwnerReferences) })
	if len(pods) == 0 {
		return nil, 0, nil
	}
	rank := func(p *corev1.Pod) int {
		switch {
		case p.DeletionTimestamp != nil:
			return 2
		case p.Status.Phase == corev1.PodPending || p.Status.Phase == "":
			return 0
		}
		return 1
	}
	first := slices.MinFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Or(rank(&a)-rank(&b), b.CreationTimestamp.Compare(a.CreationTimestamp.Time))
	})
	return &first, len(pods), nil
}

// RefusedPods returns the finding that the controller of a workload, or of its newest ReplicaSet, may not create pods.
func (l *Workload) RefusedPods(ctx context.Context, kube kubernetes.Interface) (result.Finding, bool) {
	if f, found := l.Refused(ctx, kube, time.Time{}); found || l.Kind != "Deployment" {
		return f, found
	}
	sets, err := kube.AppsV1().ReplicaSets(l.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return result.Finding{}, false
	}
	owned := slices.DeleteFunc(sets.Items, func(r appsv1.ReplicaSet) bool {
		return !slices.ContainsFunc(r.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == l.UID })
	})
	if len(owned) == 0 {
		return result.Finding{}, false
	}
	set := slices.MaxFunc(owned, func(a, b appsv1.ReplicaSet) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	return (&Workload{Kind: "ReplicaSet", Namespace: set.Namespace, Name: set.Name, UID: set.UID, Template: l.Template}).
		Refused(ctx, kube, time.Time{})
}

// Environment returns the environment of a container without the values from Secrets, which it does
// not read. secret is the Secret that may have the address of Vault; problem is why a ConfigMap
// could not be read.
func Environment(ctx context.Context, kube kubernetes.Interface, namespace string,
	c corev1.Container) (env map[string]string, secret, problem string) {
	env = map[string]string{}
	configMap := func(name string, optional *bool) map[string]string {
		m, err := kube.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			if optional == nil || !*optional {
				problem = result.OneLine(err)
			}
			return nil
		}
		return m.Data
	}
	for _, from := range c.EnvFrom {
		if ref := from.SecretRef; ref != nil {
			secret = ref.Name
		}
		if ref := from.ConfigMapRef; ref != nil {
			for name, value := range configMap(ref.Name, ref.Optional) {
				env[from.Prefix+name] = value
			}
		}
	}
	for _, e := range c.Env {
		env[e.Name] = e.Value
		if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
			ref := e.ValueFrom.ConfigMapKeyRef
			env[e.Name] = configMap(ref.Name, ref.Optional)[ref.Key]
		}
		if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && e.Name == "VAULT_ADDR" {
			secret = e.ValueFrom.SecretKeyRef.Name
		}
	}
	return env, secret, problem
}

// FlagValue returns the value of a flag, given as --name=value or --name value. The last one
// applies.
func FlagValue(args []string, name string) (value string, found bool) {
	values := FlagValues(args, name)
	if len(values) == 0 {
		return "", false
	}
	return values[len(values)-1], true
}

// FlagValues returns all values of a flag.
func FlagValues(args []string, name string) (values []string) {
	for i, arg := range args {
		flag := strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
		if flag == arg {
			continue
		}
		if v, ok := strings.CutPrefix(flag, name+"="); ok {
			values = append(values, v)
		} else if flag == name {
			value := ""
			if i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				value = args[i+1]
			}
			values = append(values, value)
		}
	}
	return values
}

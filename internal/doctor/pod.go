package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	spcv1 "sigs.k8s.io/secrets-store-csi-driver/apis/v1"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/internal/doctor/workload"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// podNode returns the node of the pod to check; empty for none.
func (w *run) podNode(ctx context.Context) string {
	if pod := w.load(ctx).pod; pod != nil {
		return pod.Spec.NodeName
	}
	return ""
}

func (w *run) kubectl(words ...string) string {
	return result.Command(append([]string{"kubectl", "-n", w.Namespace}, words...)...)
}

func (w *run) checkPod(ctx context.Context) result.Finding {
	s := w.load(ctx)
	if apierrors.IsNotFound(s.podErr) {
		return w.podMissing(ctx)
	}
	if s.podErr != nil {
		right := "get pods"
		if w.Kind != "" && w.Kind != "Pod" {
			right = "get " + strings.ToLower(w.Kind) + "s, and list the pods"
		}
		f := result.RequestFailed(right+" -n "+w.Namespace, s.podErr)
		f.Detail += "; --class and --service-account do not need it"
		return f
	}
	var problems []string
	ours := 0
	for _, v := range s.pod.Spec.Volumes {
		if v.CSI == nil || v.CSI.Driver != driverName {
			continue
		}
		ours++
		if v.CSI.VolumeAttributes[class.AttributeClass] == "" {
			problems = append(problems, "volume "+v.Name+" has no volumeAttributes.secretProviderClass")
		}
		if v.CSI.ReadOnly == nil || !*v.CSI.ReadOnly {
			problems = append(problems, "volume "+v.Name+" is not readOnly: true, which the driver requires")
		}
	}
	switch {
	case ours == 0:
		return result.Brokenf("it has no volume of the driver %s", driverName).
			WithAdvice("docs/install.md shows a pod (6. Mount a Secret in a pod); volumes cannot be added to an existing pod")
	case len(problems) > 0:
		return result.Brokenf("%s", strings.Join(problems, "; ")).
			WithAdvice("fix it in the template of the pod: volumes of an existing pod cannot be changed")
	case len(s.classes) == 0:
		return result.Brokenf("its volumes of the driver are of other providers")
	case s.fromTemplate && s.refused != nil:
		return *s.refused
	case s.fromTemplate:
		f := result.OKf("%s has no pod, so its template is checked", s.workload)
		return f.WithWarning("nothing has been mounted: " + s.workload.String() + " has no pod")
	case s.pod.Spec.NodeName == "":
		return result.Brokenf("it has not been scheduled to a node yet, so nothing has been mounted").
			WithInspect(w.kubectl("describe", "pod", s.pod.Name))
	}
	f := result.OKf("%s on node %s", s.pod.Status.Phase, s.pod.Spec.NodeName)
	if s.workload != nil {
		f.Detail = fmt.Sprintf("pod %s, one of %d of %s: %s", s.pod.Name, s.pods, s.workload, f.Detail)
	}
	for _, text := range subPathMounts(s.pod.Spec) {
		f = f.WithWarning(text)
	}
	return f
}

// subPathMounts warns of single files of the driver's volumes: the kubelet binds them once, so a container
// never sees new values.
func subPathMounts(pod corev1.PodSpec) (warnings []string) {
	ours := map[string]bool{}
	for _, v := range pod.Volumes {
		ours[v.Name] = v.CSI != nil && v.CSI.Driver == driverName
	}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		for _, m := range c.VolumeMounts {
			if ours[m.Name] && (m.SubPath != "" || m.SubPathExpr != "") {
				warnings = append(warnings, fmt.Sprintf("container %s mounts %s of volume %s by subPath, and never sees new "+
					"values: mount the whole volume", c.Name, cmp.Or(m.SubPath, m.SubPathExpr), m.Name))
			}
		}
	}
	return warnings
}

// checkPods looks for pods that wait now.
func (w *run) checkPods(ctx context.Context) result.Finding {
	return workload.Waiting{Kube: w.Kube, Namespace: w.Namespace, Program: w.program(), Now: w.Now,
		ClassOf: classOf}.Check(ctx)
}

// checkMountLast checks whether the volumes were mounted, unless another check is broken, which is
// the cause then.
func (w *run) checkMountLast(ctx context.Context, subject string) {
	for _, c := range w.checks {
		// These do not prevent a mount.
		if c.State == Broken && !slices.Contains([]string{"rotation", "rotator", "vault-clock", "label",
			"rotator-run", "rotator-role", "retirement", "exporter"}, c.Name) {
			w.causes[subject+"/"+c.Name] = c.Name
			w.check(ctx, subject, "mount", []string{c.Name}, nil)
			return
		}
	}
	w.check(ctx, subject, "mount", nil, w.checkMount)
}

func (w *run) checkMount(ctx context.Context) result.Finding {
	pod := w.target.pod
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return result.OKf("the pod has terminated")
	}
	started := firstStart(pod)
	if started.IsZero() {
		return w.explainEvents(ctx)
	}
	for _, c := range w.target.classes {
		raw, err := w.raw(ctx, driverAPI+"/namespaces/"+w.Namespace+"/secretproviderclasspodstatuses/"+pod.Name+"-"+
			pod.Namespace+"-"+c.name)
		var status spcv1.SecretProviderClassPodStatus
		if err == nil {
			err = json.Unmarshal(raw, &status)
		}
		missing := apierrors.IsNotFound(err)
		if err != nil && !missing {
			return result.RequestFailed("get secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io -n "+w.Namespace, err)
		}
		// Both times are whole seconds.
		if missing || status.CreationTimestamp.After(started) {
			return result.Brokenf("its containers started before the volume of class %s was mounted: the volume that they see "+
				"is empty (docs/failures.md)", c.name).
				WithFix(w.kubectl("delete", "pod", pod.Name)).
				WithAdvice("its controller creates a new one; a pod without a controller must be created again")
		}
	}
	return result.OKf("mounted before its containers started")
}

// firstStart returns the time when the first of the running containers started.
func firstStart(pod *corev1.Pod) (first time.Time) {
	for _, c := range pod.Status.ContainerStatuses {
		if running := c.State.Running; running != nil && (first.IsZero() || running.StartedAt.Time.Before(first)) {
			first = running.StartedAt.Time
		}
	}
	return first
}

// explainEvents returns the finding for the last event of a failed mount.
func (w *run) explainEvents(ctx context.Context) result.Finding {
	pod := w.target.pod
	list, err := w.Kube.CoreV1().Events(w.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.kind=Pod,involvedObject.name=" + pod.Name + ",reason=FailedMount",
	})
	if err != nil {
		return result.RequestFailed("list events -n "+w.Namespace, err)
	}
	events := slices.DeleteFunc(list.Items, func(e corev1.Event) bool {
		return e.InvolvedObject.UID != "" && e.InvolvedObject.UID != pod.UID // of an older pod of that name
	})
	if len(events) == 0 {
		return result.Unknownf("the kubelet has not reported a failed mount; this may be its first attempt").
			WithInspect(w.kubectl("describe", "pod", pod.Name))
	}
	last := slices.MaxFunc(events, func(a, b corev1.Event) int {
		return workload.EventTime(a).Compare(workload.EventTime(b))
	})
	_, text := failure.Parse(last.Message)
	why, inspect := explain(last.Message, w.Namespace, pod)
	when := "a mount failed"
	if last := workload.EventTime(last); !last.IsZero() {
		when = fmt.Sprintf("a mount failed %s ago", max(w.Now().Sub(last), 0).Truncate(time.Second))
	}
	return result.Brokenf("%s: %s", when, result.Clip(text)).WithInspect(inspect...).
		WithAdvice(
			strings.TrimPrefix(why+"; the kubelet retries within two minutes of the fix", "; "))
}

// explain returns a cause that no other check shows, because it is about the node, or about the time of the mount.
func explain(message, namespace string, pod *corev1.Pod) (why string, inspect []string) {
	onNode := result.Command("kubectl", "get", "pods", "-A", "-o", "wide", "--field-selector",
		"spec.nodeName="+pod.Spec.NodeName)
	logs := result.Command("kubectl", "-n", systemNamespace, "logs", "-l", providerLabel, "--since=15m", "--tail=-1")
	reason, _ := failure.Parse(message)
	switch reason {
	case failure.TokenMissing:
		return "the CSIDriver did not have that audience when the kubelet requested the tokens",
			[]string{result.Command("kubectl", "get", "csidriver", driverName, "-o", "yaml")}
	case failure.TokenExpired:
		return "the clock of the pod's node is wrong, or the token of the kubelet was old", []string{onNode}
	case failure.VaultUnreachable:
		return "Vault could not be reached from the pod's node: its network policies, firewalls and names differ " +
				"from those of this machine",
			[]string{logs}
	case failure.VaultSealed:
		return "Vault was sealed at that time", []string{"vault status"}
	case failure.VaultRateLimited:
		return "a quota of Vault limits the requests", []string{"vault list sys/quotas/rate-limit"}
	}
	// Messages of the kubelet and of the driver.
	const emptyVolume = "; the pod can start with an empty volume (docs/failures.md): check this pod again when it runs"
	for _, known := range []struct {
		text, why string
		fix       []string
	}{
		{"not found in the list of registered CSI drivers",
			"the driver does not run on the pod's node, or has not registered with the kubelet yet, or does so below " +
				"another directory than that of the kubelet (docs/install.md)", []string{onNode}},
		{"provider not found", "no provider has run on the pod's node since the driver started; once one runs, the " +
			"driver may take up to two minutes to find it, unless its pod there is deleted", []string{onNode}},
		{"NodePublishSecretRef", "the Secret in the pod's nodePublishSecretRef does not exist, or did not at that time",
			[]string{result.Command("kubectl", "-n", namespace, "get", "secrets")}},
		{"code = DeadlineExceeded", "the provider or the driver did not run, or was killed during a mount" +
			emptyVolume, []string{onNode, logs}},
		{"code = Unavailable", "the provider or the driver was killed during a mount" + emptyVolume, []string{onNode, logs}},
	} {
		if strings.Contains(message, known.text) {
			return known.why, known.fix
		}
	}
	return "", []string{result.Command("kubectl", "-n", namespace, "describe", "pod", pod.Name)}
}

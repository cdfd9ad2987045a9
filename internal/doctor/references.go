package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/internal/doctor/workload"
)

// checkReferences checks that what the installation names exists: ConfigMaps and Secrets of its pods, the namespaces of
// the rotator, and a PodMonitor if the cluster has the kind.
func (w *run) checkReferences(ctx context.Context) result.Finding {
	var missing, denied []string
	var f result.Finding
	look := func(owner, namespace string, spec *corev1.PodSpec) {
		for _, ref := range workload.References(spec) {
			switch exists, err := w.exists(ctx, namespace, ref.Resource, ref.Name); {
			case err != nil:
				denied = append(denied, "get "+ref.Resource+" -n "+namespace)
			case !exists:
				missing = append(missing, fmt.Sprintf("%s %s/%s, which %s needs", strings.TrimSuffix(ref.Resource, "s"), namespace,
					ref.Name, owner))
				if ref.Volume == "vault-ca" && ref.Resource == "configmaps" && w.Vault.CACert != "" {
					f = f.WithFix(result.Command("kubectl", "-n", namespace, "create", "configmap", ref.Name,
						"--from-file="+ref.Key+"="+w.Vault.CACert))
				}
			}
		}
	}
	if set := w.provider.set; set != nil {
		look("the provider", set.Namespace, &set.Spec.Template.Spec)
	}
	if job := w.rotation.Job; job != nil {
		look("the rotator", job.Namespace, &job.Spec.JobTemplate.Spec.Template.Spec)
		for _, flag := range []string{"namespace", "n"} {
			for _, name := range strings.FieldsFunc(strings.Join(workload.FlagValues(w.rotation.Args, flag), ","), isComma) {
				switch exists, err := w.exists(ctx, "", "namespaces", name); {
				case err != nil:
					denied = append(denied, "get namespaces")
				case !exists:
					missing = append(missing, "namespace "+name+", in which the rotator lists Secrets")
				}
			}
		}
	}
	if w.provider.set == nil && w.rotation.Job == nil {
		return result.Unknownf("neither provider nor rotator could be read")
	}
	slices.Sort(denied)
	denied = slices.Compact(denied)
	switch {
	case len(missing) > 0:
		broken := result.Brokenf("%s", strings.Replace(result.Named(missing), "; ", "these do not exist: ", 1))
		broken.Fix = f.Fix
		return broken.WithAdvice("apply what made them again, or correct the values of the chart")
	case len(denied) > 0:
		return result.Unknownf("you may not %s", strings.Join(denied, ", nor ")).
			WithAdvice("ask someone with that right: kubectl auth can-i " + denied[0])
	}
	return w.checkPodMonitor(ctx, result.OKf("what provider and rotator name exists"))
}

func isComma(r rune) bool { return r == ',' }

// exists reports whether an object exists. It requests only metadata: no value of a Secret is read.
func (w *run) exists(ctx context.Context, namespace, resource, name string) (bool, error) {
	path := "/api/v1/"
	if namespace != "" {
		path += "namespaces/" + namespace + "/"
	}
	_, err := w.Kube.Discovery().RESTClient().Get().AbsPath(path+resource+"/"+name).
		SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").Do(ctx).Raw()
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// checkPodMonitor adds a warning if the cluster has the Prometheus operator, and no PodMonitor selects the provider.
func (w *run) checkPodMonitor(ctx context.Context, f result.Finding) result.Finding {
	if w.provider.set == nil {
		return f
	}
	raw, err := w.raw(ctx, "/apis/monitoring.coreos.com/v1/podmonitors")
	if err != nil { // no operator, or no right to see what it selects
		return f
	}
	var list unstructured.UnstructuredList
	if json.Unmarshal(raw, &list) != nil {
		return f
	}
	own := labels.Set(w.provider.set.Spec.Template.Labels)
	for _, monitor := range list.Items {
		match, _, err := unstructured.NestedStringMap(monitor.Object, "spec", "selector", "matchLabels")
		selector := labels.SelectorFromSet(match)
		if err == nil && !selector.Empty() && selector.Matches(own) {
			return f
		}
	}
	return f.WithWarning("the cluster has the Prometheus operator, and no PodMonitor selects the provider: no alert " +
		"fires " +
		"(with Helm, monitoring.podMonitor.enabled: true; else kubectl apply -k manifests/monitoring)")
}

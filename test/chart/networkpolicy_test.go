package chart

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// parts returns the pods of each part of an installation, by its name without the
// installation's.
func (r *rendered) parts() map[string]corev1.PodTemplateSpec {
	parts := map[string]corev1.PodTemplateSpec{}
	for _, o := range r.objects {
		switch o := o.(type) {
		case *appsv1.DaemonSet:
			parts["provider"] = o.Spec.Template
		case *appsv1.Deployment:
			parts["exporter"] = o.Spec.Template
		case *batchv1.CronJob:
			parts["rotator"] = o.Spec.JobTemplate.Spec.Template
		}
	}
	return parts
}

// TestNetworkPolicies: each part has a policy, which selects its pods and no others,
// and lets connections come to its metrics alone. Everything is a default or, where it
// is an option, must not change that.
func TestNetworkPolicies(t *testing.T) {
	both := []string{"exporter", "provider", "rotator"}
	for _, test := range []struct {
		name, values string
		parts        []string
		egress       bool
	}{
		{"one release", ``, both, false},
		{"a release of the provider", `rotator: {enabled: false}`, []string{"provider"}, false},
		{"a release of the rotator", `provider: {enabled: false}`, []string{"exporter", "rotator"}, false},
		{"without the exporter", `exporter: {enabled: false}`, []string{"provider", "rotator"}, false},
		{"by another name", `name: other`, both, false},
		{"with labels", `{commonLabels: {owner: ops}, provider: {podLabels: {a: b}}, rotator: {podLabels: {a: b}}, exporter: {podLabels: {a: b}}}`, both, false},
		{"with egress", `networkPolicy: {egress: {enabled: true}}`, both, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := render(t, newHelm(t), manifestNamespace, test.values)
			parts := r.parts()
			checkNames(t, parts, test.parts)
			policies := map[string]*networkingv1.NetworkPolicy{} // by the part that they select
			for name, o := range r.objects {
				policy, ok := o.(*networkingv1.NetworkPolicy)
				if !ok {
					continue
				}
				selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
				if err != nil {
					t.Fatal(err)
				}
				selected := 0
				for part, pod := range parts {
					if selector.Empty() || !selector.Matches(labels.Set(pod.Labels)) {
						continue
					}
					selected++
					if policies[part] != nil {
						t.Errorf("two policies select the %s", part)
					}
					policies[part] = policy
				}
				if selected != 1 {
					t.Errorf("%s selects the pods of %d parts", name, selected)
				}
			}
			for part, pod := range parts {
				if policies[part] == nil {
					t.Errorf("no policy selects the %s, whose labels are %v", part, pod.Labels)
					continue
				}
				spec := policies[part].Spec
				types := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
				if test.egress {
					types = append(types, networkingv1.PolicyTypeEgress)
				}
				if !slices.Equal(spec.PolicyTypes, types) || (len(spec.Egress) > 0) != test.egress {
					t.Errorf("%s: policy types %v, egress %v", part, spec.PolicyTypes, spec.Egress)
				}
				if part == "rotator" {
					if len(spec.Ingress) > 0 {
						t.Errorf("into the rotator: %+v", spec.Ingress)
					}
					continue
				}
				if len(spec.Ingress) != 1 || len(spec.Ingress[0].Ports) != 1 || spec.Ingress[0].Ports[0].Port.StrVal != "metrics" || spec.Ingress[0].Ports[0].EndPort != nil {
					t.Errorf("into the %s: %+v", part, spec.Ingress)
				}
				// A name that no container has would let nobody in.
				ports := pod.Spec.Containers[0].Ports
				if !slices.ContainsFunc(ports, func(p corev1.ContainerPort) bool { return p.Name == "metrics" && p.ContainerPort == 9090 }) {
					t.Errorf("the %s has the ports %v", part, ports)
				}
				if pod.Spec.HostNetwork {
					t.Errorf("the %s is in the host's network, where a policy has no effect", part)
				}
			}
		})
	}
}

func checkNames(t *testing.T, parts map[string]corev1.PodTemplateSpec, want []string) {
	t.Helper()
	var names []string
	for name := range parts {
		names = append(names, name)
	}
	slices.Sort(names)
	if !slices.Equal(names, want) {
		t.Errorf("there are %q, want %q", names, want)
	}
}

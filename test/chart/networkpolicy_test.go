package chart

import (
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// TestNetworkPolicies: each component has a policy, which selects its pods and no others, and admits connections to its
// metrics only. All of that is the default, or an option that must not change it.
func TestNetworkPolicies(t *testing.T) {
	all := []string{"exporter", "provider", "rotator"}
	const podLabels = `{provider: {podLabels: {a: b}}, rotator: {podLabels: {a: b}}, exporter: {podLabels: {a: b}}}`
	for _, test := range []struct {
		name, values string
		components   []string
		egress       bool
	}{
		{"one release", ``, all, false},
		{"a release of the provider", `rotator: {enabled: false}`, []string{"provider"}, false},
		{"a release of the rotator", `provider: {enabled: false}`, []string{"exporter", "rotator"}, false},
		{"without the exporter", `exporter: {enabled: false}`, []string{"provider", "rotator"}, false},
		{"with another name", `nameOverride: other`, all, false},
		{"with labels", `commonLabels: {owner: ops}`, all, false},
		{"with labels of pods", podLabels, all, false},
		{"with egress", `networkPolicy: {egress: {enabled: true}}`, all, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := render(t, newHelm(t), manifestNamespace, test.values)
			pods := r.pods()
			if got := slices.Sorted(maps.Keys(pods)); !slices.Equal(got, test.components) {
				t.Errorf("components %q, want %q", got, test.components)
			}
			policies := policiesByComponent(t, r)
			for component, pod := range pods {
				if policies[component] == nil {
					t.Errorf("no policy selects the %s, whose labels are %v", component, pod.Labels)
					continue
				}
				checkPolicy(t, component, pod.Spec, policies[component].Spec, test.egress)
			}
		})
	}
}

// policiesByComponent returns the network policy of each component.
func policiesByComponent(t *testing.T, r *rendered) map[string]*networkingv1.NetworkPolicy {
	t.Helper()
	policies := map[string]*networkingv1.NetworkPolicy{}
	for name, o := range r.objects {
		policy, ok := o.(*networkingv1.NetworkPolicy)
		if !ok {
			continue
		}
		selected := 0
		for component, pod := range r.pods() {
			if !selects(t, &policy.Spec.PodSelector, pod.Labels) {
				continue
			}
			selected++
			if policies[component] != nil {
				t.Errorf("two policies select the %s", component)
			}
			policies[component] = policy
		}
		if selected != 1 {
			t.Errorf("%s selects the pods of %d components", name, selected)
		}
	}
	return policies
}

func checkPolicy(t *testing.T, component string, pod corev1.PodSpec, spec networkingv1.NetworkPolicySpec, egress bool) {
	t.Helper()
	types := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	if egress {
		types = append(types, networkingv1.PolicyTypeEgress)
	}
	if !slices.Equal(spec.PolicyTypes, types) || (len(spec.Egress) > 0) != egress {
		t.Errorf("%s: policy types %v, egress %v", component, spec.PolicyTypes, spec.Egress)
	}
	if component == "rotator" {
		if len(spec.Ingress) > 0 {
			t.Errorf("rotator: ingress %+v", spec.Ingress)
		}
		return
	}
	if len(spec.Ingress) != 1 || len(spec.Ingress[0].Ports) != 1 ||
		spec.Ingress[0].Ports[0].Port.StrVal != "metrics" || spec.Ingress[0].Ports[0].EndPort != nil {
		t.Errorf("%s: ingress %+v", component, spec.Ingress)
	}
	// A port name that no container has would admit no connection.
	if !slices.ContainsFunc(pod.Containers[0].Ports, func(p corev1.ContainerPort) bool {
		return p.Name == "metrics" && p.ContainerPort == 9090
	}) {
		t.Errorf("%s: ports %v", component, pod.Containers[0].Ports)
	}
	if pod.HostNetwork {
		t.Errorf("the %s has hostNetwork, so a policy has no effect", component)
	}
}

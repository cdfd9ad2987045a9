package chart

import (
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// policyOptions are values of the admission and the network policies. TestNetworkPolicies checks the selectors.
var policyOptions = []option{
	{"admission", `
admission:
  enabled: true
  failurePolicy: Ignore
  validationActions: [Warn, Audit]
  forbidPlaintext:
    enabled: true
    namespaceSelector: {matchLabels: {team: a}}
    exceptTypes: [kubernetes.io/tls]
    exceptUsers: ["system:serviceaccount:kube-system:driver"]`, func(t *testing.T, r *rendered) {
		for _, name := range []string{"ciphertext.secretmanager.io", "forbid-plaintext.secretmanager.io"} {
			policy := object[*admissionv1.ValidatingAdmissionPolicy](t, r, "ValidatingAdmissionPolicy "+name)
			binding := object[*admissionv1.ValidatingAdmissionPolicyBinding](t, r, "ValidatingAdmissionPolicyBinding "+name)
			want, got := []admissionv1.ValidationAction{admissionv1.Warn, admissionv1.Audit}, binding.Spec.ValidationActions
			if failure := *policy.Spec.FailurePolicy; !slices.Equal(got, want) || failure != admissionv1.Ignore {
				t.Errorf("%s: failure policy %v, actions %v", name, failure, got)
			}
			if strings.HasPrefix(name, "ciphertext") {
				continue
			}
			types, users := policy.Spec.MatchConditions[0].Expression, policy.Spec.MatchConditions[1].Expression
			if !strings.Contains(types, `["kubernetes.io/tls"]`) ||
				!strings.Contains(users, `["system:serviceaccount:kube-system:driver"]`) {
				t.Errorf("exceptions %s, %s", types, users)
			}
			if s := binding.Spec.MatchResources.NamespaceSelector; s.MatchLabels["team"] != "a" {
				t.Errorf("namespace selector %+v", s)
			}
		}
	}},
	{"peers that may scrape", `
networkPolicy: {enabled: true, metricsFrom: [{namespaceSelector: {matchLabels: {team: monitoring}}}]}`,
		func(t *testing.T, r *rendered) {
			for _, component := range []string{"provider", "exporter"} {
				p := object[*networkingv1.NetworkPolicy](t, r, "NetworkPolicy secretmanager-"+component)
				if in := p.Spec.Ingress; len(in) != 1 || len(in[0].From) != 1 ||
					in[0].From[0].NamespaceSelector.MatchLabels["team"] != "monitoring" {
					t.Errorf("%s: ingress %+v", component, in)
				}
			}
		}},
	{"ports that the pods connect to", `
networkPolicy: {egress: {enabled: true, ports: [{port: 53, protocol: UDP}, {port: 8200}]}}`,
		func(t *testing.T, r *rendered) {
			for _, component := range []string{"provider", "rotator", "exporter"} {
				spec := object[*networkingv1.NetworkPolicy](t, r, "NetworkPolicy secretmanager-"+component).Spec
				if !slices.Contains(spec.PolicyTypes, networkingv1.PolicyTypeEgress) || len(spec.Egress) != 1 ||
					len(spec.Egress[0].To) > 0 || len(spec.Egress[0].Ports) != 2 || spec.Egress[0].Ports[1].Port.IntVal != 8200 {
					t.Errorf("%s: egress %+v", component, spec)
				}
			}
		}},
	{"no network policies", `networkPolicy: {enabled: false, egress: {enabled: true}}`, func(t *testing.T, r *rendered) {
		checkAbsent(t, r, "NetworkPolicy")
	}},
}

package chart

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// releaseOptions are the defaults, and values that concern all components.
var releaseOptions = []option{
	{"defaults", ``, func(t *testing.T, r *rendered) {
		want := []string{
			"ClusterRole secretmanager-rotator", "ConfigMap secretmanager-rotation", "ConfigMap secretmanager-rotation-0",
			"ConfigMap secretmanager-rotation-1", "ConfigMap secretmanager-rotation-2", "ConfigMap secretmanager-rotation-3",
			"ConfigMap secretmanager-vault",
			"CronJob secretmanager-rotator", "DaemonSet secretmanager-provider", "Deployment secretmanager-exporter",
			"Lease secretmanager-rotation", "NetworkPolicy secretmanager-exporter",
			"NetworkPolicy secretmanager-provider", "NetworkPolicy secretmanager-rotator",
			"Role secretmanager-exporter", "Role secretmanager-rotator",
			"RoleBinding secretmanager-exporter", "RoleBinding secretmanager-rotator",
			"ServiceAccount secretmanager-exporter", "ServiceAccount secretmanager-provider",
			"ServiceAccount secretmanager-rotator",
			"ValidatingAdmissionPolicy secretmanager-rotator", "ValidatingAdmissionPolicyBinding secretmanager-rotator",
		}
		if got := r.names(); !slices.Equal(got, want) {
			t.Errorf("objects %q, want %q", got, want)
		}
		// Without a scope every run would fail.
		if s := r.rotator.Spec.Suspend; s == nil || !*s {
			t.Error("the rotator is not suspended")
		}
		lacksArgs(t, r.providerPod(), "--vault-", "--audience", "--mount-timeout", "--republish", "--log-level")
		lacksArgs(t, r.rotatorPod(),
			"--namespace", "--retire", "--transit-key", "--state-namespace", "--vault-ca", "--log-level")
		if got := env(r.providerPod(), "GOMEMLIMIT"); got != "216MiB" {
			t.Errorf("GOMEMLIMIT is %s, want 216MiB", got)
		}
		if e := r.providerPod().Containers[0].Env; !slices.ContainsFunc(e, func(e corev1.EnvVar) bool {
			return e.Name == "NODE_NAME" && e.ValueFrom != nil && e.ValueFrom.FieldRef.FieldPath == "spec.nodeName"
		}) {
			t.Errorf("the provider has no NODE_NAME: %v", e)
		}
		if u := r.provider.Spec.UpdateStrategy.RollingUpdate; u.MaxSurge.IntVal != 1 || u.MaxUnavailable.IntVal != 0 {
			t.Errorf("during an update a node can be without a provider: %+v", u)
		}
		if a := r.providerPod().AutomountServiceAccountToken; a == nil || *a {
			t.Error("the pods of the provider have a token")
		}
		for component, template := range r.pods() {
			if pod := template.Spec; pod.HostNetwork || pod.DNSPolicy != "" {
				t.Errorf("%s: hostNetwork %v, dnsPolicy %q", component, pod.HostNetwork, pod.DNSPolicy)
			}
		}
	}},
	{"image by tag", `
image: {registry: "registry.example:5000", repository: team/secretmanager, tag: v1.2.3, pullPolicy: Always}
imagePullSecrets: [{name: registry}]`, func(t *testing.T, r *rendered) {
		for component, template := range r.pods() {
			pod := template.Spec
			if c := pod.Containers[0]; c.Image != "registry.example:5000/team/secretmanager:v1.2.3" ||
				c.ImagePullPolicy != corev1.PullAlways {
				t.Errorf("%s: image %s, pull policy %s", component, c.Image, c.ImagePullPolicy)
			}
			if len(pod.ImagePullSecrets) != 1 || pod.ImagePullSecrets[0].Name != "registry" {
				t.Errorf("%s: pull secrets %v", component, pod.ImagePullSecrets)
			}
		}
	}},
	{"image by digest, global registry", `
global: {imageRegistry: mirror.example, storageClass: of-another-chart}
image: {registry: registry.example, tag: v1.2.3, digest: "sha256:` + strings.Repeat("0a", 32) + `"}`,
		func(t *testing.T, r *rendered) {
			for component, template := range r.pods() {
				want := "mirror.example/secretmanager@sha256:" + strings.Repeat("0a", 32)
				if got := template.Spec.Containers[0].Image; got != want {
					t.Errorf("%s: image %s, want %s", component, got, want)
				}
			}
		}},
	{"name", `
nameOverride: vaulted
rotator: {namespaces: [demo]}
monitoring: {prometheusRule: {enabled: true}}`, func(t *testing.T, r *rendered) {
		// The name of the release does not contain the name of the application.
		set := object[*appsv1.DaemonSet](t, r, "DaemonSet secretmanager-vaulted-provider")
		if got := set.Labels["app.kubernetes.io/name"]; got != "vaulted-provider" {
			t.Errorf("app.kubernetes.io/name=%s", got)
		}
		hasArgs(t, r.pod("exporter"), "--cronjob=secretmanager-vaulted-rotator")
		checkAlerts(t, r, "secretmanager-vaulted", "vaulted-provider", "secretmanager-vaulted-provider")
	}},
	{"full name", `
fullnameOverride: secretmanager-provider
rotator: {cluster: true}
monitoring: {prometheusRule: {enabled: true}}`, func(t *testing.T, r *rendered) {
		for name := range r.objects {
			if !strings.Contains(name, " secretmanager-provider") && !strings.Contains(name, " secretmanager-rotation") {
				t.Errorf("%s does not begin with the full name", name)
			}
		}
		set := object[*appsv1.DaemonSet](t, r, "DaemonSet secretmanager-provider-provider")
		if got := set.Labels["app.kubernetes.io/name"]; got != "secretmanager-provider" {
			t.Errorf("app.kubernetes.io/name=%s", got)
		}
		checkAlerts(t, r, "secretmanager-provider", "secretmanager-provider", "secretmanager-provider-provider")
	}},
	{"labels", `
commonLabels: {example.com/team: "1", owner: ops}
provider: {podLabels: {owner: platform}}
rotator: {cluster: true}
monitoring: {serviceMonitor: {enabled: true}}`, func(t *testing.T, r *rendered) {
		for name, o := range r.objects {
			if l := o.GetLabels(); l["example.com/team"] != "1" || l["owner"] != "ops" {
				t.Errorf("%s has the labels %v", name, l)
			}
		}
		for component, template := range r.pods() {
			want := "ops"
			if component == "provider" {
				want = "platform" // the labels of a component override the common ones
			}
			if l := template.Labels; l["example.com/team"] != "1" || l["owner"] != want {
				t.Errorf("the pods of the %s have the labels %v", component, l)
			}
		}
	}},
	{"extra objects", `
extraObjects:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: "{{ .Release.Name }}-extra"}
  data: {service: "{{ .Release.Service }}"}
- |
  apiVersion: v1
  kind: ConfigMap
  metadata: {name: {{ include "secretmanager.fullname" . }}-text}`, func(t *testing.T, r *rendered) {
		if got := object[*corev1.ConfigMap](t, r, "ConfigMap secretmanager-extra").Data["service"]; got != "Helm" {
			t.Errorf("service: %q", got)
		}
		object[*corev1.ConfigMap](t, r, "ConfigMap secretmanager-text")
	}},
}

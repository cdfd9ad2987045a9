package chart

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// monitoringOptions are values of what Prometheus and Grafana use.
var monitoringOptions = []option{
	{"PodMonitor", `
monitoring:
  podMonitor: {enabled: true, interval: 15s, labels: {release: prometheus}}`, func(t *testing.T, r *rendered) {
		for _, component := range []string{"provider", "exporter"} {
			m := object[*monitor](t, r, "PodMonitor secretmanager-"+component)
			checkMonitor(t, r, component, m, m.Spec.PodMetricsEndpoints, r.pods()[component].Labels)
		}
	}},
	{"ServiceMonitor", `
monitoring: {serviceMonitor: {enabled: true, interval: 15s, labels: {release: prometheus}}}`,
		func(t *testing.T, r *rendered) {
			for _, component := range []string{"provider", "exporter"} {
				m := object[*monitor](t, r, "ServiceMonitor secretmanager-"+component)
				s := object[*corev1.Service](t, r, "Service secretmanager-"+component)
				checkMonitor(t, r, component, m, m.Spec.Endpoints, s.Labels)
				if port := s.Spec.Ports[0]; s.Spec.ClusterIP != corev1.ClusterIPNone || port.Name != "metrics" ||
					port.TargetPort.StrVal != "metrics" {
					t.Errorf("%+v", s.Spec)
				}
				checkSelects(t, &metav1.LabelSelector{MatchLabels: s.Spec.Selector}, r.pods()[component].Labels)
			}
		}},
	{"alerts and dashboard", `
exporter: {enabled: true}
monitoring:
  prometheusRule: {enabled: true, labels: {release: prometheus}}
  dashboard:
    enabled: true
    namespace: grafana
    labels: {grafana_dashboard: "true"}
    annotations: {directory: Security}`,
		func(t *testing.T, r *rendered) {
			checkAlerts(t, r, "secretmanager", "secretmanager-provider", "secretmanager-provider")
			rule := object[*unstructured.Unstructured](t, r, "PrometheusRule secretmanager")
			if l := rule.GetLabels(); l["release"] != "prometheus" {
				t.Errorf("labels %v", l)
			}
			board := object[*corev1.ConfigMap](t, r, "ConfigMap secretmanager-dashboard in grafana")
			text := board.Data["secretmanager.json"]
			if !json.Valid([]byte(text)) || !strings.Contains(text, "secretmanager-provider") {
				t.Errorf("dashboard %.40s", text)
			}
			if board.Labels["grafana_dashboard"] != "true" || board.Annotations["directory"] != "Security" {
				t.Errorf("labels %v, annotations %v", board.Labels, board.Annotations)
			}
		}},
	{"dashboard of another name", `
nameOverride: vaulted
monitoring: {dashboard: {enabled: true}}`, func(t *testing.T, r *rendered) {
		board := object[*corev1.ConfigMap](t, r, "ConfigMap secretmanager-vaulted-dashboard")
		text := board.Data["secretmanager.json"]
		if !strings.Contains(text, "vaulted-provider") || strings.Contains(text, "secretmanager-provider") {
			t.Error("the dashboard selects another job")
		}
	}},
}

func checkMonitor(
	t *testing.T, r *rendered, component string, m *monitor, endpoints []endpoint, selected map[string]string,
) {
	t.Helper()
	checkSelects(t, &m.Spec.Selector, selected)
	if len(endpoints) != 1 || endpoints[0].Port != "metrics" || endpoints[0].Interval != "15s" ||
		endpoints[0].Relabelings[0].TargetLabel != "node" {
		t.Errorf("endpoints %+v", endpoints)
	}
	if m.Labels["release"] != "prometheus" || selected[m.Spec.JobLabel] != "secretmanager-"+component {
		t.Errorf("labels %v, job by the label %q of %v", m.Labels, m.Spec.JobLabel, selected)
	}
	ports := r.pod(component).Containers[0].Ports
	if !slices.ContainsFunc(ports, func(p corev1.ContainerPort) bool { return p.Name == "metrics" }) {
		t.Errorf("the %s has no port metrics", component)
	}
}

func checkSelects(t *testing.T, selector *metav1.LabelSelector, selected map[string]string) {
	t.Helper()
	if !selects(t, selector, selected) {
		t.Errorf("%v does not select the labels %v", selector, selected)
	}
}

// checkAlerts checks the job and the DaemonSet in the expressions of the PrometheusRule.
func checkAlerts(t *testing.T, r *rendered, name, job, daemonSet string) {
	t.Helper()
	rule := object[*unstructured.Unstructured](t, r, "PrometheusRule "+name)
	groups, _, _ := unstructured.NestedSlice(rule.Object, "spec", "groups")
	text, err := json.Marshal(groups)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`job=~\"(.*/)?` + job + `\"`, `daemonset=\"` + daemonSet + `\"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the %d groups of alerts do not contain %s", len(groups), want)
		}
	}
}

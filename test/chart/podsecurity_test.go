package chart

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestPodSecurity submits the pods to the admission of a real API server, with whatever the chart adds to them. The
// level restricted admits the rotator and the exporter. It does not admit the provider, which mounts two directories of
// its node.
func TestPodSecurity(t *testing.T) {
	c := newCluster(t)
	const namespace = "restricted"
	_, err := c.kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: namespace,
		Labels: map[string]string{
			"pod-security.kubernetes.io/enforce":         "restricted",
			"pod-security.kubernetes.io/enforce-version": "latest",
		},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	create := func(component string, pod corev1.PodTemplateSpec) error {
		c.api.CreateServiceAccount(t, namespace, pod.Spec.ServiceAccountName) // admission looks it up
		_, err := c.kube.CoreV1().Pods(namespace).Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: component, Labels: pod.Labels, Annotations: pod.Annotations},
			Spec:       pod.Spec,
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	everything := `
vault: {ca: {configMap: vault-ca}, clientCertificate: {secret: vault-client}}
rotator:
  cluster: true
  retire: {enabled: true, onlyUser: true}
  extraEnv: [{name: A, value: b}]
  extraVolumes: [{name: cache, emptyDir: {}}]
  extraVolumeMounts: [{name: cache, mountPath: /cache}]
  podSecurityContext: {runAsUser: 1000}
exporter: {securityContext: {runAsGroup: 1000}}
`
	for _, values := range []string{"", everything} {
		for component, pod := range render(t, c.Helm, namespace, values).pods() {
			err := create(component, pod)
			if component != "provider" {
				if err != nil {
					t.Errorf("the %s with %q: %v", component, values, err)
				}
				continue
			}
			if err == nil || !strings.Contains(err.Error(), `violates PodSecurity "restricted:latest"`) ||
				!strings.Contains(err.Error(), "hostPath") {
				t.Errorf("the provider with %q: got %v, want a violation", values, err)
			}
		}
	}
	// The namespace of the provider, as in manifests/namespace.yaml and docs/install.md.
	c.labelNamespace(t, namespace, "pod-security.kubernetes.io/enforce", "privileged")
	if err := create("provider", render(t, c.Helm, namespace, everything).pods()["provider"]); err != nil {
		t.Errorf("the provider in a privileged namespace: %v", err)
	}
}

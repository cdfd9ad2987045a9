package chart

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestPodSecurity has the API server's own admission judge the pods, with whatever the
// chart adds to them: rotator and exporter run where the level restricted is enforced,
// and the provider, which mounts two directories of its node, does not.
func TestPodSecurity(t *testing.T) {
	c := newCluster(t)
	const namespace = "restricted"
	_, err := c.kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	everything := `
vault: {ca: {configMap: vault-ca}, clientCertificate: {secret: vault-client}}
rotator: {cluster: true, retire: {enabled: true, trim: true}, extraEnv: [{name: A, value: b}]}
`
	for _, values := range []string{"", everything} {
		for part, pod := range render(t, c.Helm, namespace, values).parts() {
			c.api.CreateServiceAccount(t, namespace, pod.Spec.ServiceAccountName) // admission looks it up
			_, err := c.kube.CoreV1().Pods(namespace).Create(t.Context(), &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: part, Labels: pod.Labels, Annotations: pod.Annotations}, Spec: pod.Spec,
			}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if part != "provider" {
				if err != nil {
					t.Errorf("the %s with %q: %v", part, values, err)
				}
				continue
			}
			if err == nil || !strings.Contains(err.Error(), `violates PodSecurity "restricted:latest"`) || !strings.Contains(err.Error(), "hostPath") {
				t.Errorf("the provider with %q is not refused: %v", values, err)
			}
		}
	}
	// The provider's namespace, as manifests/namespace.yaml and docs/install.md have it.
	c.labelNamespace(t, namespace, "pod-security.kubernetes.io/enforce", "privileged")
	pod := render(t, c.Helm, namespace, everything).parts()["provider"]
	if _, err := c.kube.CoreV1().Pods(namespace).Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "provider"}, Spec: pod.Spec},
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Errorf("the provider where it may run: %v", err)
	}
}

package chart

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// strategy is how constraints choose a value that a pod does not set. RunAsAny accepts what it sets.
type strategy struct {
	Type string `json:"type"`
}

// constraints are OpenShift's SecurityContextConstraints. The tests have no OpenShift: checkConstraints compares the
// constraints with the pods that they must admit.
type constraints struct {
	metav1.TypeMeta          `json:",inline"`
	metav1.ObjectMeta        `json:"metadata"`
	Users                    []string            `json:"users"`
	Groups                   []string            `json:"groups"`
	AllowHostDirVolumePlugin bool                `json:"allowHostDirVolumePlugin"`
	AllowHostIPC             bool                `json:"allowHostIPC"`
	AllowHostNetwork         bool                `json:"allowHostNetwork"`
	AllowHostPID             bool                `json:"allowHostPID"`
	AllowHostPorts           bool                `json:"allowHostPorts"`
	AllowPrivilegeEscalation bool                `json:"allowPrivilegeEscalation"`
	AllowPrivilegedContainer bool                `json:"allowPrivilegedContainer"`
	AllowedCapabilities      []corev1.Capability `json:"allowedCapabilities"`
	DefaultAddCapabilities   []corev1.Capability `json:"defaultAddCapabilities"`
	RequiredDropCapabilities []corev1.Capability `json:"requiredDropCapabilities"`
	ReadOnlyRootFilesystem   bool                `json:"readOnlyRootFilesystem"`
	RunAsUser                strategy            `json:"runAsUser"`
	SELinuxContext           strategy            `json:"seLinuxContext"`
	FSGroup                  strategy            `json:"fsGroup"`
	SupplementalGroups       strategy            `json:"supplementalGroups"`
	SeccompProfiles          []string            `json:"seccompProfiles"`
	Volumes                  []string            `json:"volumes"`
}

// DeepCopyObject implements runtime.Object. Nothing copies constraints.
func (c *constraints) DeepCopyObject() runtime.Object { panic("not implemented") }

// checkConstraints checks that the constraints admit the pods of the provider, and only the provider's, and allow
// nothing that those do not use.
func checkConstraints(t *testing.T, r *rendered) {
	t.Helper()
	c := object[*constraints](t, r, "SecurityContextConstraints secretmanager-provider")
	pod := r.providerPod()
	container := pod.Containers[0].SecurityContext
	checkEqual(t, "users", []string{"system:serviceaccount:" + manifestNamespace + ":" + pod.ServiceAccountName}, c.Users)
	if len(c.Groups) > 0 || c.AllowPrivilegedContainer || c.AllowPrivilegeEscalation || c.AllowHostIPC ||
		c.AllowHostPID || len(c.AllowedCapabilities)+len(c.DefaultAddCapabilities) > 0 {
		t.Errorf("the constraints allow more than the provider uses: %+v", c)
	}
	if container.AllowPrivilegeEscalation == nil || *container.AllowPrivilegeEscalation ||
		container.ReadOnlyRootFilesystem == nil || *container.ReadOnlyRootFilesystem != c.ReadOnlyRootFilesystem ||
		!slices.Equal(container.Capabilities.Drop, c.RequiredDropCapabilities) || c.RunAsUser.Type != "RunAsAny" ||
		c.SELinuxContext.Type != "RunAsAny" || !slices.Equal(c.SeccompProfiles, []string{"runtime/default"}) ||
		container.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the constraints %+v do not admit the container %+v", c, container)
	}
	if container.SELinuxOptions == nil || container.SELinuxOptions.Type == "" {
		t.Errorf("the container has the SELinux options %+v, and so no access to the directories of the node",
			container.SELinuxOptions)
	}
	if c.AllowHostNetwork != pod.HostNetwork || c.AllowHostPorts != pod.HostNetwork {
		t.Errorf("host network %v, and the constraints %+v", pod.HostNetwork, c)
	}
	for _, v := range pod.Volumes {
		text, err := yaml.Marshal(v.VolumeSource)
		if err != nil {
			t.Fatal(err)
		}
		for kind := range parse(t, string(text)) {
			if !slices.Contains(c.Volumes, kind) || kind == "hostPath" && !c.AllowHostDirVolumePlugin {
				t.Errorf("the constraints %+v do not admit volume %s", c, v.Name)
			}
		}
	}
}

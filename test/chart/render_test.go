package chart

import (
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// A monitor is a PodMonitor or a ServiceMonitor, with the fields that the chart sets.
type monitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		JobLabel            string               `json:"jobLabel"`
		Selector            metav1.LabelSelector `json:"selector"`
		PodMetricsEndpoints []endpoint           `json:"podMetricsEndpoints"`
		Endpoints           []endpoint           `json:"endpoints"`
	} `json:"spec"`
}

// DeepCopyObject implements runtime.Object. Nothing copies a monitor.
func (m *monitor) DeepCopyObject() runtime.Object { panic("not implemented") }

type endpoint struct {
	Port        string `json:"port"`
	Interval    string `json:"interval"`
	Relabelings []struct {
		SourceLabels []string `json:"sourceLabels"`
		TargetLabel  string   `json:"targetLabel"`
	} `json:"relabelings"`
}

// rendered holds the objects that the chart renders.
type rendered struct {
	objects  map[string]metav1.Object // by kind and name, and by namespace if the object sets one
	extra    []string                 // names of the extra objects
	provider *appsv1.DaemonSet
	rotator  *batchv1.CronJob
}

// render renders the chart.
func render(t *testing.T, helm *Helm, namespace, values string) *rendered {
	t.Helper()
	documents, err := helm.Template(t.Context(), namespace, values)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, documents)
}

// decode decodes each object strictly: a field that Kubernetes would drop is an error.
func decode(t *testing.T, documents map[string][]string) *rendered {
	t.Helper()
	r := &rendered{objects: map[string]metav1.Object{}}
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	for template, texts := range documents {
		for _, text := range texts {
			object, _, err := decoder.Decode([]byte(text), nil, nil)
			if runtime.IsNotRegisteredError(err) {
				object, err = decodeCustom(template, text)
			}
			if err != nil {
				t.Fatalf("%s: %v in\n%s", template, err, text)
			}
			switch o := object.(type) {
			case *appsv1.DaemonSet:
				r.provider = o
			case *batchv1.CronJob:
				r.rotator = o
			}
			name := r.add(t, object.GetObjectKind().GroupVersionKind().Kind, object.(metav1.Object))
			if template == "extra-objects.yaml" {
				r.extra = append(r.extra, name)
			}
		}
	}
	return r
}

// decodeCustom decodes kinds that not every cluster has: those of the Prometheus operator, whose alerts package
// test/monitoring checks, and of OpenShift.
func decodeCustom(template, text string) (runtime.Object, error) {
	if template == "provider/securitycontextconstraints.yaml" {
		c := &constraints{}
		return c, yaml.UnmarshalStrict([]byte(text), c)
	}
	if template == "monitoring/prometheusrule.yaml" {
		u := &unstructured.Unstructured{}
		return u, yaml.UnmarshalStrict([]byte(text), u)
	}
	m := &monitor{}
	return m, yaml.UnmarshalStrict([]byte(text), m)
}

func (r *rendered) add(t *testing.T, kind string, o metav1.Object) string {
	t.Helper()
	name := kind + " " + o.GetName()
	if o.GetNamespace() != "" {
		name += " in " + o.GetNamespace()
	}
	if r.objects[name] != nil {
		t.Errorf("the release has two of %s", name)
	}
	r.objects[name] = o
	return name
}

// object returns an object by its kind and name.
func object[T metav1.Object](t *testing.T, r *rendered, name string) (found T) {
	t.Helper()
	found, ok := r.objects[name].(T)
	if !ok {
		t.Fatalf("no %s in %q", name, r.names())
	}
	return found
}

func (r *rendered) names() (names []string) {
	for name := range r.objects {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// pods returns the pod template of each component.
func (r *rendered) pods() map[string]corev1.PodTemplateSpec {
	pods := map[string]corev1.PodTemplateSpec{}
	for _, o := range r.objects {
		switch o := o.(type) {
		case *appsv1.DaemonSet:
			pods["provider"] = o.Spec.Template
		case *appsv1.Deployment:
			pods["exporter"] = o.Spec.Template
		case *batchv1.CronJob:
			pods["rotator"] = o.Spec.JobTemplate.Spec.Template
		}
	}
	return pods
}

func (r *rendered) pod(component string) *corev1.PodSpec {
	spec := r.pods()[component].Spec
	return &spec
}

func (r *rendered) providerPod() *corev1.PodSpec { return r.pod("provider") }
func (r *rendered) rotatorPod() *corev1.PodSpec  { return r.pod("rotator") }

// vaultPods returns the pods that connect to Vault.
func (r *rendered) vaultPods() []*corev1.PodSpec {
	return []*corev1.PodSpec{r.providerPod(), r.rotatorPod()}
}

// hasArgs checks that the container of a pod has the flags, in any order.
func hasArgs(t *testing.T, pod *corev1.PodSpec, want ...string) {
	t.Helper()
	for _, flag := range want {
		if c := pod.Containers[0]; !slices.Contains(c.Args, flag) {
			t.Errorf("container %s has the flags %q, want %s among them", c.Name, c.Args, flag)
		}
	}
}

// lacksArgs checks that the container of a pod has no flag with one of the prefixes.
func lacksArgs(t *testing.T, pod *corev1.PodSpec, prefixes ...string) {
	t.Helper()
	c := pod.Containers[0]
	for _, prefix := range prefixes {
		if slices.ContainsFunc(c.Args, func(arg string) bool { return strings.HasPrefix(arg, prefix) }) {
			t.Errorf("container %s has the flags %q, want none that begins with %s", c.Name, c.Args, prefix)
		}
	}
}

// mounted returns the volume at a path of the container of a pod.
func mounted(t *testing.T, pod *corev1.PodSpec, path string) corev1.Volume {
	t.Helper()
	for _, mount := range pod.Containers[0].VolumeMounts {
		for _, volume := range pod.Volumes {
			if mount.MountPath == path && mount.Name == volume.Name {
				return volume
			}
		}
	}
	t.Fatalf("container %s has no volume at %s", pod.Containers[0].Name, path)
	return corev1.Volume{}
}

func env(pod *corev1.PodSpec, name string) string {
	for _, e := range pod.Containers[0].Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

func checkEqual(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// checkReferences checks that every object that another one names exists. An option can name an existing object ours.
func checkReferences(t *testing.T, r *rendered, namespace string) {
	t.Helper()
	checkExists := func(by, kind, name string) {
		t.Helper()
		if name != "ours" && r.objects[kind+" "+name] == nil {
			t.Errorf("%s names %s %s, which does not exist", by, kind, name)
		}
	}
	checkBinding := func(name string, ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
		checkExists(name, ref.Kind, ref.Name)
		for _, s := range subjects {
			checkExists(name, s.Kind, s.Name)
			if s.Namespace != namespace {
				t.Errorf("%s names a service account in %s", name, s.Namespace)
			}
		}
	}
	for component, template := range r.pods() {
		pod := template.Spec
		checkExists(component, "ServiceAccount", pod.ServiceAccountName)
		for _, from := range pod.Containers[0].EnvFrom {
			checkExists(component, "ConfigMap", from.ConfigMapRef.Name)
		}
		if mounts := pod.Containers[0].VolumeMounts; len(mounts) != len(pod.Volumes) {
			t.Errorf("the %s has %d volumes and %d mounts", component, len(pod.Volumes), len(mounts))
		}
		for _, mount := range pod.Containers[0].VolumeMounts {
			mounted(t, &pod, mount.MountPath)
		}
	}
	for name, o := range r.objects {
		switch o := o.(type) {
		case *rbacv1.RoleBinding:
			checkBinding(name, o.RoleRef, o.Subjects)
		case *rbacv1.ClusterRoleBinding:
			checkBinding(name, o.RoleRef, o.Subjects)
		case *admissionv1.ValidatingAdmissionPolicyBinding:
			checkExists(name, "ValidatingAdmissionPolicy", o.Spec.PolicyName)
		case *admissionv1.ValidatingAdmissionPolicy:
			if o.Labels["app.kubernetes.io/component"] != "rotator" {
				continue
			}
			user := "'system:serviceaccount:" + namespace + ":" + r.rotatorPod().ServiceAccountName + "'"
			conditions := o.Spec.MatchConditions
			if len(conditions) != 1 || conditions[0].Expression != "request.userInfo.username == "+user {
				t.Errorf("%s applies if %v, want the user %s", name, conditions, user)
			}
		}
	}
}

package chart

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// A monitor is a PodMonitor or a ServiceMonitor, as far as the chart makes them.
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

// DeepCopyObject makes it one of Kubernetes' objects; nothing copies it.
func (m *monitor) DeepCopyObject() runtime.Object { panic("not copied") }

type endpoint struct {
	Port        string `json:"port"`
	Interval    string `json:"interval"`
	Relabelings []struct {
		SourceLabels []string `json:"sourceLabels"`
		TargetLabel  string   `json:"targetLabel"`
	} `json:"relabelings"`
}

// rendered is what the chart makes of some values.
type rendered struct {
	objects  map[string]metav1.Object // by kind and name, with the namespace where there is one
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

// decode reads each object strictly: a field that Kubernetes would drop is an error.
func decode(t *testing.T, documents map[string][]string) *rendered {
	t.Helper()
	r := &rendered{objects: map[string]metav1.Object{}}
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	for template, texts := range documents {
		for _, text := range texts {
			object, _, err := decoder.Decode([]byte(text), nil, nil)
			if runtime.IsNotRegisteredError(err) && strings.HasPrefix(template, "monitoring/") {
				var m interface {
					metav1.Object
					runtime.Object
				} = &unstructured.Unstructured{}
				if template != "monitoring/prometheusrule.yaml" { // whose groups promtool checks, see test/monitoring
					m = &monitor{}
				}
				object, err = nil, yaml.UnmarshalStrict([]byte(text), m)
				r.add(t, m.GetObjectKind().GroupVersionKind().Kind, m)
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
			if object != nil {
				r.add(t, object.GetObjectKind().GroupVersionKind().Kind, object.(metav1.Object))
			}
		}
	}
	return r
}

func (r *rendered) add(t *testing.T, kind string, o metav1.Object) {
	t.Helper()
	name := kind + " " + o.GetName()
	if o.GetNamespace() != "" {
		name += " in " + o.GetNamespace()
	}
	if r.objects[name] != nil {
		t.Errorf("there are two of %s", name)
	}
	r.objects[name] = o
}

// object finds one of a kind.
func object[T metav1.Object](t *testing.T, r *rendered, name string) (found T) {
	t.Helper()
	found, ok := r.objects[name].(T)
	if !ok {
		t.Fatalf("there is no %s, but %q", name, r.names())
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

func (r *rendered) providerPod() *corev1.PodSpec { return &r.provider.Spec.Template.Spec }
func (r *rendered) rotatorPod() *corev1.PodSpec {
	return &r.rotator.Spec.JobTemplate.Spec.Template.Spec
}

// hasArgs checks that the one container of a pod has the flags, in any place.
func hasArgs(t *testing.T, pod *corev1.PodSpec, want ...string) {
	t.Helper()
	for _, flag := range want {
		if !slices.Contains(pod.Containers[0].Args, flag) {
			t.Errorf("container %s has the flags %q, want %s among them", pod.Containers[0].Name, pod.Containers[0].Args, flag)
		}
	}
}

// lacksArgs checks that it has none that begins so.
func lacksArgs(t *testing.T, pod *corev1.PodSpec, prefixes ...string) {
	t.Helper()
	for _, prefix := range prefixes {
		if slices.ContainsFunc(pod.Containers[0].Args, func(arg string) bool { return strings.HasPrefix(arg, prefix) }) {
			t.Errorf("container %s has the flags %q, want none that begins with %s", pod.Containers[0].Name, pod.Containers[0].Args, prefix)
		}
	}
}

// mounted finds the volume at a path of a pod's container.
func mounted(t *testing.T, pod *corev1.PodSpec, path string) corev1.Volume {
	t.Helper()
	for _, mount := range pod.Containers[0].VolumeMounts {
		for _, volume := range pod.Volumes {
			if mount.MountPath == path && mount.Name == volume.Name {
				return volume
			}
		}
	}
	t.Fatalf("container %s has nothing at %s", pod.Containers[0].Name, path)
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

func checkMonitor(t *testing.T, r *rendered, m *monitor, endpoints []endpoint, of map[string]string) {
	t.Helper()
	checkSelects(t, &m.Spec.Selector, of)
	if len(endpoints) != 1 || endpoints[0].Port != "metrics" || endpoints[0].Interval != "15s" || endpoints[0].Relabelings[0].TargetLabel != "node" {
		t.Errorf("endpoints %+v", endpoints)
	}
	if m.Labels["release"] != "prometheus" || m.Spec.JobLabel == "" || of[m.Spec.JobLabel] != "secretmanager-provider" {
		t.Errorf("labels %v, job by %s of %v", m.Labels, m.Spec.JobLabel, of)
	}
	if !slices.ContainsFunc(r.providerPod().Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == "metrics" }) {
		t.Error("the provider has no port metrics")
	}
}

func checkSelects(t *testing.T, selector *metav1.LabelSelector, of map[string]string) {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	if s.Empty() || !s.Matches(labels.Set(of)) {
		t.Errorf("%s does not select what has the labels %v", s, of)
	}
}

// checkWhole checks that whatever an object names is there.
func checkWhole(t *testing.T, r *rendered, namespace string) {
	t.Helper()
	there := func(by, name string) {
		t.Helper()
		if r.objects[name] == nil {
			t.Errorf("%s names %s, which is not there", by, name)
		}
	}
	binding := func(name string, ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
		there(name, ref.Kind+" "+ref.Name)
		for _, s := range subjects {
			there(name, s.Kind+" "+s.Name)
			if s.Namespace != namespace {
				t.Errorf("%s names a service account in %s", name, s.Namespace)
			}
		}
	}
	pods := map[string]*corev1.PodSpec{}
	if r.provider != nil {
		pods["the provider"] = r.providerPod()
	}
	if r.rotator != nil {
		pods["the rotator"] = r.rotatorPod()
	}
	for name, pod := range pods {
		there(name, "ServiceAccount "+pod.ServiceAccountName)
		if from := pod.Containers[0].EnvFrom[0].ConfigMapRef.Name; from != "ours" { // of one option
			there(name, "ConfigMap "+from)
		}
		if mounts := pod.Containers[0].VolumeMounts; len(mounts) != len(pod.Volumes) {
			t.Errorf("%s has %d volumes and mounts %d", name, len(pod.Volumes), len(mounts))
		}
		for _, mount := range pod.Containers[0].VolumeMounts {
			mounted(t, pod, mount.MountPath)
		}
	}
	for name, o := range r.objects {
		switch o := o.(type) {
		case *rbacv1.RoleBinding:
			binding(name, o.RoleRef, o.Subjects)
		case *rbacv1.ClusterRoleBinding:
			binding(name, o.RoleRef, o.Subjects)
		}
	}
}

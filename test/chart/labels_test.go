package chart

import (
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// standardLabels are the labels of every object and every pod of a release.
var standardLabels = []string{
	"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/component",
	"app.kubernetes.io/part-of", "app.kubernetes.io/managed-by", "helm.sh/chart",
}

// checkStandardLabels checks that every object and every pod has the standard labels, except extra objects.
func checkStandardLabels(t *testing.T, r *rendered) {
	t.Helper()
	check := func(what string, l map[string]string) {
		t.Helper()
		for _, name := range standardLabels {
			if l[name] == "" {
				t.Errorf("%s has no label %s: %v", what, name, l)
			}
		}
		if l["app.kubernetes.io/part-of"] != "secretmanager" || l["app.kubernetes.io/managed-by"] != "Helm" ||
			l["app.kubernetes.io/version"] != "devel" || l["helm.sh/chart"] != "secretmanager-0.0.0-devel" ||
			!strings.HasSuffix(l["app.kubernetes.io/name"], "-"+l["app.kubernetes.io/component"]) {
			t.Errorf("%s has the labels %v", what, l)
		}
	}
	for name, o := range r.objects {
		if !slices.Contains(r.extra, name) {
			check(name, o.GetLabels())
		}
	}
	for component, template := range r.pods() {
		check("a pod of the "+component, template.Labels)
		if got := template.Labels["app.kubernetes.io/component"]; got != component {
			t.Errorf("a pod of the %s has the component %s", component, got)
		}
	}
}

// TestSelectorsAreStable: selectors are immutable. No value but the name, and no version, may change them.
func TestSelectorsAreStable(t *testing.T) {
	const more = `
commonLabels: {owner: ops}
provider: {podLabels: {team: a}}
rotator: {podLabels: {team: a}}
exporter: {podLabels: {team: a}}
image: {tag: v2}
monitoring: {serviceMonitor: {enabled: true}}
`
	r := render(t, newHelm(t), manifestNamespace, more)
	found := 0
	for name, o := range r.objects {
		var selector map[string]string
		switch o := o.(type) {
		case *appsv1.DaemonSet:
			selector = o.Spec.Selector.MatchLabels
		case *appsv1.Deployment:
			selector = o.Spec.Selector.MatchLabels
		case *corev1.Service:
			selector = o.Spec.Selector
		case *networkingv1.NetworkPolicy:
			selector = o.Spec.PodSelector.MatchLabels
		case *monitor:
			selector = o.Spec.Selector.MatchLabels
		default:
			continue
		}
		found++
		want := map[string]string{
			"app.kubernetes.io/name":     "secretmanager-" + o.GetLabels()["app.kubernetes.io/component"],
			"app.kubernetes.io/instance": "secretmanager",
		}
		if diff := gocmp.Diff(want, selector); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if found != 9 {
		t.Errorf("%d selectors, want 9: of two workloads, three network policies, two services and two monitors", found)
	}
}

// TestReleasesSelectTheirOwnPods renders two releases for one namespace: no selector of one selects a pod of the other.
func TestReleasesSelectTheirOwnPods(t *testing.T) {
	helm := newHelm(t)
	first := render(t, helm, manifestNamespace, "")
	text, err := helm.Apply(t.Context(), "template", "other", manifestNamespace, "")
	if err != nil {
		t.Fatal(err)
	}
	documents, err := split(text)
	if err != nil {
		t.Fatal(err)
	}
	second := decode(t, documents)
	for name, o := range second.objects {
		if first.objects[name] != nil && !strings.Contains(name, " secretmanager-rotation") {
			t.Errorf("both releases have %s", name)
		}
		set, ok := o.(*appsv1.DaemonSet)
		if ok && selects(t, set.Spec.Selector, first.provider.Spec.Template.Labels) {
			t.Errorf("%s selects the pods of the other release", name)
		}
	}
	object[*appsv1.DaemonSet](t, second, "DaemonSet other-secretmanager-provider")
}

// TestManifestLabels: the manifests have no label that is true only for objects that Helm installed.
func TestManifestLabels(t *testing.T) {
	files, err := Manifests(t.Context(), newHelm(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		for _, label := range []string{"helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version"} {
			if strings.Contains(text, label+":") {
				t.Errorf("%s has the label %s", name, label)
			}
		}
		if !strings.Contains(text, "app.kubernetes.io/component:") {
			t.Errorf("%s has no label app.kubernetes.io/component", name)
		}
	}
}

func selects(t *testing.T, selector *metav1.LabelSelector, set map[string]string) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return !s.Empty() && s.Matches(labels.Set(set))
}

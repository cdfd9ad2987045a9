package chart

import (
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// An option is a set of values, and a check of what they do.
type option struct {
	name   string
	values string
	check  func(t *testing.T, r *rendered)
}

// options set every value of the chart at least once.
var options = slices.Concat(releaseOptions, vaultOptions, componentOptions("provider"), componentOptions("rotator"),
	componentOptions("exporter"), providerOptions, rotatorOptions, monitoringOptions, policyOptions)

func TestOptions(t *testing.T) {
	for _, test := range options {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := render(t, newHelm(t), manifestNamespace, test.values)
			test.check(t, r)
			checkReferences(t, r, manifestNamespace)
			checkStandardLabels(t, r)
		})
	}
}

// TestEveryValueHasAnOption fails for a value that no option sets, so that each value is checked.
func TestEveryValueHasAnOption(t *testing.T) {
	values, err := ReadSchema(newHelm(t).Chart)
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]any{}
	for _, test := range options {
		overlay(set, parse(t, test.values))
	}
	var check func(values []Value, set map[string]any)
	check = func(values []Value, set map[string]any) {
		for _, v := range values {
			value, found := set[v.Name()]
			if !found {
				t.Errorf("no option sets %s", v.Path)
			} else if nested, ok := value.(map[string]any); ok {
				check(v.Properties, nested)
			}
		}
	}
	check(values, set)
}

// TestOptionPairs renders pairs of options: one option must not break what another one does.
func TestOptionPairs(t *testing.T) {
	rendered := 0
	for i, first := range options {
		second := options[(i*7+3)%len(options)]
		merged := map[string]any{}
		overlay(merged, parse(t, first.values))
		overlay(merged, parse(t, second.values))
		text, err := yaml.Marshal(merged)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(first.name+", "+second.name, func(t *testing.T) {
			documents, err := newHelm(t).Template(t.Context(), manifestNamespace, string(text))
			if err != nil {
				if !contradiction(err) {
					t.Error(err)
				}
				return
			}
			rendered++
			r := decode(t, documents)
			checkReferences(t, r, manifestNamespace)
			checkStandardLabels(t, r)
		})
	}
	if rendered < len(options)/2 {
		t.Errorf("only %d of %d pairs render", rendered, len(options))
	}
}

// contradiction reports whether an error says that two values exclude each other.
func contradiction(err error) bool {
	return slices.ContainsFunc([]string{"Choose one of them", "Set one of them", "Remove the other",
		"monitoring.prometheusRule.enabled needs", "provider.hostNetwork needs", "provider.inlineAuth has"},
		func(message string) bool { return strings.Contains(err.Error(), message) })
}

func parse(t *testing.T, text string) (values map[string]any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &values); err != nil {
		t.Fatal(err)
	}
	return values
}

// overlay merges values into others, as Helm does with several files.
func overlay(onto, values map[string]any) {
	for name, value := range values {
		inner, isMap := value.(map[string]any)
		existing, both := onto[name].(map[string]any)
		if isMap && !both {
			existing = map[string]any{}
			onto[name] = existing
		}
		if isMap {
			overlay(existing, inner)
			continue
		}
		onto[name] = value
	}
}

// TestSecondInstallation renders a second release for the same cluster. The two share no object, socket or directory.
func TestSecondInstallation(t *testing.T) {
	const monitors = "monitoring: {serviceMonitor: {enabled: true}}\n"
	const other = monitors + "fullnameOverride: other\nprovider: {name: other}\n"
	helm := newHelm(t)
	first := render(t, helm, manifestNamespace, monitors+"rotator: {cluster: true}\n")
	checkReferences(t, render(t, helm, "elsewhere", other+"rotator: {namespaces: [demo]}\n"), "elsewhere")
	second := render(t, helm, "elsewhere", other+"rotator: {cluster: true}\n")
	checkReferences(t, second, "elsewhere")
	for _, name := range second.names() {
		// The state of the rotator always has the same name, in the namespace of the release.
		if first.objects[name] != nil && !strings.Contains(name, " secretmanager-rotation") {
			t.Errorf("both releases have %s", name)
		}
	}
	hasArgs(t, second.rotatorPod(), "--state-namespace=elsewhere")
	hasArgs(t, second.providerPod(), "--endpoint=/var/run/secrets-store-csi-providers/other.sock")
	if got := mounted(t, second.providerPod(), "/var/lib/secretmanager").HostPath.Path; got != "/var/lib/other" {
		t.Errorf("the version key is in %s", got)
	}
}

package chart

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// entries returns what a user may give again in the values of a component: keys of maps, and keys of the entries of
// lists. Duplicates among them are invalid YAML, or invalid for server-side apply.
func entries(pod corev1.PodTemplateSpec) map[string][]string {
	c := pod.Spec.Containers[0]
	all := map[string][]string{
		"nodeSelector":   slices.Sorted(maps.Keys(pod.Spec.NodeSelector)),
		"podAnnotations": slices.Sorted(maps.Keys(pod.Annotations)),
	}
	for _, e := range c.Env {
		all["extraEnv"] = append(all["extraEnv"], e.Name)
	}
	for _, v := range pod.Spec.Volumes {
		all["extraVolumes"] = append(all["extraVolumes"], v.Name)
	}
	for _, m := range c.VolumeMounts {
		all["extraVolumeMounts"] = append(all["extraVolumeMounts"], m.MountPath)
	}
	return all
}

// override returns values that give every entry of a component again, each with the value ours.
func override(component string, all map[string][]string) string {
	forms := map[string]string{
		"nodeSelector": "%s: ours", "podAnnotations": "%s: ours", "extraEnv": "{name: %s, value: ours}",
		"extraVolumes":      "{name: %s, configMap: {name: ours}}",
		"extraVolumeMounts": "{name: first, mountPath: %s, subPath: ours}",
	}
	var fields []string
	for field, names := range all {
		var texts []string
		for _, name := range names {
			texts = append(texts, fmt.Sprintf(forms[field], name))
		}
		brackets := "[%s]"
		if strings.Contains(forms[field], ": ours") && !strings.HasPrefix(forms[field], "{") {
			brackets = "{%s}"
		}
		if len(texts) > 0 {
			fields = append(fields, field+": "+fmt.Sprintf(brackets, strings.Join(texts, ", ")))
		}
	}
	slices.Sort(fields)
	return component + ": {" + strings.Join(fields, ", ") + "}"
}

// TestUserEntriesReplaceOurs: whatever the chart writes into a map, or into a list with keys, a value of the user
// replaces, and no key is there twice. Flux and server-side apply refuse duplicates that `kubectl create` accepts.
func TestUserEntriesReplaceOurs(t *testing.T) {
	const base = `
vault: {ca: {configMap: vault-ca}, clientCertificate: {secret: vault-client}}
rotator: {namespaces: [demo], transitKeys: [a]}
`
	helm := newHelm(t)
	before := render(t, helm, manifestNamespace, base).pods()
	for _, component := range []string{"provider", "rotator", "exporter"} {
		all := entries(before[component])
		for field := range all {
			if component == "exporter" && strings.HasPrefix(field, "extra") {
				delete(all, field) // it has no such values
			}
		}
		count := map[string]int{"provider": 5, "rotator": 3}
		if want, found := count[component]; found && len(all["extraVolumes"]) != want {
			t.Errorf("the %s has the volumes %q", component, all["extraVolumes"])
		}
		values := map[string]any{}
		overlay(values, parse(t, base))
		overlay(values, parse(t, override(component, all)))
		text, err := yaml.Marshal(values)
		if err != nil {
			t.Fatal(err)
		}
		pod := render(t, helm, manifestNamespace, string(text)).pods()[component]
		for field, names := range entries(pod) {
			slices.Sort(names)
			want := slices.Sorted(slices.Values(all[field]))
			if _, tried := all[field]; tried && !slices.Equal(names, want) {
				t.Errorf("%s.%s: %q, want %q", component, field, names, want)
			}
		}
		checkOurs(t, component, pod)
	}
}

// checkOurs checks that each entry of a pod has the value ours.
func checkOurs(t *testing.T, component string, pod corev1.PodTemplateSpec) {
	t.Helper()
	var others []string
	for _, m := range []map[string]string{pod.Spec.NodeSelector, pod.Annotations} {
		for name, value := range m {
			if value != "ours" {
				others = append(others, name)
			}
		}
	}
	if component != "exporter" {
		for _, e := range pod.Spec.Containers[0].Env {
			if e.Value != "ours" {
				others = append(others, e.Name)
			}
		}
		for _, v := range pod.Spec.Volumes {
			if v.ConfigMap == nil || v.ConfigMap.Name != "ours" {
				others = append(others, v.Name)
			}
		}
		for _, m := range pod.Spec.Containers[0].VolumeMounts {
			if m.SubPath != "ours" {
				others = append(others, m.MountPath)
			}
		}
	}
	if len(others) > 0 {
		t.Errorf("%s: the values of the user do not replace %q", component, others)
	}
}

// copyChart copies the chart with another values.yaml.
func copyChart(t *testing.T, helm *Helm, values string) *Helm {
	t.Helper()
	changed := *helm
	changed.Chart = filepath.Join(t.TempDir(), "secretmanager")
	if err := os.CopyFS(changed.Chart, os.DirFS(helm.Chart)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(changed.Chart, "values.yaml"), []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	return &changed
}

// TestMissingValues: with no defaults in values.yaml, as with --reuse-values, every template renders the same, except
// for the resources, which null removes.
func TestMissingValues(t *testing.T) {
	helm := newHelm(t)
	const values = `
rotator: {cluster: true, transitKeys: [a]}
monitoring: {dashboard: {enabled: true}, serviceMonitor: {enabled: true}, prometheusRule: {enabled: true}}
admission: {enabled: true, forbidPlaintext: {enabled: true}}
`
	const more = "provider: {resourceQuota: true, securityContextConstraints: true}\n"
	resources := map[string]any{}
	for component, defaults := range parse(t, read(t, Dir+"/values.yaml")) {
		if d, ok := defaults.(map[string]any); ok && d["resources"] != nil {
			resources[component] = map[string]any{"resources": d["resources"]}
		}
	}
	text, err := yaml.Marshal(resources)
	if err != nil {
		t.Fatal(err)
	}
	want, err := helm.Template(t.Context(), manifestNamespace, values+more)
	if err != nil {
		t.Fatal(err)
	}
	got, err := copyChart(t, helm, string(text)).Template(t.Context(), manifestNamespace, values+more)
	if err != nil {
		t.Fatal(err)
	}
	if len(want) < 25 {
		t.Errorf("only %d templates render something", len(want))
	}
	checkEqual(t, "the chart without defaults", want, got)
}

// TestEveryTemplateSetsDefaults: a template that does not would depend on another one that Helm renders before.
func TestEveryTemplateSetsDefaults(t *testing.T) {
	templates := os.DirFS(filepath.Join(root(t), filepath.FromSlash(Dir), "templates"))
	found := 0
	err := fs.WalkDir(templates, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), "_") {
			return err
		}
		found++
		text, err := fs.ReadFile(templates, name)
		if !strings.HasPrefix(string(text), `{{- include "secretmanager.defaults" . -}}`+"\n") {
			t.Errorf("%s does not begin with the include of secretmanager.defaults", name)
		}
		return err
	})
	if err != nil || found < 25 {
		t.Errorf("%d templates, %v", found, err)
	}
}

// TestNullIsDefault: a value that is null has its default.
func TestNullIsDefault(t *testing.T) {
	helm := newHelm(t)
	want, err := helm.Template(t.Context(), manifestNamespace, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, values := range []string{
		`vault: {ca: null}`, `provider: {logLevel: null}`, `global: null`, `rotator: {retire: {enabled: null}}`,
		`{vault: null, exporter: {updateStrategy: null}}`,
	} {
		got, err := helm.Template(t.Context(), manifestNamespace, values)
		if err != nil {
			t.Errorf("%s: %v", values, err)
			continue
		}
		checkEqual(t, values, want, got)
	}
}

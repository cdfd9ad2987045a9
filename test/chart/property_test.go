package chart

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// TestAnyValues draws values that the schema accepts. The chart either renders objects that the API server accepts and
// that kustomize parses, or says in its own words which values do not go together.
//
// It draws the same 20 values each time; `go test -run TestAnyValues ./test/chart -rapid.checks=1000` draws others.
func TestAnyValues(t *testing.T) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		for name, value := range map[string]string{"rapid.checks": "20", "rapid.seed": "1"} {
			if err := flag.Set(name, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := newCluster(t)
	c.setDriver(t, validDriver(t))
	const namespace = "any-values"
	c.api.CreateNamespace(t, namespace)
	helm := newHelm(t)
	leaves := readLeaves(t)
	rendered, refused := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		values := drawValues(rt, leaves)
		text, err := yaml.Marshal(values)
		if err != nil {
			rt.Fatal(err)
		}
		documents, err := helm.Template(t.Context(), namespace, string(text))
		if err != nil {
			if !strings.Contains(err.Error(), "The chart cannot be installed:") {
				rt.Fatalf("%v\nvalues:\n%s", err, text)
			}
			refused++
			return
		}
		rendered++
		fs := filesys.MakeFsInMemory()
		var files []string
		for _, template := range slices.Sorted(maps.Keys(documents)) {
			for _, doc := range documents[template] {
				o, err := c.dryRun(t, doc, namespace)
				if err != nil {
					rt.Fatalf("%s: %v\nvalues:\n%s\nobject:\n%s", template, err, text, doc)
				}
				if o == nil {
					continue // only comments
				}
				name := fmt.Sprintf("%d.yaml", len(files))
				files = append(files, name)
				if err := fs.WriteFile(name, []byte(doc)); err != nil {
					rt.Fatal(err)
				}
			}
		}
		kustomization, err := json.Marshal(map[string]any{"resources": files})
		if err != nil {
			rt.Fatal(err)
		}
		if err := fs.WriteFile("kustomization.yaml", kustomization); err != nil {
			rt.Fatal(err)
		}
		if _, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(fs, "."); err != nil {
			rt.Fatalf("kustomize: %v\nvalues:\n%s", err, text)
		}
	})
	t.Logf("%d drawn values are rendered, and the chart refuses %d", rendered, refused)
	if rendered < refused {
		t.Errorf("the chart refuses %d of %d drawn values", refused, rendered+refused)
	}
}

// dryRun applies an object with server-side apply, without storing it. It returns nil without an object.
func (c *cluster) dryRun(t *testing.T, doc, namespace string) (*unstructured.Unstructured, error) {
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(doc), &o.Object); err != nil {
		return nil, err
	}
	if len(o.Object) == 0 {
		return nil, nil
	}
	// An object of another namespace is tried in this one, and the namespace alone.
	if other := o.GetNamespace(); other != "" && other != namespace {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: other}}
		_, err := c.kube.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{DryRun: []string{"All"}})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return o, err
		}
		o.SetNamespace(namespace)
	}
	text, err := json.Marshal(o)
	if err != nil {
		return o, err
	}
	_, client := c.read(t, string(text), namespace)
	if client == nil {
		return o, nil // an API that the server does not have
	}
	_, err = client.Apply(t.Context(), o.GetName(), o, metav1.ApplyOptions{FieldManager: "test", DryRun: []string{"All"}})
	return o, err
}

// A leaf is a value of the chart that contains no others.
type leaf struct {
	path   string
	schema map[string]any
}

// readLeaves returns the values of the schema.
func readLeaves(t *testing.T) (leaves []leaf) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), Dir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	var walk func(prefix string, node map[string]any)
	walk = func(prefix string, node map[string]any) {
		for name, property := range node["properties"].(map[string]any) {
			p := property.(map[string]any)
			if _, nested := p["properties"]; nested {
				walk(prefix+name+".", p)
				continue
			}
			leaves = append(leaves, leaf{prefix + name, p})
		}
	}
	walk("", schema)
	slices.SortFunc(leaves, func(a, b leaf) int { return strings.Compare(a.path, b.path) })
	return leaves
}

// drawValues draws a few values.
func drawValues(t *rapid.T, leaves []leaf) map[string]any {
	values := map[string]any{}
	chosen := rapid.SliceOfNDistinct(rapid.SampledFrom(leaves), 1, 8, func(l leaf) string { return l.path }).
		Draw(t, "leaves")
	for _, l := range chosen {
		at, parts := values, strings.Split(l.path, ".")
		for _, name := range parts[:len(parts)-1] {
			if at[name] == nil {
				at[name] = map[string]any{}
			}
			at = at[name].(map[string]any)
		}
		at[parts[len(parts)-1]] = l.draw(t)
	}
	return values
}

// draw draws a value of the leaf: from the samples for what the chart passes on, and otherwise from its schema.
func (l leaf) draw(t *rapid.T) any {
	name := l.path[strings.LastIndexByte(l.path, '.')+1:]
	for _, key := range []string{l.path, name} {
		if list, found := samples[key]; found {
			var value any
			if err := yaml.Unmarshal([]byte(rapid.SampledFrom(list).Draw(t, l.path)), &value); err != nil {
				t.Fatalf("sample of %s: %v", key, err)
			}
			return value
		}
	}
	return drawSchema(t, l.path, l.schema)
}

// drawSchema draws a value that a schema without references accepts.
func drawSchema(t *rapid.T, path string, schema map[string]any) any {
	number := func(name string, otherwise int) int {
		if n, found := schema[name].(float64); found {
			return int(n)
		}
		return otherwise
	}
	if enum, found := schema["enum"].([]any); found {
		return rapid.SampledFrom(enum).Draw(t, path)
	}
	kinds, many := schema["type"].([]any)
	if !many {
		kinds = []any{schema["type"]}
	}
	switch kind := rapid.SampledFrom(kinds).Draw(t, path+" type"); kind {
	case "boolean":
		return rapid.Bool().Draw(t, path)
	case "null":
		return nil
	case "integer":
		return rapid.IntRange(number("minimum", 0), number("maximum", 1<<30)).Draw(t, path)
	case "string":
		pattern, found := schema["pattern"].(string)
		if !found {
			pattern = `^[ -~]*$`
		}
		least, most := number("minLength", 0), number("maxLength", 60)
		unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
		return rapid.StringMatching(pattern).Filter(func(s string) bool {
			return len(s) >= least && len(s) <= most && !strings.ContainsFunc(s, unprintable)
		}).Draw(t, path)
	case "array":
		items, found := schema["items"].(map[string]any)
		if !found {
			t.Fatalf("%s is passed on, and needs samples", path)
		}
		element := rapid.Custom(func(t *rapid.T) any { return drawSchema(t, path, items) })
		return rapid.SliceOfNDistinct(element, number("minItems", 0), 3, func(v any) string { return fmt.Sprint(v) }).
			Draw(t, path)
	default:
		t.Fatalf("%s has the type %v, and needs samples", path, kind)
		return nil
	}
}

// samples are valid values of what the chart passes on, by path or by the last part of it.
var samples = map[string][]string{
	"affinity": {`{}`, `{nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms:
		[{matchExpressions: [{key: a, operator: Exists}]}]}}}`},
	"tolerations": {`[]`, `[{operator: Exists}]`,
		`[{key: a, operator: Equal, value: "true", effect: NoExecute, tolerationSeconds: 60}]`,
		`[{key: a, operator: Exists}, {key: a, operator: Exists, effect: NoSchedule}]`},
	"nodeSelector": {`{}`, `{kubernetes.io/arch: amd64}`, `{"a.example/b": "true", c: "1"}`},
	"resources": {`{}`, `{limits: {memory: 1Gi, cpu: 2}, requests: {cpu: 0.1, memory: "128974848"}}`,
		`{limits: {memory: 64Mi}}`, `{limits: null}`, `{requests: {cpu: 1m, ephemeral-storage: 1Gi}}`},
	"podSecurityContext": {`{}`, `{runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000, fsGroupChangePolicy: OnRootMismatch}`,
		`{seLinuxOptions: {level: "s0:c123,c456"}}`, `{supplementalGroups: [1, 2], supplementalGroupsPolicy: Strict}`},
	"securityContext": {`{}`, `{readOnlyRootFilesystem: false}`, `{capabilities: {add: [DAC_OVERRIDE]}}`,
		`{seLinuxOptions: {type: spc_t}}`, `{seccompProfile: {type: Localhost, localhostProfile: a.json}}`},
	"provider.updateStrategy": {`{}`, `{type: OnDelete}`, `{rollingUpdate: {maxSurge: 0, maxUnavailable: 10%}}`},
	"exporter.updateStrategy": {`{}`, `{type: Recreate}`, `{rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}`},
	"readinessProbe":          {`{}`, `{initialDelaySeconds: 5, timeoutSeconds: 2, periodSeconds: 1}`},
	"livenessProbe":           {`{}`, `{failureThreshold: 10, initialDelaySeconds: 1}`},
	"extraArgs":               {`[]`, `["--log-level=debug"]`, `["--vault-allowed-namespaces=a,b", "--log-level=warn"]`},
	"extraEnv": {`[]`, `[{name: A, value: ""}, {name: B, value: "true"}, {name: C, value: "1"}]`,
		`[{name: HTTPS_PROXY, value: "http://proxy.example:3128"}]`,
		`[{name: A, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]`},
	"extraVolumes":      {`[]`, `[{name: more, emptyDir: {}}]`, `[{name: more, hostPath: {path: /opt, type: Directory}}]`},
	"extraVolumeMounts": {`[]`},
	"imagePullSecrets":  {`[]`, `[{name: a}, {name: b.example}]`},
	"commonLabels":      {`{}`, `{team: platform}`, `{"example.org/a": "1", b: "true", c: ""}`},
	"podLabels":         {`{}`, `{"example.org/a": "1"}`},
	"labels":            {`{}`, `{release: prometheus}`, `{a: "true"}`},
	"annotations":       {`{}`, `{"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/a"}`, `{a: "1", b: "", c: "true"}`},
	"podAnnotations":    {`{}`, `{"prometheus.io/scrape": "true"}`},
	"extraObjects": {`[]`, `[{apiVersion: v1, kind: ConfigMap, metadata: {name: extra}, data: {a: "1"}}]`,
		`["apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-extra'}\n"]`},
	"provider.inlineAuth": {`[]`, `[kubernetes]`}, // mounts that a class may set
	"priorityClassName":   {`""`, `system-node-critical`, `a.example`},
	"schedule":            {`"0 3 * * *"`, `"*/5 1,2 * * MON-FRI"`, `"@daily"`},
	"timeZone":            {`""`, `Europe/Vienna`, `Etc/UTC`},
	"networkPolicy.metricsFrom": {`[]`, `[{namespaceSelector: {matchLabels: {a: b}}}]`,
		`[{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {podSelector: {}}]`},
	"networkPolicy.egress.ports": {`[{port: 443}]`,
		`[{port: 8000, endPort: 9000, protocol: TCP}, {port: https}]`},
	"admission.validationActions": {`[Deny]`, `[Warn, Audit]`, `[Audit, Deny]`},
	"admission.forbidPlaintext.namespaceSelector": {`{}`,
		`{matchExpressions: [{key: a, operator: NotIn, values: [b, c]}]}`},
}

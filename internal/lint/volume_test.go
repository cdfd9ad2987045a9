package lint

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// podLines is the specification of a pod with a volume; the volume begins on line 4, and the mount on line 3.
const podLines = `serviceAccountName: matrix
containers:
- {name: app, image: app, volumeMounts: [{name: secrets, mountPath: /secrets}]}
volumes: [{name: secrets, csi: {driver: secrets-store.csi.k8s.io, readOnly: true,
  volumeAttributes: {secretProviderClass: matrix},
  nodePublishSecretRef: {name: matrix}}}]
`

// inKind returns an object of a kind with the specification of a pod, which begins on line 5 or later.
func inKind(kind, pod string) string {
	kinds := map[string]struct {
		api  string
		path []string
	}{
		"Pod": {"v1", []string{"spec"}}, "PodTemplate": {"v1", []string{"template", "spec"}},
		"ReplicationController": {"v1", []string{"spec", "template", "spec"}},
		"Deployment":            {"apps/v1", []string{"spec", "template", "spec"}},
		"StatefulSet":           {"apps/v1", []string{"spec", "template", "spec"}},
		"DaemonSet":             {"apps/v1", []string{"spec", "template", "spec"}},
		"ReplicaSet":            {"apps/v1", []string{"spec", "template", "spec"}},
		"Job":                   {"batch/v1", []string{"spec", "template", "spec"}},
		"CronJob":               {"batch/v1", []string{"spec", "jobTemplate", "spec", "template", "spec"}},
	}
	k, ok := kinds[kind]
	if !ok {
		panic(kind)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: %s\nkind: %s\nmetadata: {name: app, namespace: demo}\n", k.api, kind)
	for i, field := range k.path {
		fmt.Fprintf(&b, "%s%s:\n", strings.Repeat("  ", i), field)
	}
	for line := range strings.Lines(pod) {
		b.WriteString(strings.Repeat("  ", len(k.path)) + line)
	}
	return b.String()
}

// volumeRuleTests are cases of TestRules. The volume of a Pod is on lines 8 to 10.
func volumeRuleTests() (tests []ruleTest) {
	type m = map[string]string
	pod := func(changes ...string) string {
		text := podLines
		for i := 0; i < len(changes); i += 2 {
			if !strings.Contains(text, changes[i]) {
				panic(changes[i])
			}
			text = strings.Replace(text, changes[i], changes[i+1], 1)
		}
		return inKind("Pod", text)
	}
	attribute := func(attributes string) string {
		return pod("secretProviderClass: matrix", "secretProviderClass: matrix, "+attributes)
	}
	world := func(pod string) m { return m{"a.yaml": good, "c.yaml": classOf(""), "p.yaml": pod} }
	with := func(files m, name, text string) m { files[name] = text; return files }
	scoped := func(scope string) m {
		annotation := "annotations: {secretmanager.io/scope: " + scope + "}, labels:"
		return m{"a.yaml": edited("labels:", annotation),
			"b.yaml": strings.Replace(edited("labels:", annotation), "name: matrix", "name: other", 1),
			"c.yaml": classOf("    scope: " + scope + "\n"), "p.yaml": pod("{name: matrix}", "{name: other}")}
	}
	for _, kind := range []string{"Pod", "PodTemplate", "ReplicationController", "Deployment", "StatefulSet", "DaemonSet",
		"ReplicaSet", "Job", "CronJob"} {
		line := strings.Count(inKind(kind, ""), "\n") + 5
		tests = append(tests, ruleTest{kind + " that fits", world(inKind(kind, podLines)), Options{}, nil},
			ruleTest{kind + " with a misspelled class", world(inKind(kind, strings.Replace(podLines, "Class: matrix",
				"Class: matirx", 1))), Options{}, []string{fmt.Sprintf("p.yaml:%d volume-class", line)}},
			ruleTest{kind + " with another Secret", world(inKind(kind, strings.Replace(podLines, "{name: matrix}",
				"{name: other}", 1))), Options{}, []string{fmt.Sprintf("p.yaml:%d volume-secret", line+1)}})
	}
	inNamespace := func(text, namespace string) string {
		return strings.Replace(text, ", namespace: demo", namespace, 1)
	}
	account := func(name string) string {
		return "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: " + name + ", namespace: demo}\n"
	}
	role := func(name string) string {
		return strings.Replace(classOf(""), "roleName: matrix", "roleName: "+name, 1)
	}
	overlay := func(rest string) string {
		return "resources: [a.yaml, c.yaml, p.yaml]\n" + rest
	}
	entries := "objects: '- objectName: nosuch'"
	return append(tests, []ruleTest{
		{"volume without its class", m{"p.yaml": pod()}, Options{}, nil},
		{"volume without its class, with its Secret", m{"a.yaml": good, "p.yaml": pod()}, Options{},
			[]string{"p.yaml:9 volume-class"}},
		{"volume of another provider", world(pod("Class: matrix", "Class: aws", "{name: matrix}", "{name: aws}")), Options{},
			[]string{"p.yaml:9 volume-class"}},
		{"volume of another provider in an unknown namespace",
			world(inNamespace(pod("Class: matrix", "Class: aws", "{name: matrix}", "{name: aws}"), "")), Options{}, nil},
		{"volume of another provider, with its class",
			with(world(pod("Class: matrix", "Class: aws")), "d.yaml", strings.NewReplacer("name: matrix, n", "name: aws, n",
				"provider: secretmanager", "provider: aws").Replace(classOf(""))), Options{}, nil},
		{"volume of another driver", world(pod("driver: secrets-store", "driver: other", "Class: matrix", "Class: matirx")),
			Options{}, nil},
		{"kind of another group", world(strings.Replace(inKind("Deployment", strings.Replace(podLines, "Class: matrix",
			"Class: matirx", 1)), "apps/v1", "example.org/v1", 1)), Options{}, nil},
		{"volume in another namespace", world(inNamespace(pod(), ", namespace: other")), Options{},
			[]string{"p.yaml:9 volume-class"}},
		{"volume in no namespace", world(inNamespace(pod(), "")), Options{}, nil},
		{"volume in no namespace, which goes elsewhere", world(inNamespace(pod(), "")), Options{Namespace: "other"},
			[]string{"p.yaml:9 volume-class"}},
		{"volume that fits one of two classes", with(world(pod()), "d/c.yaml",
			strings.Replace(classOf(""), "secretName: matrix", "secretName: other", 1)), Options{},
			[]string{"d/c.yaml:8 class-secret"}},
		{"volume without a Secret", world(pod("nodePublishSecretRef: {name: matrix}", "fsType: tmpfs")), Options{}, nil},
		{"volume that is not read-only", world(pod("readOnly: true", "readOnly: false")), Options{},
			[]string{"p.yaml:8 volume-read-only"}},
		{"volume without readOnly", world(pod("readOnly: true", "fsType: ''")), Options{},
			[]string{"p.yaml:8 volume-read-only"}},
		{"subPath", world(pod("mountPath: /secrets", "mountPath: /secrets/a, subPath: a")), Options{},
			[]string{"p.yaml:7 sub-path"}},
		{"subPathExpr of an init container", world(pod("containers:", "initContainers:", "mountPath: /secrets",
			"mountPath: /secrets/a, subPathExpr: $(A)")), Options{}, []string{"p.yaml:7 sub-path"}},
		{"subPath of another volume", world(pod("[{name: secrets, m", "[{name: x, subPath: a, m")), Options{}, nil},

		{"another Secret, scope namespace", scoped("namespace"), Options{}, nil},
		{"another Secret, scope none", scoped("none"), Options{}, nil},
		{"another Secret without an entry, scope none",
			with(with(scoped("none"), "c.yaml", classOf("    scope: none\n    objects: '- objectName: a'\n")), "b.yaml",
				strings.NewReplacer("{a: ", "{b: ", "name: matrix", "name: other", "labels:",
					"annotations: {secretmanager.io/scope: none}, labels:").Replace(good)), Options{},
			[]string{"p.yaml:8 class-object"}},
		{"attribute with a missing entry", world(attribute(entries)), Options{}, []string{"p.yaml:9 class-object"}},
		{"attribute with another key", world(attribute("transitKey: x")), Options{}, []string{"p.yaml:9 class-differs"}},
		{"attribute with another Secret", world(attribute("secretName: x")), Options{}, []string{"p.yaml:10 volume-secret"}},
		{"attribute that is unknown", world(attribute("secretNam: x")), Options{}, []string{"p.yaml:9 parameters"}},
		{"attributes that fix the class", with(world(attribute("transitKey: matrix")), "c.yaml",
			strings.Replace(classOf(""), "transitKey: matrix", "transitKey: ''", 1)), Options{}, nil},
		{"attributes that fix the class for one of two", with(with(world(attribute("transitKey: matrix")), "c.yaml",
			strings.Replace(classOf(""), "transitKey: matrix", "transitKey: ''", 1)), "q.yaml", pod()), Options{},
			[]string{"c.yaml:9 parameters"}},
		{"class of a Secret without type and label that has ciphertext", m{"c.yaml": classOf(""),
			"a.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: matrix, namespace: demo}\ndata: {a: " + b64(ct(1)) +
				"}\n"}, Options{}, []string{"a.yaml:4 unassigned"}},
		{"class of a plaintext Secret", m{"c.yaml": classOf("    objects: '- objectName: a'\n"),
			"a.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: matrix, namespace: demo}\ndata: {a: aGk=}\n"},
			Options{}, []string{"c.yaml:8 class-differs"}},

		{"role of another account", with(with(world(pod("Name: matrix", "Name: default")), "s.yaml", account("matrix")),
			"c.yaml", role("demo-matrix")), Options{}, []string{"p.yaml:8 service-account"}},
		{"role of the account", with(with(world(pod()), "s.yaml", account("matrix")), "c.yaml", role("demo-matrix")),
			Options{}, nil},
		{"role of no known account", with(with(world(pod("Name: matrix", "Name: default")), "s.yaml", account("x")),
			"c.yaml", role("demo-matrix")), Options{}, nil},
		{"role of an account in all namespaces", with(world(pod("Name: matrix", "Name: default")), "c.yaml",
			role("namespaces_matrix")), Options{}, []string{"p.yaml:8 service-account"}},

		{"kustomization that moves all", with(with(world(inNamespace(pod(), ", namespace: x")), "kustomization.yaml",
			overlay("namespace: demo\n")), "c.yaml", inNamespace(classOf(""), ", namespace: y")), Options{}, nil},
		{"kustomization that renames the class", with(with(world(pod("Class: matrix", "Class: a-matrix")),
			"kustomization.yaml", "resources: [c.yaml, p.yaml]\nnamePrefix: a-\n"), "x", ""), Options{}, nil},
		{"kustomization that patches volumes", with(world(pod("Class: matrix", "Class: matirx")), "kustomization.yaml",
			overlay("patches: [{patch: '[{op: replace, path: /spec/volumes/0/csi, value: {}}]'}]\n")), Options{}, nil},
		{"kustomization that patches something else", with(world(pod("Class: matrix", "Class: matirx")),
			"kustomization.yaml", overlay("patches: [{patch: '[{op: add, path: /spec/replicas, value: 3}]'}]\n")), Options{},
			[]string{"p.yaml:9 volume-class"}},
		{"patch in a file", with(with(world(pod("{name: matrix}", "{name: other}")), "kustomization.yaml",
			overlay("patches: [{path: patch.yaml}]\n")), "patch.yaml", inKind("Pod", "volumes: [{name: secrets, csi: "+
			"{driver: secrets-store.csi.k8s.io, nodePublishSecretRef: {name: matrix}}}]\n")), Options{}, nil},
		{"patch of a class in a file", with(with(world(pod()), "kustomization.yaml",
			overlay("patchesStrategicMerge: [patch.yaml]\n")), "patch.yaml",
			strings.Replace(classOf(""), "    roleName: matrix\n", "", 1)), Options{}, nil},
	}...)
}

// otherRuleTests are cases of TestRules about copies and --forbid-plaintext.
func otherRuleTests() []ruleTest {
	type m = map[string]string
	named := func(name, namespace string) string {
		return strings.Replace(good, "name: matrix, namespace: demo", "name: "+name+namespace, 1)
	}
	scoped := func(text, scope string) string {
		return strings.Replace(text, "labels:", "annotations: {secretmanager.io/scope: "+scope+"}, labels:", 1)
	}
	plain := func(rest string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: demo}\n" + rest + "\n"
	}
	forbid := Options{ForbidPlaintext: true}
	return []ruleTest{
		{"copy in another namespace", m{"a.yaml": good, "b.yaml": named("matrix", ", namespace: other")}, Options{},
			[]string{"b.yaml:6 copied"}},
		{"copy with another name", m{"a.yaml": good, "b.yaml": named("other", ", namespace: demo")}, Options{},
			[]string{"b.yaml:6 copied"}},
		{"copy in another entry", m{"a.yaml": secretOf("data:\n  a: " + b64(ct(1)) + "\n  b: " + b64(ct(1)))}, Options{},
			[]string{"a.yaml:8 copied"}},
		{"copy under stringData", m{"a.yaml": good, "b.yaml": strings.Replace(named("other", ", namespace: demo"),
			"data: {a: "+b64(ct(3)), "stringData: {a: '"+ct(3)+"'", 1)}, Options{}, []string{"b.yaml:6 copied"}},
		{"the same Secret for two clusters", m{"a/a.yaml": good, "b/a.yaml": good}, Options{}, nil},
		{"copy in an unknown namespace", m{"a.yaml": good, "b.yaml": scoped(named("matrix", ""), "strict")},
			Options{}, []string{"b.yaml:1 namespace"}},
		{"copy in a namespace that -n sets", m{"a.yaml": good, "b.yaml": named("matrix", "")}, Options{Namespace: "other"},
			[]string{"b.yaml:6 copied"}},
		{"copy of scope namespace", m{"a.yaml": scoped(good, "namespace"),
			"b.yaml": scoped(named("other", ", namespace: demo"), "namespace")}, Options{}, nil},
		{"copy of scope namespace in another", m{"a.yaml": scoped(good, "namespace"),
			"b.yaml": scoped(named("other", ", namespace: other"), "namespace")}, Options{}, []string{"b.yaml:6 copied"}},
		{"copy of scope none", m{"a.yaml": scoped(good, "none"), "b.yaml": scoped(named("o", ", namespace: other"), "none")},
			Options{}, nil},
		{"copy of another scope", m{"a.yaml": scoped(good, "none"), "b.yaml": good}, Options{}, []string{"b.yaml:6 copied"}},
		{"copy that a kustomization may rename", m{"a.yaml": good, "b.yaml": named("a-matrix", ", namespace: demo"),
			"kustomization.yaml": "resources: [a.yaml]\nnamePrefix: a-\n"}, Options{},
			[]string{"kustomization.yaml:2 kustomize"}},

		{"plaintext that is allowed", m{"a.yaml": plain("data: {a: aGk=}")}, Options{}, nil},
		{"plaintext that is forbidden", m{"a.yaml": plain("data:\n  a: aGk=\n  b: '*'\nstringData:\n  c: hi")}, forbid,
			[]string{"a.yaml:5 forbidden-plaintext", "a.yaml:6 forbidden-plaintext", "a.yaml:8 forbidden-plaintext"}},
		{"plaintext of a type that allows it",
			m{"a.yaml": plain("type: kubernetes.io/tls\ndata: {tls.key: aGk=}")}, forbid, nil},
		{"plaintext of another type",
			m{"a.yaml": plain("type: kubernetes.io/basic-auth\ndata: {password: aGk=}")}, forbid,
			[]string{"a.yaml:5 forbidden-plaintext"}},
		{"no entries", m{"a.yaml": plain("type: Opaque")}, forbid, nil},
		{"ciphertext", m{"a.yaml": good}, forbid, nil},
		{"generated plaintext", m{"kustomization.yaml": "secretGenerator:\n- name: x\n  literals:\n  - a=hi\n  - a=" + ct(1) +
			"\n- {name: y, type: kubernetes.io/tls, literals: [a=b]}\n"}, forbid,
			[]string{"kustomization.yaml:4 forbidden-plaintext", "kustomization.yaml:5 unassigned"}},
	}
}

// TestPlaintextTypes compares the types that may have plaintext with those of the admission policy.
func TestPlaintextTypes(t *testing.T) {
	policy, err := os.ReadFile("../../manifests/admission/forbid-plaintext/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile(`object\.type in (\[.*\])\)`).FindSubmatch(policy)
	var types []corev1.SecretType
	if list == nil || json.Unmarshal(list[1], &types) != nil {
		t.Fatalf("the policy has no list of types: %s", policy)
	}
	if diff := cmp.Diff(types, PlaintextTypes); diff != "" {
		t.Errorf("-policy +lint:\n%s", diff)
	}
}

// TestVolumeMessages checks what the messages about volumes name.
func TestVolumeMessages(t *testing.T) {
	deployment := inKind("Deployment", podLines)
	for _, test := range []struct{ from, to, want string }{
		{"Class: matrix", "Class: matirx", `Deployment demo/app: volume secrets: its class matirx is not among the files, ` +
			`so they cannot be compared: did you mean matrix (c.yaml:1)?`},
		{"namespace: demo", "namespace: web", "its class matrix is not among the files, so they cannot be compared: " +
			"matrix (c.yaml:1) is in namespace demo, and the driver reads the class in the namespace of the pod"},
		{"{name: matrix}", "{name: matirx}", "Deployment demo/app: volume secrets: nodePublishSecretRef names Secret " +
			"matirx, and its class matrix (c.yaml:1) names matrix, and only that one is among the files: nothing would decrypt"},
		{"readOnly: true", "readOnly: false", "volume secrets: has no readOnly: true below csi, and the driver refuses"},
	} {
		findings := checkFiles(t, map[string]string{"a.yaml": good, "c.yaml": classOf(""),
			"p.yaml": strings.Replace(deployment, test.from, test.to, 1)}, Options{})
		if len(findings) != 1 || !strings.Contains(findings[0].Message, test.want) {
			t.Errorf("%s: %+v", test.to, findings)
		}
	}
}

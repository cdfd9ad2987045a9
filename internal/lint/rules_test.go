package lint

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// ct returns well-formed ciphertext of a key version.
func ct(version int) string {
	return fmt.Sprintf("vault:v%d:%s", version, b64(strings.Repeat("\x00", 40)))
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// secretOf returns a ciphertext Secret without findings except those of the body, which begins on line 6.
func secretOf(body string) string {
	return `apiVersion: v1
kind: Secret
type: secretmanager.io/ciphertext
metadata: {name: matrix, namespace: demo, labels: {secretmanager.io/transit-key: matrix}}
# more
` + body + "\n"
}

func dataOf(value string) string { return secretOf("data: {a: " + value + "}") }

func classOf(parameters string) string {
	return `apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: matrix, namespace: demo}
spec:
  provider: secretmanager
  parameters:
    roleName: matrix
    secretName: matrix
    transitKey: matrix
` + parameters
}

func checkFiles(t *testing.T, sources map[string]string, o Options) []Finding {
	t.Helper()
	var files []*File
	var names []string
	for name := range sources {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		m, err := manifest.Parse([]byte(sources[name]))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files = append(files, Read(name, m))
	}
	return Check(files, o)
}

func summaries(findings []Finding) (all []string) {
	for _, f := range findings {
		all = append(all, fmt.Sprintf("%s:%d %s", f.File, f.Line, f.Rule))
	}
	return all
}

// good has no findings.
var good = dataOf(b64(ct(3)))

// edited returns good with a replacement.
func edited(from, to string) string {
	if !strings.Contains(good, from) {
		panic(from)
	}
	return strings.Replace(good, from, to, 1)
}

type ruleTest struct {
	name    string
	files   map[string]string
	options Options
	want    []string
}

func TestRules(t *testing.T) {
	type m = map[string]string
	one := func(source string) m { return m{"a.yaml": source} }
	label, named := "secretmanager.io/transit-key: matrix", "name: matrix, namespace: demo"
	annotated := func(annotations string) string {
		return edited("labels:", "annotations: {"+annotations+"}, labels:")
	}
	flux := func(spec string) string {
		return "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\n" +
			"metadata: {name: shop, namespace: flux-system}\nspec: {" + spec + "}\n"
	}
	argo := func(spec string) string {
		return "apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {name: shop, namespace: argocd}\n" +
			"spec: {" + spec + "}\n"
	}
	kustomized := func(kustomization string) m {
		return m{"base/kustomization.yaml": "resources: [secret.yaml]\n", "base/secret.yaml": edited(", namespace: demo", ""),
			"top/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: " +
				"[../base]\n" + kustomization}
	}
	tests := []ruleTest{
		{"good", one(good), Options{}, nil},
		{"good in a list",
			one("apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(good), "\n", "\n  ")),
			Options{}, nil},
		{"good JSON",
			one(
				`{"apiVersion": "v1", "kind": "Secret", "type": "secretmanager.io/ciphertext", ` +
					`"metadata": {"name": "a", "namespace": "b", "labels": {"secretmanager.io/transit-key": "k"}}, ` +
					`"data": {"a": "` + b64(ct(1)) + `"}}`), Options{}, nil},
		{"good stringData", one(secretOf("stringData: {a: '" + ct(1) + "'}")), Options{}, nil},
		{"not ours", one("apiVersion: v1\nkind: Secret\nmetadata: {name: x, name: y}\ndata: {a: '***', a: b}\n"),
			Options{}, nil},
		{"ours by the label",
			one("apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: y, labels: {" + label +
				"}}\ndata: {a: aGk=}\n"), Options{}, []string{"a.yaml:4 plaintext"}},
		{"ours by an annotation",
			one("apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: y, annotations: " +
				"{secretmanager.io/scope: strict}}\ndata: {a: aGk=}\n"), Options{},
			[]string{"a.yaml:1 key-label", "a.yaml:4 plaintext"}},
		{"key in Vault", m{"a.yaml": dataOf(b64(ct(3))), "b.yaml": dataOf(b64(ct(4))), "c.yaml": dataOf(b64(ct(5))),
			"d.yaml": dataOf(
				b64(ct(6)),
			), "e.yaml": dataOf(b64(ct(2))), "f.yaml": strings.ReplaceAll(good, "key: matrix", "key: x")},
			Options{Keys: map[ciphertext.Key]KeyVersions{
				{Mount: ciphertext.DefaultTransitMount, Name: "matrix"}: {MinDecryption: 3, Target: 4, Latest: 5},
			}}, []string{"a.yaml:6 key-version", "d.yaml:6 key-version", "e.yaml:6 key-version"}},
		{"immutable", one(edited("# more", "immutable: true")), Options{}, []string{"a.yaml:5 immutable"}},
		{"not immutable", one(edited("# more", "immutable: false")), Options{}, nil},
		{"second document", one("a: b\n---\n" + dataOf("aGk=")), Options{}, []string{"a.yaml:8 plaintext"}},
		{"in a list",
			one("apiVersion: v1\nkind: SecretList\nitems:\n- type: secretmanager.io/ciphertext\n  metadata: {" + named +
				"}\n  data: {a: aGk=}\n"), Options{}, []string{"a.yaml:4 key-label", "a.yaml:6 plaintext"}},

		{"the same key twice", one(edited("# more", "type: secretmanager.io/ciphertext")), Options{},
			[]string{"a.yaml:5 object"}},
		{"the same label twice", one(edited(label, label+", "+label)), Options{}, []string{"a.yaml:4 object"}},
		{"the same metadata twice", one(edited(named, named+", namespace: demo")), Options{}, []string{"a.yaml:4 object"}},
		{"label that is a number", one(edited(label, label+", secretmanager.io/key-version: 3")), Options{},
			[]string{"a.yaml:4 object"}},
		{"name that is a number", one(edited(named, "name: 3, namespace: 4")), Options{},
			[]string{"a.yaml:4 object", "a.yaml:4 object", "a.yaml:1 name", "a.yaml:1 namespace"}},
		{"value that is a number", one(dataOf("1234")), Options{}, []string{"a.yaml:6 object"}},
		{"value that is a mapping", one(dataOf("{b: c}")), Options{}, []string{"a.yaml:6 object"}},
		{"data that is a list", one(secretOf("data: [a]")), Options{}, []string{"a.yaml:6 object", "a.yaml:1 empty"}},
		{"data with a list for a key", one(secretOf("data: {[a]: b}")), Options{},
			[]string{"a.yaml:6 object", "a.yaml:1 empty"}},
		{"type that is a number", one(edited("type: secretmanager.io/ciphertext", "type: 3")), Options{},
			[]string{"a.yaml:3 object"}},

		{"no name", one(edited("name: matrix, ", "")), Options{}, []string{"a.yaml:1 name"}},
		{"bad name", one(edited("name: matrix", "name: Matrix")), Options{}, []string{"a.yaml:1 name"}},
		{"bad namespace", one(edited("demo", "de.mo")), Options{}, []string{"a.yaml:1 name"}},
		{"bad entry", one(edited("{a: ", "{a/b: ")), Options{}, []string{"a.yaml:6 name"}},
		{"generated name", one(edited("name: matrix", "generateName: matrix")), Options{}, []string{"a.yaml:1 name"}},
		{"generated name, scope namespace",
			one(edited("name: matrix", "annotations: {secretmanager.io/scope: namespace}, generateName: matrix")),
			Options{}, nil},

		{"no key label", one(edited("labels: {"+label+"}", "labels: {a: b}")), Options{}, []string{"a.yaml:1 key-label"}},
		{"empty key label", one(edited(label, "secretmanager.io/transit-key: ''")), Options{},
			[]string{"a.yaml:4 key-label"}},
		{"invalid key label", one(edited(label, "secretmanager.io/transit-key: a/b")), Options{},
			[]string{"a.yaml:4 key-label"}},
		{"key label that Kubernetes does not accept", one(edited(label, "secretmanager.io/transit-key: 'a:b'")),
			Options{}, []string{"a.yaml:4 key-label"}},
		{"bad mount", one(annotated("secretmanager.io/transit-mount: ../sys")), Options{},
			[]string{"a.yaml:4 transit-mount"}},
		{"empty mount", one(annotated("secretmanager.io/transit-mount: ''")), Options{}, []string{"a.yaml:4 transit-mount"}},
		{"bad scope", one(annotated("secretmanager.io/scope: galaxy")), Options{}, []string{"a.yaml:4 scope"}},

		{"no namespace", one(edited(", namespace: demo", "")), Options{}, []string{"a.yaml:1 namespace"}},
		{"namespace given", one(edited(", namespace: demo", "")), Options{Namespace: "demo"}, nil},
		{"no namespace, scope namespace",
			one(edited(", namespace: demo", ", annotations: {secretmanager.io/scope: namespace}")), Options{},
			[]string{"a.yaml:1 namespace"}},
		{"no namespace, scope cluster",
			one(edited(", namespace: demo", ", annotations: {secretmanager.io/scope: cluster}")), Options{}, nil},

		{"no entries", one(secretOf("data: {}")), Options{}, []string{"a.yaml:1 empty"}},
		{"no data", one(secretOf("data:")), Options{}, []string{"a.yaml:1 empty"}},
		{"empty entry", one(dataOf("")), Options{}, []string{"a.yaml:6 empty"}},
		{"white space", one(dataOf(b64(" \n"))), Options{}, []string{"a.yaml:6 empty"}},
		{"plaintext", one(dataOf(b64("hunter2"))), Options{}, []string{"a.yaml:6 plaintext"}},
		{"plaintext in base64 twice", one(dataOf(b64(b64("hunter2")))), Options{}, []string{"a.yaml:6 plaintext"}},
		{"plaintext under stringData", one(secretOf("stringData:\n  a: hunter2")), Options{}, []string{"a.yaml:7 plaintext"}},
		{"plaintext in an alias", one(secretOf("other: &x aGk=\ndata:\n  a: *x")), Options{},
			[]string{"a.yaml:8 plaintext"}},
		{"plaintext in merged data", one(secretOf("other: &d {a: aGk=}\ndata:\n  <<: *d\n  b: " + b64(ct(1)))),
			Options{}, []string{"a.yaml:6 plaintext"}},
		{"plaintext in aliased data", one(secretOf("other: &d {a: aGk=}\ndata: *d")), Options{},
			[]string{"a.yaml:6 plaintext"}},
		{"merged entry that is overridden", one(secretOf("other: &d {a: aGk=}\ndata:\n  <<: *d\n  a: " + b64(ct(1)))),
			Options{}, nil},
		{"not base64", one(dataOf("hunter2!")), Options{}, []string{"a.yaml:6 not-base64"}},
		{"ciphertext under data", one(dataOf("'" + ct(1) + "'")), Options{}, []string{"a.yaml:6 not-base64"}},
		{"base64 twice", one(dataOf(b64(b64(ct(1)) + "\n"))), Options{}, []string{"a.yaml:6 double-base64"}},
		{"base64 under stringData", one(secretOf("stringData: {a: " + b64(ct(1)) + "}")), Options{},
			[]string{"a.yaml:6 double-base64"}},
		{"cut short", one(dataOf(b64("vault:v1:AAAA"))), Options{}, []string{"a.yaml:6 malformed"}},
		{"no version", one(dataOf(b64("vault:v:AAAA"))), Options{}, []string{"a.yaml:6 malformed"}},
		{"line feed at the end", one(secretOf("stringData:\n  a: |\n    " + ct(1))), Options{},
			[]string{"a.yaml:7 malformed"}},

		{"last applied, plaintext",
			one(annotated(`kubectl.kubernetes.io/last-applied-configuration: '{"data":{"a":"aGk="}}'`)), Options{},
			[]string{"a.yaml:4 plaintext-copy"}},
		{"last applied, plaintext under stringData",
			one(annotated(`kubectl.kubernetes.io/last-applied-configuration: '{"stringData":{"b":"x"}}'`)), Options{},
			[]string{"a.yaml:4 plaintext-copy"}},
		{"managed, annotation", one(annotated("meta.helm.sh/release-name: shop")), Options{}, []string{"a.yaml:1 managed"}},
		{"managed, label", one(edited(label, label+", reconcile.external-secrets.io/managed: 'true'")), Options{},
			[]string{"a.yaml:1 managed"}},
		{"managed, owner", one(edited(named, named+", ownerReferences: [{kind: SealedSecret, name: matrix}]")), Options{},
			[]string{"a.yaml:1 managed"}},
		{"not managed, the source of copies", one(annotated("replicator.v1.mittwald.de/replicate-to: x")), Options{}, nil},
		{"last applied, no manifest", one(annotated(`kubectl.kubernetes.io/last-applied-configuration: 'hunter2'`)),
			Options{}, []string{"a.yaml:4 plaintext-copy"}},
		{"last applied, empty", one(annotated(`kubectl.kubernetes.io/last-applied-configuration: ''`)), Options{},
			[]string{"a.yaml:4 plaintext-copy"}},
		{"copy of kapp", one(annotated(`kapp.k14s.io/original: '{"apiVersion":"v1","data":{"a":"aGk="},"kind":"Secret"}'`)),
			Options{}, []string{"a.yaml:1 managed", "a.yaml:4 plaintext-copy"}},
		{"copy of kapp, without values", one(annotated(`kapp.k14s.io/original: '{"apiVersion":"v1","kind":"Secret"}'`)),
			Options{}, []string{"a.yaml:1 managed"}},
		{"copy in YAML", one(annotated(`example.org/applied: "kind: Secret\nstringData:\n  a: hi\n"`)), Options{},
			[]string{"a.yaml:4 plaintext-copy"}},
		{"copies in two annotations", one(annotated(`a: '{"data":{"a":"aGk="}}', b: '{"stringData":{"b":"x"}}'`)), Options{},
			[]string{"a.yaml:4 plaintext-copy", "a.yaml:4 plaintext-copy"}},
		{"manifest of another kind", one(annotated(`example.org/a: '{"kind":"ConfigMap","data":{"a":"aGkh"}}'`)), Options{},
			nil},
		{"annotation that is no manifest", one(annotated(`example.org/a: 'data: {a: 1}'`)), Options{}, nil},
		{"last applied, ciphertext",
			one(annotated(`kubectl.kubernetes.io/last-applied-configuration: '{"data":{"a":"` + b64(ct(1)) + `"}}'`)),
			Options{}, []string{"a.yaml:4 unassigned"}},

		{"entry twice", one(secretOf("data:\n  a: " + b64(ct(1)) + "\n  a: " + b64(ct(2)))), Options{},
			[]string{"a.yaml:8 duplicate"}},
		{"entry in both", one(secretOf("data:\n  a: " + b64(ct(1)) + "\nstringData:\n  a: '" + ct(2) + "'")), Options{},
			[]string{"a.yaml:9 duplicate"}},
		{"too large",
			one(secretOf("data:\n  a: " + b64("vault:v1:"+strings.Repeat("A", 800_000)) + "\n  b: " +
				b64("vault:v1:"+strings.Repeat("B", 800_000)))), Options{}, []string{"a.yaml:1 size"}},
		{"below the version", one(secretOf("data:\n  a: " + b64(ct(4)) + "\n  b: " + b64(ct(3)))),
			Options{MinVersion: 4}, []string{"a.yaml:8 min-version"}},
		{"label of another version", one(edited(label, label+", secretmanager.io/key-version: '2'")), Options{},
			[]string{"a.yaml:4 version-label"}},
		{"label of the newest version",
			one(edited(label, label+", secretmanager.io/key-version: '3'") + "stringData: {b: '" + ct(2) + "'}\n"),
			Options{}, []string{"a.yaml:4 version-label"}},
		{"label of the version", one(edited(label, label+", secretmanager.io/key-version: '3'")), Options{}, nil},

		{"class that fits", m{"a.yaml": good, "c.yaml": classOf("    objects: '- {objectName: x, secretKey: a}'\n")},
			Options{}, nil},
		{"class of another provider",
			one(strings.Replace(classOf("    x: y\n"), "provider: secretmanager", "provider: vault", 1)), Options{}, nil},
		{"class without its Secret", one(classOf("")), Options{}, []string{"a.yaml:8 class-secret"}},
		{"class whose Secret is elsewhere", m{"a.yaml": edited("demo", "other"), "c.yaml": classOf("")}, Options{},
			[]string{"c.yaml:8 class-secret"}},
		{"class and Secret without a namespace", m{"a.yaml": edited(", namespace: demo", ""), "c.yaml": classOf("")},
			Options{Namespace: "demo"}, nil},
		{"class without a namespace",
			m{"a.yaml": good, "c.yaml": strings.Replace(classOf(""), ", namespace: demo", "", 1)}, Options{}, nil},
		{"Secret that goes elsewhere", m{"a.yaml": edited(", namespace: demo", ""), "c.yaml": classOf("")},
			Options{Namespace: "other"}, []string{"c.yaml:8 class-secret"}},
		{"class of a plain Secret", m{"a.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {" + named + "}\n",
			"c.yaml": classOf("")}, Options{}, []string{"c.yaml:8 class-differs"}},
		{"class with other settings",
			m{"a.yaml": good, "c.yaml": strings.Replace(classOf("    transitMount: other\n    scope: none\n"),
				"transitKey: matrix", "transitKey: other", 1)}, Options{},
			[]string{"c.yaml:9 class-differs", "c.yaml:10 class-differs", "c.yaml:11 class-differs"}},
		{"class that fits the second of that name",
			m{"a.yaml": edited(label, "secretmanager.io/transit-key: other"), "b.yaml": good, "c.yaml": classOf("")},
			Options{}, nil},
		{"class with a missing entry",
			m{"a.yaml": good, "c.yaml": classOf("    objects: |\n      - objectName: a\n      - objectName: b\n")},
			Options{}, []string{"c.yaml:10 class-object"}},
		{"class with bad parameters",
			m{"a.yaml": good, "c.yaml": strings.Replace(classOf("    scop: none\n    objects: '[]'\n"),
				"roleName: matrix", "roleName: a/b", 1)}, Options{},
			[]string{"c.yaml:7 parameters", "c.yaml:10 parameters", "c.yaml:11 parameters"}},
		{"class above a limit",
			m{"a.yaml": good,
				"c.yaml": classOf("    audience: " + strings.Repeat("a", 5000) + "\n    objects: '" +
					strings.Repeat("- [] ", 10) + strings.Repeat("[],", 60_000) + "'\n")}, Options{},
			[]string{"c.yaml:10 parameters", "c.yaml:11 parameters"}},
		{"class without parameters",
			one("apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\nspec: {provider: " +
				"secretmanager}\n"), Options{},
			[]string{"a.yaml:1 name", "a.yaml:1 parameters", "a.yaml:1 parameters", "a.yaml:1 parameters"}},
		{"class with a number", m{"a.yaml": good, "c.yaml": classOf("    audience: 3\n    audience: a\n")}, Options{},
			[]string{"c.yaml:10 object", "c.yaml:11 object"}},

		{"kustomization that prefixes", kustomized("namePrefix: a-\nnamespace: demo\n"), Options{},
			[]string{"top/kustomization.yaml:4 kustomize"}},
		{"kustomization that gives a namespace", kustomized("namespace: demo\n"), Options{}, nil},
		{"kustomization that gives none", kustomized(""), Options{}, []string{"base/secret.yaml:1 namespace"}},
		{"kustomization that moves", m{"kustomization.yaml": "namespace: other\nresources: [secret.yaml]\n",
			"secret.yaml": good}, Options{}, []string{"kustomization.yaml:1 kustomize"}},
		{"Flux that moves", m{"flux.yaml": flux("path: ./apps/shop, targetNamespace: other"), "apps/shop/secret.yaml": good},
			Options{}, []string{"flux.yaml:4 kustomize"}},
		{"Flux that renames a kustomization", m{"clusters/flux.yaml": flux("path: apps/shop, nameSuffix: -a"),
			"x/apps/shop/kustomization.yaml": "resources: [../base/secret.yaml]", "x/apps/base/secret.yaml": good},
			Options{}, []string{"clusters/flux.yaml:4 kustomize"}},
		{"Flux that gives a namespace", m{"flux.yaml": flux("path: ./, targetNamespace: demo"),
			"secret.yaml": edited(", namespace: demo", "")}, Options{}, nil},
		{"Flux elsewhere", m{"flux.yaml": flux("path: ./apps/shop, targetNamespace: other"), "apps/shop2/secret.yaml": good},
			Options{}, nil},
		{"Argo CD that moves", m{"app.yaml": argo("source: {path: apps, kustomize: {namespace: other}}"),
			"apps/secret.yaml": good}, Options{}, []string{"app.yaml:4 kustomize"}},
		{"Argo CD that renames the second source", m{
			"app.yaml":         argo("sources: [{path: x}, {path: apps, kustomize: {namePrefix: a-}}]"),
			"apps/secret.yaml": good}, Options{}, []string{"app.yaml:4 kustomize"}},
		{"Argo CD with a destination", m{"app.yaml": argo("source: {path: apps}, destination: {namespace: other}"),
			"apps/secret.yaml": good}, Options{}, nil},
		{"kustomization of others", m{"kustomization.yaml": "namespace: other\nnamePrefix: a\nresources: [x.yaml]\n",
			"secret.yaml": good}, Options{}, nil},
		{"generator",
			m{"kustomization.yaml": "secretGenerator:\n- {name: a, type: secretmanager.io/ciphertext}\n- {name: b}\n"},
			Options{}, []string{"kustomization.yaml:2 kustomize"}},
		{"generator by its label",
			m{"kustomization.yaml": "secretGenerator:\n- {name: a, options: {labels: {" + label + "}}}\n"}, Options{},
			[]string{"kustomization.yaml:2 kustomize"}},
		{"generator without hash",
			m{"kustomization.yaml": "generatorOptions: {disableNameSuffixHash: true}\nsecretGenerator:\n- {name: " +
				"a, type: secretmanager.io/ciphertext}\n"}, Options{}, nil},
		{"generator of another scope",
			m{"kustomization.yaml": "generatorOptions: {annotations: {secretmanager.io/scope: " +
				"none}}\nsecretGenerator:\n- {name: a, type: secretmanager.io/ciphertext}\n"}, Options{}, nil},
	}
	tested := map[string]bool{}
	for _, test := range slices.Concat(tests, volumeRuleTests(), otherRuleTests()) {
		t.Run(test.name, func(t *testing.T) {
			findings := checkFiles(t, test.files, test.options)
			got := summaries(findings)
			slices.Sort(got)
			slices.Sort(test.want)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s\n%v", diff, findings)
			}
		})
		for _, w := range test.want {
			tested[strings.Fields(w)[1]] = true
		}
	}
	for _, r := range Rules() {
		if !tested[r.Name] {
			t.Errorf("no test covers rule %s", r.Name)
		}
	}
}

// TestFindings checks the fields and the order of findings.
func TestFindings(t *testing.T) {
	findings := checkFiles(t, map[string]string{
		"b.yaml": dataOf("aGk="),
		"a.yaml": "x: y\n---\n" + secretOf("data:\n  a: "+b64(ct(2))+"\n  b: aGk=") + "---\n" + classOf(""),
	}, Options{MinVersion: 3})
	want := []Finding{
		{File: "a.yaml", Line: 9, Severity: Error, Rule: "min-version", Kind: "Secret", Namespace: "demo",
			Name: "matrix", Entry: "a",
			Message: `Secret demo/matrix: entry "a": has key version 2, below 3: secretmanager rewrap brings it to the newest`},
		{File: "a.yaml", Line: 10, Severity: Error, Rule: "plaintext", Kind: "Secret", Namespace: "demo",
			Name: "matrix", Entry: "b",
			Message: `Secret demo/matrix: entry "b": is not ciphertext, so it may be plaintext: ` +
				`encrypt it, and change a secret that others may have read`},
		{File: "b.yaml", Line: 6, Severity: Error, Rule: "plaintext", Kind: "Secret", Namespace: "demo", Name: "matrix",
			Entry: "a",
			Message: `Secret demo/matrix: entry "a": is not ciphertext, so it may be plaintext: ` +
				`encrypt it, and change a secret that others may have read`},
	}
	if diff := cmp.Diff(want, findings); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestMessages checks the messages of rules that have several.
func TestMessages(t *testing.T) {
	for _, test := range []struct{ source, want string }{
		{edited("name: matrix, ", ""), "Secret without a name: metadata.name is missing"},
		{edited("name: matrix", "generateName: matrix"), "generateName gives it a new name each time"},
		{edited("labels: {secretmanager.io/transit-key: matrix}", "labels: {secretmanager.io/transit-key: ''}"),
			"label secretmanager.io/transit-key is missing"},
		{edited("secretmanager.io/transit-key: matrix", "secretmanager.io/transit-key: a/b"),
			"is not the name of a transit key"},
		{dataOf("'" + ct(1) + "'"),
			`entry "a": is not base64, as values under data must be: ciphertext that is not encoded belongs under stringData`},
		{dataOf("'***'"), `entry "a": is not base64, as values under data must be; nor is it ciphertext`},
		{dataOf(b64(b64(ct(1)))), `entry "a": is encoded in base64 twice`},
		{secretOf("stringData: {a: " + b64(ct(1)) + "}"), `entry "a": is encoded in base64, as under data`},
		{dataOf(b64(ct(1) + "\n")), `entry "a": has white space around the ciphertext`},
		{dataOf(b64("vault:v1:AAAA")), `entry "a": is damaged ciphertext: it is truncated: encrypt the value again`},
		{dataOf(b64("vault:v0:AAAA")), `entry "a": is damaged ciphertext: its key version is not a positive number: encrypt`},
		{classOf("    secretNam: x\n    vaultAddress: x\n    objects: '- {objectName: ../x, secretKey: y}'\n"),
			`SecretProviderClass demo/matrix: vaultAddress: Invalid value: must be an address such as https://HOST:8200`},
		{classOf("    secretNam: x\n"), `"secretNam": Forbidden: unknown parameter; did you mean secretName?`},
		{classOf("    objects: '- {objectName: ../x, secretKey: y}'\n"),
			`objects[0].objectName: Invalid value: must not contain ".."`},
	} {
		if got := fmt.Sprint(checkFiles(t, map[string]string{"a.yaml": test.source}, Options{})); !strings.Contains(got,
			test.want) {
			t.Errorf("%q is not in %s", test.want, got)
		}
	}
}

// Names with control characters are escaped.
func TestNamesAreClean(t *testing.T) {
	nasty := "x\\n::error::\\x1b[31m"
	for _, f := range checkFiles(t, map[string]string{
		"a.yaml": edited("name: matrix", `name: "`+nasty+`"`),
		"b.yaml": edited("{a: ", `{"`+nasty+strings.Repeat("y", 900)+`": `),
		"c.yaml": classOf("    \"" + nasty + "\": x\n    objects: '- {\"" + nasty + "\": x}'\n"),
	}, Options{}) {
		for _, s := range []string{f.Message, f.Name, f.Entry, f.Namespace} {
			if strings.ContainsAny(s, "\n\r\x1b") || len(s) > 700 {
				t.Errorf("%s: %q", f.Rule, s)
			}
		}
	}
}

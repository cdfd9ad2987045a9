package lint

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

const canary = "hunter2Canary"

// leaks returns the form of the canary that a text contains.
func leaks(text string) string {
	for _, form := range []string{canary, strings.ToLower(canary), b64(canary), b64(b64(canary)),
		strings.TrimRight(b64("x"+canary+"y"), "=")[2:16]} {
		if strings.Contains(text, form) {
			return form
		}
	}
	return ""
}

// leakManifests returns manifests with the canary where plaintext must not be.
func leakManifests() map[string]string {
	label := "secretmanager.io/transit-key: matrix"
	all := map[string]string{
		"data":                 dataOf(b64(canary)),
		"data, raw":            dataOf(canary),
		"data, raw and no b64": dataOf("'" + canary + "!'"),
		"data, twice":          dataOf(b64(b64(canary))),
		"data, ciphertext raw": dataOf("'vault:v1:" + canary + "'"),
		"data, damaged":        dataOf(b64("vault:v1:" + canary)),
		"data, damaged number": dataOf(b64("vault:v" + canary + ":AAAA")),
		"data, damaged twice":  dataOf(b64(b64("vault:v1:" + canary))),
		"data, below":          dataOf("{b: {c: " + canary + "}}"),
		"data, a list":         dataOf("[" + canary + "]"),
		"data, all of it":      secretOf("data: " + canary),
		"data, key of a list":  secretOf("data: {[" + canary + "]: x}"),
		"data, anchor":         dataOf("&x " + canary),
		"data, tag":            dataOf("!!int " + canary),
		"data, own tag":        dataOf("!" + canary + " " + canary),
		"stringData":           secretOf("stringData: {a: " + canary + "}"),
		"stringData, block":    secretOf("stringData:\n  a: |\n    " + canary + "\n    " + ct(1)),
		"stringData, b64":      secretOf("stringData: {a: " + b64(canary) + "}"),
		"stringData, twice":    secretOf("stringData:\n  a: " + canary + "\n  a: " + canary + "\ndata:\n  a: " + b64(canary)),
		"other field":          secretOf("value: " + canary + "\nvalue: " + canary),
		"comment":              good + "# " + canary + "\n",
		"type":                 edited("type: secretmanager.io/ciphertext", "type: "+canary),
		"key label":            edited(label, "secretmanager.io/transit-key: '"+canary+"!'"),
		"version label":        edited(label, label+", secretmanager.io/key-version: "+canary),
		"other label":          edited(label, label+", a: "+canary),
		"label, below":         edited(label, label+", a: {b: "+canary+"}"),
		"mount":                edited("labels:", "annotations: {secretmanager.io/transit-mount: /"+canary+"}, labels:"),
		"scope":                edited("labels:", "annotations: {secretmanager.io/scope: "+canary+"}, labels:"),
		"last applied": edited("labels:",
			`annotations: {kubectl.kubernetes.io/last-applied-configuration: '{"data":{"a":"`+b64(canary)+
				`"},"stringData":{"b":"`+canary+`"}}'}, labels:`),
		"last applied, odd": edited("labels:",
			`annotations: {kubectl.kubernetes.io/last-applied-configuration: '{"data":{"a":"`+canary+`!"}}'}, labels:`),
		"generator": "apiVersion: kustomize.config.k8s.io/v1\nkind: Kustomization\nsecretGenerator:\n- " +
			"{name: a, type: secretmanager.io/ciphertext, literals: [a=" + canary + "]}\n",
		"generator, no pair": "apiVersion: kustomize.config.k8s.io/v1\nkind: Kustomization\nsecretGenerator:\n- {name: a, " +
			"literals: [" + canary + "]}\n",
		"plain Secret": "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {a: " + b64(canary) + ", b: " + canary +
			"}\nstringData: {c: " + canary + "}\n",
		"no YAML: alias":       dataOf("*" + canary),
		"no YAML: mapping":     secretOf("a: " + canary + ": b"),
		"no YAML: quotes":      secretOf("a: '" + canary),
		"no YAML: tag":         secretOf("a: !<" + canary),
		"no YAML: indentation": secretOf("stringData:\n  a: " + canary + "\n b: " + canary),
		"no text":              secretOf("a: \xff" + canary),
	}
	for _, parameter := range []string{"roleName", "transitKey", "transitMount", "scope", "vaultAuthMountPath",
		"vaultNamespace", "vaultAddress", "vaultCACert", "audience", "token"} {
		all["parameter "+parameter] = classOf("    x: y\n    " + parameter + ": '/" + canary + " ?/'\n")
	}
	all["parameter secretName"] = strings.Replace(classOf(""), "secretName: matrix", "secretName: "+canary, 1)
	for i, objects := range []string{
		canary, "*" + canary, "- " + canary, "- {x: " + canary + "}", "- {objectName: ../" + canary + "}",
		"- {objectName: a, secretKey: '" + canary + "!'}", "- {objectName: a, field: " + canary + "..x}",
		"- {objectName: a, encoding: " + canary + "}", "- {objectName: a, filePermission: " + canary + "}",
		"- {objectName: " + canary + "}\n- {objectName: " + canary + "}",
		"- {objectName: '" + canary + strings.Repeat("/", 300) + "'}",
	} {
		q, _ := json.Marshal(objects)
		all[fmt.Sprintf("objects %d", i)] = good + "---\n" + classOf("    objects: "+string(q)+"\n")
	}
	return all
}

// No finding and no error contains plaintext of a manifest.
func TestFindingsHaveNoValues(t *testing.T) {
	for name, source := range leakManifests() {
		t.Run(name, func(t *testing.T) {
			m, err := manifest.Parse([]byte(source))
			if err != nil {
				if form := leaks(err.Error()); form != "" {
					t.Errorf("%s is in %v", form, err)
				}
				return
			}
			findings := Check([]*File{Read("a.yaml", m)}, Options{MinVersion: 9, ForbidPlaintext: true})
			if form := leaks(fmt.Sprintf("%+v", findings)); form != "" && !(name == "objects 9" && onlyNames(findings)) {
				t.Errorf("%s is in %+v", form, findings)
			}
		})
	}
}

// onlyNames reports whether the findings have the canary only as the name of an entry.
func onlyNames(findings []Finding) bool {
	for _, f := range findings {
		if leaks(f.Message) != "" && (f.Rule != "class-object" || f.Entry != canary) {
			return false
		}
	}
	return true
}

// FuzzLint checks that no file causes a panic, that lines are in the file, and that no finding has a
// value of twelve bytes or more unless it is also a name.
func FuzzLint(f *testing.F) {
	for _, source := range leakManifests() {
		f.Add([]byte(source))
	}
	layouts, _ := filepath.Glob("../manifest/testdata/layouts/*")
	for _, file := range layouts {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("a: &a {<<: *a, b: *a}\nkind: Secret\napiVersion: v1\nmetadata: *a\ndata: *a\n"))
	f.Add([]byte(secretOf("x: &a {a: b}\ny: &b {<<: [*a, *a]}\ndata: {<<: [*b, *b, *a]}")))
	f.Add(
		[]byte("secretGenerator:\n- {type: secretmanager.io/ciphertext}\nresources: [., " +
			"kustomization.yaml]\nnamePrefix: x\n"))
	f.Fuzz(func(t *testing.T, source []byte) {
		m, err := manifest.Parse(source)
		if err != nil {
			return
		}
		_ = m.Check() // must not panic
		for _, name := range []string{"a.yaml", "kustomization.yaml"} {
			file := Read(name, m)
			findings := Check([]*File{file}, Options{MinVersion: 2})
			for _, finding := range findings {
				if finding.Line < 1 || finding.Line > len(source)+1 || finding.Rule == "" || finding.Message == "" {
					t.Errorf("finding %+v", finding)
				}
			}
			for _, s := range m.Secrets {
				for _, e := range s.Entries {
					for _, value := range []string{string(e.Text), b64(string(e.Text))} {
						// Short texts, and those that occur elsewhere, may be in names and messages.
						if len(value) < 12 || strings.Count(string(source), value) > 1 {
							continue
						}
						for _, finding := range findings {
							if strings.Contains(finding.Message, value) &&
								!strings.Contains(finding.Name+finding.Entry+finding.Namespace, value) {
								t.Errorf("finding with a value: %+v", finding)
							}
						}
					}
				}
			}
		}
	})
}

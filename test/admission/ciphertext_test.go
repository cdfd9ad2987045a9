package admission

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

const (
	encryptIt  = "write them with secretmanager encrypt"
	noLabel    = "label secretmanager.io/transit-key is missing"
	badMount   = "annotation secretmanager.io/transit-mount is invalid: must be the path of a transit engine"
	badScope   = "annotation secretmanager.io/scope is invalid: must be strict, namespace, cluster or none"
	badApplied = "annotation kubectl.kubernetes.io/last-applied-configuration is invalid: must be a manifest with only " +
		"ciphertext, as kubectl writes it; remove the annotation"
	kapp        = "kapp.k14s.io/original"
	badCopy     = "annotation kapp.k14s.io/original contains a manifest with an entry that is not ciphertext: remove"
	oneEntry    = "1 entry that is not Vault ciphertext (vault:vN:…): "
	twoEntries  = "2 entries that are not Vault ciphertext (vault:vN:…): "
	lastApplied = ciphertext.AnnotationLastApplied
)

// applied adds a copy of a manifest as kubectl apply writes it, with its keys in order.
func applied(rest string) func(*corev1.Secret) {
	data, texts, found := strings.Cut(rest, `"stringData":`)
	if found {
		texts = `,"stringData":` + strings.TrimSuffix(texts, ",")
	}
	const metadata = `{"annotations":{},"labels":{"secretmanager.io/transit-key":"key"},"name":"x","namespace":"demo"}`
	return annotation(lastApplied, `{"apiVersion":"v1",`+data+`"kind":"Secret","metadata":`+metadata+texts+
		`,"type":"secretmanager.io/ciphertext"}`+"\n")
}

func encoded(text []byte) string { return base64.StdEncoding.EncodeToString(text) }

func TestCiphertext(t *testing.T) {
	w := newFixture(t)
	w.enforce(Ciphertext)
	tests := []struct {
		name   string
		secret *corev1.Secret
		want   []string // texts of the message; none if the Secret is admitted
		lint   string   // why the result of ciphertext.Validate is different
	}{
		{name: "as encrypt writes it", secret: secret("x")},
		{name: "all annotations",
			secret: secret("x", annotation(ciphertext.AnnotationScope, "cluster"),
				annotation(ciphertext.AnnotationTransitMount, "teams/red-1/transit"), label(ciphertext.LabelKeyVersion, "3"))},
		{name: "empty scope", secret: secret("x", annotation(ciphertext.AnnotationScope, ""))},
		{name: "no entries", secret: secret("x", func(s *corev1.Secret) { s.Data = nil }),
			lint: "an empty Secret has no plaintext, and can get entries later"},
		{name: "shortest ciphertext", secret: secret("x", entry("a", string(textOf("1", 28))))},
		{name: "adopted", secret: secret("x", opaque)},
		{name: "another type and no label", secret: plain("x"), lint: "not a ciphertext Secret"},

		{name: "plaintext", secret: secret("x", entry("password", value)),
			want: []string{oneEntry + "password: " + encryptIt, "change a secret that others may have read"}},
		{name: "short plaintext", secret: secret("x", entry("pin", "1")), want: []string{oneEntry + "pin: "}},
		{name: "empty", secret: secret("x", entry("empty", "")), want: []string{oneEntry + "empty: "}},
		{name: "two", secret: secret("x", entry("password", value), entry("token", value)),
			want: []string{twoEntries, "password", "token"}},
		{name: "binary", secret: secret("x", entry("jks", strings.Repeat("\xfe\xed", 99))),
			want: []string{oneEntry + "jks: "}},
		{name: "prefix alone", secret: secret("x", entry("a", "vault:v1:")), want: []string{oneEntry + "a: "}},
		{name: "prefix before a plaintext", secret: secret("x", entry("a", "vault:v1:hunter2-hunter2-hunter2")),
			want: []string{oneEntry + "a: "}},
		{name: "no version", secret: secret("x", entry("a", "vault:v:"+value)), want: []string{oneEntry + "a: "}},
		{name: "no colon", secret: secret("x", entry("a", "vault:v1"+value)), want: []string{oneEntry + "a: "}},
		{name: "leading zero", secret: secret("x", entry("a", string(text("01")))), want: []string{oneEntry + "a: "}},
		{name: "other case", secret: secret("x", entry("a", "Vault:v1:"+value)), want: []string{oneEntry + "a: "}},
		{name: "encoded twice", secret: secret("x", entry("a", encoded(text("1")))), want: []string{oneEntry + "a: "}},
		{name: "leading space", secret: secret("x", entry("a", " "+string(text("1")))), want: []string{oneEntry + "a: "}},
		{name: "adopted with a plaintext", secret: secret("x", opaque, entry("password", value)),
			want: []string{oneEntry + "password: "}},

		{name: "no label", secret: secret("x", unlabel), want: []string{noLabel}},
		{name: "empty label", secret: secret("x", label(ciphertext.LabelTransitKey, "")), want: []string{noLabel}},
		{name: "adopted with an empty label", secret: secret("x", opaque, label(ciphertext.LabelTransitKey, "")),
			want: []string{noLabel}},
		{name: "no labels at all", secret: secret("x", func(s *corev1.Secret) { s.Labels = nil }), want: []string{noLabel}},
		{name: "unknown scope", secret: secret("x", annotation(ciphertext.AnnotationScope, value)),
			want: []string{badScope}},
		{name: "scope of other case", secret: secret("x", annotation(ciphertext.AnnotationScope, "Strict")),
			want: []string{badScope}},
		{name: "empty mount", secret: secret("x", annotation(ciphertext.AnnotationTransitMount, "")),
			want: []string{badMount}},
		{name: "long mount", secret: secret("x", annotation(ciphertext.AnnotationTransitMount, strings.Repeat("m", 513))),
			want: []string{badMount}},

		{name: "copy with ciphertext",
			secret: secret("x", applied(`"data":{"a":"`+encoded(text("3"))+`","b.c":"`+encoded(text("12"))+`"},`))},
		{name: "copy with ciphertext as text",
			secret: secret("x", applied(`"stringData":{"a":"`+string(text("3"))+`","b":"`+string(text("123"))+`"},`))},
		{name: "copy without entries", secret: secret("x", applied(""))},
		{name: "copy with a plaintext",
			secret: secret("x", applied(`"data":{"a":"`+encoded(text("3"))+`","b":"`+encoded([]byte(value))+`"},`)),
			want:   []string{badApplied}, lint: "it ignores the annotation; lint does not"},
		{name: "copy with a plaintext first",
			secret: secret("x", applied(`"data":{"a":"`+encoded([]byte(value))+`","b":"`+encoded(text("3"))+`"},`)),
			want:   []string{badApplied}, lint: "as above"},
		{name: "copy with a plaintext as text", secret: secret("x", applied(`"stringData":{"a":"`+value+`"},`)),
			want: []string{badApplied}, lint: "as above"},
		{name: "copy with a plaintext and ciphertext",
			secret: secret("x", applied(`"data":{"a":"`+encoded(text("3"))+`"},`+`"stringData":{"a":"`+value+`"},`)),
			want:   []string{badApplied}, lint: "as above"},
		{name: "copy with ciphertext and all fields of a manifest",
			secret: secret("x", annotation(lastApplied, `{"apiVersion":"v1","data":{"a":"`+encoded(text("3"))+
				`"},"immutable":true,"kind":"Secret","metadata":{`+
				`"annotations":{"note":"\"data\":{\"a\":\"b\"}, \u003c{[}"},"creationTimestamp":null,`+
				`"finalizers":["a/b"],"generation":1,"labels":{"data":"x"},"name":"x","namespace":"demo","ownerReferences":[`+
				`{"apiVersion":"v1","blockOwnerDeletion":true,"kind":"A","name":"b","uid":"c"}]},`+
				`"stringData":{"b":"`+string(text("3"))+`"},"type":"Opaque"}`+"\n"))},
		{name: "copy with empty entries", secret: secret("x", applied(`"data":{},"stringData":null,`))},
		{name: "copy with a second data",
			secret: secret("x", applied(`"data":{"a":"`+encoded(text("3"))+`"},"data":{"b":"`+encoded([]byte(value))+`"},`)),
			want:   []string{badApplied}, lint: "as above"},
		{name: "copy with a second data at the end",
			secret: secret("x", annotation(lastApplied, `{"apiVersion":"v1","data":{"a":"`+encoded(text("3"))+
				`"},"kind":"Secret","metadata":{"name":"x"},"type":"Opaque","data":{"b":"`+encoded([]byte(value))+`"}}`)),
			want: []string{badApplied}, lint: "as above"},
		{name: "copy with data before a space", secret: secret("x", applied(`"data" :{"b":"`+encoded([]byte(value))+`"},`)),
			want: []string{badApplied}, lint: "as above"},
		{name: "copy with data in other letters",
			secret: secret("x", applied(`"d\u0061ta":{"b":"`+encoded([]byte(value))+`"},`)), want: []string{badApplied},
			lint: "as above"},
		{name: "copy with stringData in other letters", secret: secret("x", applied(`"StringData":{"b":"`+value+`"},`)),
			want: []string{badApplied}, lint: "as above"},
		{name: "copy with a plaintext after ciphertext",
			secret: secret("x", applied(`"data":{"a":"`+encoded(text("3"))+` `+value+`"},`)), want: []string{badApplied},
			lint: "as above"},
		{name: "copy with a plaintext after ciphertext as text",
			secret: secret("x", applied(`"stringData":{"a":"`+string(text("3"))+` `+value+`"},`)), want: []string{badApplied},
			lint: "as above"},
		{name: "copy with a plaintext as name",
			secret: secret("x", applied(`"data":{"`+value+` `+value+`":"`+encoded(text("3"))+`"},`)),
			want:   []string{badApplied}, lint: "as above"},
		{name: "copy with data deeper",
			secret: secret("x", applied(`"data":{"a":{"data":{"b":"`+encoded(text("3"))+`"}}},`)), want: []string{badApplied},
			lint: "as above"},
		{name: "copy that ends its metadata early",
			secret: secret("x", annotation(lastApplied, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"},`+
				`"stringData":{"a":"`+value+`"},"x":{"type":"Opaque"}}`)),
			want: []string{badApplied}, lint: "as above"},
		{name: "copy with text before it",
			secret: secret("x", annotation(lastApplied, `{"stringData":{"a":"`+value+`"},`+
				`"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"},"type":"Opaque"}`)),
			want: []string{badApplied}, lint: "as above"},
		{name: "copy with text after it",
			secret: secret("x", applied(""), func(s *corev1.Secret) { s.Annotations[lastApplied] += value }),
			want:   []string{badApplied}, lint: "as above"},
		{name: "text that is not a copy", secret: secret("x", annotation(lastApplied, value)), want: []string{badApplied},
			lint: "as above"},
		{name: "copy of another kind",
			secret: secret("x", annotation(lastApplied, `{"apiVersion":"v1","data":{"a":"`+value+
				`"},"kind":"ConfigMap","metadata":{"name":"x"}}`)),
			want: []string{badApplied}, lint: "as above"},
		{name: "copy with spaces",
			secret: secret("x", annotation(lastApplied, `{"data": {"a": "`+encoded(text("3"))+`"}}`)),
			want:   []string{badApplied}, lint: "kubectl writes no spaces: a false positive"},

		{name: "manifest of another tool with ciphertext",
			secret: secret("x", annotation(kapp, `{"apiVersion":"v1","data":{"a":"`+encoded(text("3"))+`","b":"`+
				encoded(text("12"))+`"},"kind":"Secret","metadata":{"name":"x"},"stringData":{"c":"`+string(text("3"))+`"}}`))},
		{name: "manifest of another tool without entries",
			secret: secret("x", annotation(kapp, `{"apiVersion":"v1","data":{},"kind":"Secret"}`))},
		{name: "manifest of another tool with a plaintext",
			secret: secret("x", annotation(kapp, `{"data":{"a":"`+encoded([]byte(value))+`"},"kind":"Secret"}`)),
			want:   []string{badCopy}, lint: "as above"},
		{name: "manifest of another tool with a plaintext as text",
			secret: secret("x", annotation(kapp, `{"data":{},"kind":"Secret","stringData":{"a":"`+value+`"}}`)),
			want:   []string{badCopy}, lint: "as above"},
		{name: "manifest of another tool with a plaintext after ciphertext",
			secret: secret("x", annotation(kapp, `{"data":{"a":"`+encoded(text("3"))+`","b":"`+encoded([]byte(value))+
				`"},"kind":"Secret"}`)), want: []string{badCopy}, lint: "as above"},
		{name: "manifest of another kind", secret: secret("x", annotation(kapp, `{"data":{"a":"b"},"kind":"ConfigMap"}`))},

		{name: "everything at once",
			secret: secret("x", unlabel, entry("password", value), annotation(ciphertext.AnnotationScope, value),
				annotation(ciphertext.AnnotationTransitMount, "/"+value), applied(`"stringData":{"a":"`+value+`"},`)),
			want: []string{oneEntry + "password: ", noLabel, badMount, badScope, badApplied}},
	}
	for _, mount := range []string{
		"a//b", "/a", "a/", "a/../b", "..", "./a", "a b", "a?b", "a#b", "a%2fb", `a"b`, `a\b`, "é", "a\nb",
	} {
		tests = append(tests, struct {
			name   string
			secret *corev1.Secret
			want   []string
			lint   string
		}{
			name:   "mount " + mount,
			secret: secret("x", annotation(ciphertext.AnnotationTransitMount, mount)),
			want:   []string{badMount},
		})
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			valid := ciphertext.Validate(test.secret) == nil
			if valid != (len(test.want) == 0) && test.lint == "" {
				t.Errorf("ciphertext.Validate: %v", ciphertext.Validate(test.secret))
			}
			test.secret.Name = fmt.Sprintf("x-%d", i)
			check(t, w.create(test.secret), Ciphertext, test.want...)
		})
	}
}

// TestKeyVersions: the policy matches versions in base64. The test tries possible versions and similar texts.
func TestKeyVersions(t *testing.T) {
	w := newFixture(t)
	w.enforce(Ciphertext)
	good := secret("good")
	for _, version := range []int{
		1, 9, 10, 11, 99, 100, 101, 999, 1000, 1234, 9999, 10000, 54321, 99999, 100000, 909090, 999999,
	} {
		for i := range 3 { // the text after the colon is random, and shares base64 letters with it
			entry(fmt.Sprintf("v%d.%d", version, i), string(text(fmt.Sprint(version))))(good)
		}
	}
	for version := 1; version < 1500; version++ {
		entry(fmt.Sprintf("v%d", version), string(text(fmt.Sprint(version))))(good)
	}
	check(t, w.create(good), Ciphertext)

	for _, version := range []string{
		"0", "00", "0x1", "1a", "12a", "a", "-1", "+1", "123a", "1234a", "12345a", "123456a", "12;", "12345;", ".", "1.",
		" 1", "1 ", "１",
	} {
		check(t, w.create(secret("bad", entry("a", string(text(version))))), Ciphertext, oneEntry+"a: ")
	}
	// No key has that many versions: with one rotation per minute it takes two years.
	check(t, w.create(secret("bad", entry("a", string(text("1000000"))))), Ciphertext, oneEntry+"a: ")
}

// TestSizes: the API server limits the cost of an expression.
func TestSizes(t *testing.T) {
	w := newFixture(t)
	w.enforce(Ciphertext)
	w.enforce(ForbidPlaintext)
	fill := func(n, size int, version string) *corev1.Secret {
		s := secret(fmt.Sprintf("s-%d-%d", n, size))
		s.Data = nil
		for i := range n {
			entry(fmt.Sprintf("entry-%d", i), string(textOf(version, size)))(s)
		}
		return s
	}
	for name, s := range map[string]*corev1.Secret{
		"one entry of a megabyte": fill(1, (ciphertext.MaxSecretSize-12)/4*3, "123"),
		"5,000 small entries":     fill(5000, 60, "12345"),
	} {
		t.Run(name, func(t *testing.T) {
			w := &fixture{t: t, server: w.server, kube: w.kube, ns: w.ns}
			check(t, w.create(s), Ciphertext)
			check(t, w.change(s.Name, func(s *corev1.Secret) {
				for name := range s.Data {
					s.Data[name][7] = '9' // every entry changes
				}
			}), Ciphertext)
			check(t, w.change(s.Name, annotation("a", "b")), Ciphertext)
		})
	}
	// Each policy alone: if both deny, the API server names one of them.
	for _, dir := range []string{Ciphertext, ForbidPlaintext} {
		t.Run("5,000 plaintexts, "+dir, func(t *testing.T) {
			w := newFixture(t)
			w.enforce(dir)
			s := fill(5000, 0, "1")
			for name := range s.Data {
				s.Data[name] = []byte(value)
			}
			check(t, w.create(s), dir,
				"5000 entries that are not Vault ciphertext (vault:vN:…): entry-", "…: ", "secretmanager encrypt")
		})
	}
	for name, rest := range map[string]string{
		"a long copy":         `"data":{"a":"` + encoded(textOf("3", 130<<10)) + `"},`,
		"a long copy as text": `"stringData":{"a":"` + string(textOf("3", 130<<10)) + `"},`,
	} {
		t.Run(name, func(t *testing.T) {
			s := secret(strings.ReplaceAll(name, " ", "-"), applied(rest))
			if size := len(s.Annotations[lastApplied]); size < 170<<10 {
				t.Fatalf("the copy has %d bytes", size)
			}
			check(t, w.create(s), Ciphertext)
		})
	}
	t.Run("12,000 small entries", func(t *testing.T) {
		check(t, w.create(fill(12000, 28, "123")), Ciphertext)
	})
}

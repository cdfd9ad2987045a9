package admission

import (
	"fmt"
	"math/rand/v2"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// change is a change of a Secret. It may have no effect on some.
type change struct {
	name    string
	legal   bool // the rotator may do it to a ciphertext Secret
	invalid bool // the API server refuses it from every user
	make    func(*rand.Rand, *corev1.Secret)
}

const (
	rewrap  = "rewrapped entries"
	notOurs = "a Secret that is not ours"
)

// changes are all changes that the test makes.
var changes = []change{
	{name: rewrap, legal: true, make: func(random *rand.Rand, s *corev1.Secret) {
		for _, name := range ciphertextEntries(s) {
			if random.IntN(2) == 0 {
				payload := 40
				if name == "shortest" {
					payload = 28
				}
				s.Data[name] = randomText(random, randomVersion(random), payload)
			}
		}
	}},
	{name: "key version", legal: true, make: func(random *rand.Rand, s *corev1.Secret) {
		label(ciphertext.LabelKeyVersion, fmt.Sprint(randomVersion(random)))(s)
	}},
	{name: "version of the rewrap", legal: true, make: func(random *rand.Rand, s *corev1.Secret) {
		annotation(ciphertext.AnnotationRewrapped, fmt.Sprint(randomVersion(random)))(s)
	}},

	{name: "new entry", make: func(random *rand.Rand, s *corev1.Secret) {
		entry("new", string(randomText(random, 3, 40)))(s)
	}},
	{name: "new plaintext entry", make: func(_ *rand.Rand, s *corev1.Secret) { entry("new", value)(s) }},
	{name: "new entry as text", make: func(_ *rand.Rand, s *corev1.Secret) {
		s.StringData = map[string]string{"new": value}
	}},
	{name: "no entry", make: func(_ *rand.Rand, s *corev1.Secret) { s.Data = nil }},
	onEntry("removed entry", func(_ *rand.Rand, s *corev1.Secret, name string) { delete(s.Data, name) }),
	onEntry("renamed entry", func(_ *rand.Rand, s *corev1.Secret, name string) {
		s.Data["renamed"] = s.Data[name]
		delete(s.Data, name)
	}),
	onEntry("plaintext", func(_ *rand.Rand, s *corev1.Secret, name string) { entry(name, value)(s) }),
	onEntry("plaintext as text", func(_ *rand.Rand, s *corev1.Secret, name string) {
		s.StringData = map[string]string{name: value}
	}),
	onEntry("empty value", func(_ *rand.Rand, s *corev1.Secret, name string) { entry(name, "")(s) }),
	onEntry("malformed ciphertext", func(random *rand.Rand, s *corev1.Secret, name string) {
		entry(name, malformed(random))(s)
	}),
	onEntry("truncated ciphertext", func(random *rand.Rand, s *corev1.Secret, name string) {
		text := randomText(random, 3, 28)
		s.Data[name] = text[:len(text)-1-random.IntN(pick(random, []int{5, len(text) - 1}))]
	}),
	{name: "ciphertext shorter than the shortest", make: func(random *rand.Rand, s *corev1.Secret) {
		if _, ok := s.Data["shortest"]; ok {
			s.Data["shortest"] = randomText(random, 1, 27)
		}
	}},
	onEntry("longer ciphertext", func(random *rand.Rand, s *corev1.Secret, name string) {
		s.Data[name] = randomText(random, randomVersion(random), 58+random.IntN(400))
	}),
	onEntry("shorter ciphertext", func(random *rand.Rand, s *corev1.Secret, name string) {
		s.Data[name] = randomText(random, randomVersion(random), 28)
	}),
	inPlaceOf("password", 40),
	inPlaceOf("empty", 28),
	inPlaceOf("short", 28),
	inPlaceOf("case", 40),
	inPlaceOf("version", 40),

	{name: "type", invalid: true, make: func(_ *rand.Rand, s *corev1.Secret) { s.Type = "example.com/other" }},
	{name: "immutable", make: func(_ *rand.Rand, s *corev1.Secret) {
		if s.Immutable == nil || !*s.Immutable {
			s.Immutable = new(bool)
			*s.Immutable = true
		}
	}},
	{name: "mutable", make: func(_ *rand.Rand, s *corev1.Secret) {
		if s.Immutable == nil {
			s.Immutable = new(bool)
		}
	}},
	{name: "neither immutable nor mutable", make: func(_ *rand.Rand, s *corev1.Secret) {
		if s.Immutable != nil && !*s.Immutable {
			s.Immutable = nil
		}
	}},

	change{name: "label"}.sets(label, "team", "blue"),
	change{name: "new label"}.sets(label, "new", "x"),
	change{name: "label of the key"}.sets(label, ciphertext.LabelTransitKey, "other"),
	{name: "labels removed", make: func(_ *rand.Rand, s *corev1.Secret) { s.Labels = nil }},
	change{name: "label removed"}.removes("team"),
	change{name: "label of the key removed"}.removes(ciphertext.LabelTransitKey),
	change{name: "key version removed"}.removes(ciphertext.LabelKeyVersion),
	change{name: "key version is text"}.sets(label, ciphertext.LabelKeyVersion, "text"),
	change{name: "key version has text after it"}.sets(label, ciphertext.LabelKeyVersion, "3.text"),

	change{name: "annotation"}.sets(annotation, "example.com/note", "y"),
	change{name: "new annotation"}.sets(annotation, "example.com/new", value),
	change{name: "scope"}.sets(annotation, ciphertext.AnnotationScope, "none"),
	change{name: "mount"}.sets(annotation, ciphertext.AnnotationTransitMount, "other"),
	change{name: "copy of the manifest"}.sets(annotation, lastApplied, `{"stringData":{"good":"`+value+`"}}`),
	change{name: "version of the rewrap is text"}.sets(annotation, ciphertext.AnnotationRewrapped, value),
	change{name: "version of the rewrap has another line"}.sets(annotation, ciphertext.AnnotationRewrapped, "3\n"+value),
	{name: "annotations removed", make: func(_ *rand.Rand, s *corev1.Secret) { s.Annotations = nil }},
	change{name: "annotation removed"}.removes("example.com/note"),
	change{name: "scope removed"}.removes(ciphertext.AnnotationScope),
	change{name: "version of the rewrap removed"}.removes(ciphertext.AnnotationRewrapped),

	{name: "owner", make: func(_ *rand.Rand, s *corev1.Secret) {
		s.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "new", UID: "2"}}
	}},
	{name: "owner removed", make: func(_ *rand.Rand, s *corev1.Secret) { s.OwnerReferences = nil }},
	{name: "finalizer", make: func(_ *rand.Rand, s *corev1.Secret) {
		if s.DeletionTimestamp == nil { // it can get none
			s.Finalizers = append(s.Finalizers, "example.com/new")
		}
	}},
	{name: "finalizer removed", make: func(_ *rand.Rand, s *corev1.Secret) { s.Finalizers = nil }},
	{name: "generated name", make: func(_ *rand.Rand, s *corev1.Secret) { s.GenerateName = "generated-" }},
}

// onEntry returns a change of a random entry of ciphertext.
func onEntry(name string, do func(*rand.Rand, *corev1.Secret, string)) change {
	return change{name: name, make: func(random *rand.Rand, s *corev1.Secret) {
		if names := ciphertextEntries(s); len(names) > 0 {
			do(random, s, pick(random, names))
		}
	}}
}

// inPlaceOf returns a change of an entry that is not ciphertext to ciphertext of that payload.
func inPlaceOf(name string, payload int) change {
	return change{name: "ciphertext in place of " + name, make: func(random *rand.Rand, s *corev1.Secret) {
		if _, ok := s.Data[name]; ok {
			s.Data[name] = randomText(random, 1+random.IntN(9), payload)
		}
	}}
}

func (c change) sets(where func(name, value string) func(*corev1.Secret), name, value string) change {
	c.make = func(_ *rand.Rand, s *corev1.Secret) { where(name, value)(s) }
	return c
}

// removes returns a change that removes a label or an annotation.
func (c change) removes(name string) change {
	c.make = func(_ *rand.Rand, s *corev1.Secret) {
		delete(s.Labels, name)
		delete(s.Annotations, name)
	}
	return c
}

func ciphertextEntries(s *corev1.Secret) (names []string) {
	for _, name := range ciphertext.Entries(s.Data) {
		if mayReplace(s.Data[name], s.Data[name]) {
			names = append(names, name)
		}
	}
	return names
}

// malformed returns text that is similar to ciphertext.
func malformed(random *rand.Rand) string {
	version := pick(random, []string{"", "0", "00", "01", "1a", "12a", "12;", "123a", "1234a", "12345;", "123456a",
		"1000000", "-1", "+1", " 1", "1 ", "x", ".", "1.", "１"})
	text := strings.Replace(string(randomText(random, 1, 40)), "vault:v1:", "vault:v"+version+":", 1)
	good := randomText(random, 1, 40)
	return pick(random, []string{
		text,
		strings.Replace(string(good), "vault", pick(random, []string{"Vault", "vaul", " vault", "vault:"}), 1),
		strings.Replace(string(good), "v1:", pick(random, []string{"v1", "v1;", "V1:", "1:"}), 1),
		encoded(good),
		strings.Repeat("\xfe\xed", 40),
	})
}

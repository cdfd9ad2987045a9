package admission

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// A Secret that was bad before the policy can be lived with and mended.
func TestBadBefore(t *testing.T) {
	w := newFixture(t)
	finalizer := func(s *corev1.Secret) { s.Finalizers = []string{"example.com/hold"} }
	bad := func(name string) *corev1.Secret {
		return secret(name, unlabel, finalizer, entry("password", value), entry("token", value),
			annotation(ciphertext.AnnotationScope, "wide"), annotation(ciphertext.AnnotationTransitMount, ""), applied(`"stringData":{"password":"`+value+`"},`))
	}
	w.must(w.create(bad("bad")))
	w.must(w.create(plain("plain", entry("token", value))))
	w.must(w.create(secret("adopted", opaque, entry("password", value))))
	w.enforce(Ciphertext)

	steps := []struct {
		name   string
		secret string
		change func(*corev1.Secret)
		want   []string
	}{
		{"an annotation", "bad", annotation("team", "red"), nil},
		{"another label", "bad", label("team", "red"), nil},
		{"a good entry", "bad", entry("good", string(text("4"))), nil},
		{"one entry mended", "bad", entry("password", string(text("4"))), nil},
		{"one entry made bad again", "bad", entry("password", value+value), []string{oneEntry + "password: "}},
		{"another plaintext", "bad", entry("token", value+value), []string{oneEntry + "token: "}},
		{"a new plaintext", "bad", entry("new", value), []string{oneEntry + "new: "}},
		{"a bad entry removed", "bad", func(s *corev1.Secret) { delete(s.Data, "token") }, nil},
		{"another scope that is none", "bad", annotation(ciphertext.AnnotationScope, "far"), []string{badScope}},
		{"another mount that is none", "bad", annotation(ciphertext.AnnotationTransitMount, "/"), []string{badMount}},
		{"another copy with a plaintext", "bad", applied(`"stringData":{"token":"` + value + `"},`), []string{badApplied}},
		{"the scope mended", "bad", annotation(ciphertext.AnnotationScope, "strict"), nil},
		{"the copy gone", "bad", func(s *corev1.Secret) { delete(s.Annotations, lastApplied) }, nil},
		{"the label", "bad", label(ciphertext.LabelTransitKey, "key"), nil},
		{"the label gone again", "bad", unlabel, []string{noLabel}},

		{"a bad entry of an adopted one stays", "adopted", annotation("team", "red"), nil},
		{"a plaintext for an adopted one", "adopted", entry("token", value), []string{oneEntry + "token: "}},
		{"its label emptied", "adopted", label(ciphertext.LabelTransitKey, ""), []string{noLabel}},
		{"an adopted one leaves", "adopted", func(s *corev1.Secret) { unlabel(s); entry("token", value)(s) }, nil},
		{"and comes back with plaintext", "adopted", label(ciphertext.LabelTransitKey, "key"), []string{twoEntries, "password", "token"}},

		{"plaintext is adopted", "plain", label(ciphertext.LabelTransitKey, "key"), []string{twoEntries, "good", "token"}},
		{"half of it", "plain", func(s *corev1.Secret) {
			label(ciphertext.LabelTransitKey, "key")(s)
			entry("good", string(text("1")))(s)
		}, []string{oneEntry + "token: "}},
		{"all of it is encrypted", "plain", func(s *corev1.Secret) {
			label(ciphertext.LabelTransitKey, "key")(s)
			entry("good", string(text("1")))(s)
			entry("token", string(text("1")))(s)
		}, nil},
		{"a finalizer goes", "bad", func(s *corev1.Secret) { s.Finalizers = nil }, nil},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			check(t, w.change(step.secret, step.change), Ciphertext, step.want...)
		})
	}
	w.must(w.kube.CoreV1().Secrets(w.ns).Delete(t.Context(), "bad", metav1.DeleteOptions{}))
}

// A type is for good: nothing becomes ciphertext, or ceases to be, by its type.
func TestTypeStays(t *testing.T) {
	w := newFixture(t)
	w.must(w.create(secret("sealed")))
	w.must(w.create(plain("plain")))
	for name, kind := range map[string]corev1.SecretType{"sealed": corev1.SecretTypeOpaque, "plain": ciphertext.Type} {
		err := w.change(name, func(s *corev1.Secret) { s.Type = kind })
		if !apierrors.IsInvalid(err) {
			t.Errorf("%s becomes %s: %v", name, kind, err)
		}
	}
}

// stringData is data by the time that a policy sees it.
func TestStringData(t *testing.T) {
	w := newFixture(t)
	w.enforce(Ciphertext)
	stringly := func(text string) func(*corev1.Secret) {
		return func(s *corev1.Secret) { s.StringData = map[string]string{"password": text} }
	}
	check(t, w.create(secret("x", stringly(value))), Ciphertext, oneEntry+"password: ")
	check(t, w.create(secret("x", stringly(string(text("2"))))), Ciphertext)
	check(t, w.change("x", stringly(value)), Ciphertext, oneEntry+"password: ")
	w = newFixture(t)
	w.enforce(ForbidPlaintext)
	check(t, w.create(plain("y", entry("good", string(text("1"))), stringly(value))), ForbidPlaintext, oneEntry+"password: ")
}

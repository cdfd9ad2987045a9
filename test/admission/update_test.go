package admission

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// TestInvalidBefore: users can still change and fix a Secret that was invalid before the policy.
func TestInvalidBefore(t *testing.T) {
	w := newFixture(t)
	finalizer := func(s *corev1.Secret) { s.Finalizers = []string{"example.com/hold"} }
	bad := func(name string) *corev1.Secret {
		return secret(name, unlabel, finalizer, entry("password", value), entry("token", value),
			annotation(ciphertext.AnnotationScope, "wide"), annotation(ciphertext.AnnotationTransitMount, ""),
			applied(`"stringData":{"password":"`+value+`"},`))
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
		{"one entry fixed", "bad", entry("password", string(text("4"))), nil},
		{"the fixed entry invalid again", "bad", entry("password", value+value), []string{oneEntry + "password: "}},
		{"another plaintext", "bad", entry("token", value+value), []string{oneEntry + "token: "}},
		{"a new plaintext", "bad", entry("new", value), []string{oneEntry + "new: "}},
		{"a bad entry removed", "bad", func(s *corev1.Secret) { delete(s.Data, "token") }, nil},
		{"another invalid scope", "bad", annotation(ciphertext.AnnotationScope, "far"), []string{badScope}},
		{"another invalid mount", "bad", annotation(ciphertext.AnnotationTransitMount, "/"), []string{badMount}},
		{"another copy with a plaintext", "bad", applied(`"stringData":{"token":"` + value + `"},`), []string{badApplied}},
		{"the scope fixed", "bad", annotation(ciphertext.AnnotationScope, "strict"), nil},
		{"the copy removed", "bad", func(s *corev1.Secret) { delete(s.Annotations, lastApplied) }, nil},
		{"the label", "bad", label(ciphertext.LabelTransitKey, "key"), nil},
		{"the label removed again", "bad", unlabel, []string{noLabel}},

		{"a bad entry of an adopted one stays", "adopted", annotation("team", "red"), nil},
		{"a plaintext for an adopted one", "adopted", entry("token", value), []string{oneEntry + "token: "}},
		{"an empty label", "adopted", label(ciphertext.LabelTransitKey, ""), []string{noLabel}},
		{"an adopted Secret without label", "adopted", func(s *corev1.Secret) { unlabel(s); entry("token", value)(s) }, nil},
		{"and gets it again with plaintext", "adopted", label(ciphertext.LabelTransitKey, "key"),
			[]string{twoEntries, "password", "token"}},

		{"plaintext is adopted", "plain", label(ciphertext.LabelTransitKey, "key"), []string{twoEntries, "good", "token"}},
		{"half of the entries encrypted", "plain", func(s *corev1.Secret) {
			label(ciphertext.LabelTransitKey, "key")(s)
			entry("good", string(text("1")))(s)
		}, []string{oneEntry + "token: "}},
		{"all entries encrypted", "plain", func(s *corev1.Secret) {
			label(ciphertext.LabelTransitKey, "key")(s)
			entry("good", string(text("1")))(s)
			entry("token", string(text("1")))(s)
		}, nil},
		{"a finalizer removed", "bad", func(s *corev1.Secret) { s.Finalizers = nil }, nil},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			check(t, w.change(step.secret, step.change), Ciphertext, step.want...)
		})
	}
	w.must(w.kube.CoreV1().Secrets(w.ns).Delete(t.Context(), "bad", metav1.DeleteOptions{}))
}

// TestImmutableType: the type of a Secret is immutable.
func TestImmutableType(t *testing.T) {
	w := newFixture(t)
	w.must(w.create(secret("encrypted")))
	w.must(w.create(plain("plain")))
	for name, kind := range map[string]corev1.SecretType{"encrypted": corev1.SecretTypeOpaque, "plain": ciphertext.Type} {
		err := w.change(name, func(s *corev1.Secret) { s.Type = kind })
		if !apierrors.IsInvalid(err) {
			t.Errorf("%s becomes %s: %v", name, kind, err)
		}
	}
}

// TestStringData: the API server converts stringData to data before it evaluates a policy.
func TestStringData(t *testing.T) {
	w := newFixture(t)
	w.enforce(Ciphertext)
	withStringData := func(text string) func(*corev1.Secret) {
		return func(s *corev1.Secret) { s.StringData = map[string]string{"password": text} }
	}
	check(t, w.create(secret("x", withStringData(value))), Ciphertext, oneEntry+"password: ")
	check(t, w.create(secret("x", withStringData(string(text("2"))))), Ciphertext)
	check(t, w.change("x", withStringData(value)), Ciphertext, oneEntry+"password: ")
	w = newFixture(t)
	w.enforce(ForbidPlaintext)
	y := plain("y", entry("good", string(text("1"))), withStringData(value))
	check(t, w.create(y), ForbidPlaintext, oneEntry+"password: ")
}

package inventory

import (
	"strings"
	"testing"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// Annotations may have control characters.
func TestRowIsPrintable(t *testing.T) {
	const evil = "a\n\x1b[31mb"
	r := NewSecret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Labels: map[string]string{ciphertext.LabelTransitKey: "k"},
		Annotations: map[string]string{
			ciphertext.AnnotationTransitMount: evil, ciphertext.AnnotationScope: evil, ciphertext.AnnotationRewrapped: evil,
			"argocd.argoproj.io/tracking-id": evil + ":x",
		},
	}})
	r.setState(nil)
	for _, text := range append(r.AllProblems(), r.Key, r.Mount, r.Scope, r.ManagedBy, r.TransitKey().String()) {
		if i := strings.IndexFunc(text, func(c rune) bool { return !unicode.IsPrint(c) && c != '\n' }); i >= 0 {
			t.Errorf("%q", text)
		}
	}
	for _, text := range []string{r.Key, r.Mount, r.Scope, r.ManagedBy} {
		if strings.Contains(text, "\n") {
			t.Errorf("%q has two lines", text)
		}
	}
	if r.State != Broken {
		t.Errorf("state %s", r.State)
	}
}

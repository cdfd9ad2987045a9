package lint

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// PlaintextTypes are the types of Secrets that may have plaintext, because their readers need it. The admission policy
// forbid-plaintext has the same list by default.
var PlaintextTypes = []corev1.SecretType{
	corev1.SecretTypeServiceAccountToken, corev1.SecretTypeDockercfg, corev1.SecretTypeDockerConfigJson,
	corev1.SecretTypeTLS, "bootstrap.kubernetes.io/token", "helm.sh/release.v1",
}

// checkForbidden reports every entry of a Secret that is not ciphertext.
func (s *secret) checkForbidden(o Options) (findings []Finding) {
	if !o.ForbidPlaintext || slices.Contains(PlaintextTypes, s.parsed.Type) {
		return nil
	}
	for _, e := range s.parsed.Entries {
		if e.Problem != nil {
			findings = append(findings, s.finding(ruleForbidden, e.Line, e.Name,
				"is not ciphertext, and plaintext is forbidden: write the Secret with secretmanager encrypt, and change a "+
					"secret that others may have read"))
		}
	}
	return findings
}

// checkForbiddenGenerator reports the values of a secretGenerator. Those in files are not read: they are the Secret
// that kustomize makes.
func (k *kustomization) checkForbiddenGenerator(generator manifest.Value) (findings []Finding) {
	if kind, _ := generator.Get("type").Text(); slices.Contains(PlaintextTypes, corev1.SecretType(kind)) {
		return nil
	}
	name, _ := generator.Get("name").Text()
	for _, literal := range generator.Get("literals").List() {
		text, _ := literal.Text()
		entry, value, found := strings.Cut(text, "=")
		if !found {
			continue // kustomize refuses it
		}
		if _, err := ciphertext.Version([]byte(strings.Trim(value, `"'`))); err != nil {
			findings = append(findings, k.finding(ruleForbidden, literal.Line(), "",
				"a literal of the secretGenerator of %s is not ciphertext, and plaintext is forbidden: %s", display.Name(name),
				quote(entry)))
		}
	}
	return findings
}

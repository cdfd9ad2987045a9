package secretmanager

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// minCopied is the length of a value from which its presence in another text is no coincidence, in bytes.
const minCopied = 4

// plaintextCopies returns an error for each label and annotation that contains a value of the Secret, because it would
// stay readable. Tools keep the applied manifest in an annotation, such as kapp.k14s.io/original. The one of kubectl
// apply is left out: it is removed.
func plaintextCopies(s *corev1.Secret) (errs []error) {
	find := func(kind string, texts map[string]string) {
		for _, name := range slices.Sorted(maps.Keys(texts)) {
			for _, entry := range ciphertext.Entries(s.Data) {
				if name != ciphertext.AnnotationLastApplied && contains(texts[name], s.Data[entry]) {
					errs = append(errs, fmt.Errorf("%s %s contains the value of entry %q, which would stay readable: "+
						"remove it first", kind, name, entry))
				}
			}
		}
	}
	find("annotation", s.Annotations)
	find("label", s.Labels)
	return errs
}

// contains reports whether a text contains a value: as it is, in base64 as in a manifest, or as a JSON string.
func contains(text string, value []byte) bool {
	if len(value) < minCopied {
		return false
	}
	forms := []string{string(value), base64.StdEncoding.EncodeToString(value)}
	for _, escapeHTML := range []bool{true, false} {
		var b bytes.Buffer
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(escapeHTML)
		if encoder.Encode(string(value)) == nil {
			quoted := strings.TrimSpace(b.String())
			forms = append(forms, quoted[1:len(quoted)-1])
		}
	}
	return slices.ContainsFunc(forms, func(form string) bool { return strings.Contains(text, form) })
}

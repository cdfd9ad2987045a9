package lint

import (
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// location is an entry of a ciphertext Secret.
type location struct {
	*secret
	entry *manifest.Entry
}

// checkCopied finds ciphertext that several entries have although it is bound to one location. Only Vault knows which.
func checkCopied(files []*File, o Options) (findings []Finding) {
	first := map[string][]location{}
	for _, f := range files {
		for _, s := range f.secrets {
			for _, e := range s.parsed.Entries {
				text := string(e.Text)
				if e.Problem != nil || s.scope() == "" || s.Name == "" {
					continue
				}
				l := location{s, e}
				known := first[text]
				for _, other := range known {
					if l.boundElsewhere(other, o) {
						findings = append(findings, s.finding(ruleCopied, e.Line, e.Name,
							"has the same ciphertext as entry %s of Secret %s (%s:%d), and scope %s binds it to one location: at "+
								"most one of them decrypts: encrypt the value again", quote(other.entry.Name), other.describe(o),
							display.Name(other.file.name), other.entry.Line, bindingScope(s.scope(), other.scope())))
						break
					}
				}
				if len(known) < 10 { // bounds the comparisons of one text
					first[text] = append(known, l)
				}
			}
		}
	}
	return findings
}

// boundElsewhere reports whether the same ciphertext cannot decrypt at both locations. An unknown namespace, or a name
// that a kustomization changes, may be that of the other.
func (l location) boundElsewhere(other location, o Options) bool {
	a, b := l.scope(), other.scope()
	if a != b {
		return true
	}
	namespace, otherNamespace := l.targetNamespace(o), other.targetNamespace(o)
	namespaces := !mayShare(namespace, otherNamespace)
	switch a {
	case ciphertext.Strict:
		names := l.Name != other.Name
		if l.renamed || other.renamed {
			names = !strings.Contains(l.Name, other.Name) && !strings.Contains(other.Name, l.Name)
		}
		return namespaces || names || l.entry.Name != other.entry.Name
	case ciphertext.Namespace:
		return namespaces
	}
	return false
}

// bindingScope returns the narrower of two scopes.
func bindingScope(a, b ciphertext.Scope) ciphertext.Scope {
	for _, s := range ciphertext.Scopes { // from the narrowest
		if a == s || b == s {
			return s
		}
	}
	return a
}

func (l location) describe(o Options) string {
	if namespace := l.targetNamespace(o); namespace != "" {
		return display.Name(namespace) + "/" + display.Name(l.Name)
	}
	return display.Name(l.Name)
}

// Package filesecret finds the Secret of a manifest that a command line names, and the namespace of
// a Secret whose manifest has none.
package filesecret

import (
	"errors"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
	"github.com/secretmanager-io/secretmanager/internal/manifestfile"
)

// Find returns the ciphertext Secret of a file with the name, if that is not empty, and the
// namespace of -n, if that is set. It returns nil if there is none.
func Find(p *cli.Factory, f *manifestfile.File, name string) (*manifest.Secret, error) {
	namespace := *p.KubeFlags.Namespace
	matches := func(s *manifest.Secret) bool {
		return (name == "" || s.Name == name) && (namespace == "" || s.Namespace == "" || s.Namespace == namespace)
	}
	var found []*manifest.Secret
	for _, s := range f.Manifest.Secrets {
		if matches(s) {
			found = append(found, s)
		}
	}
	for _, s := range f.Manifest.Plain {
		if name != "" && matches(s) {
			return nil, cli.WithHint(display.Errorf("%s: line %d: %s is not a ciphertext Secret", f.Name, s.Line, s),
				"choose another name, or remove the Secret; the history of Git keeps its values: encrypt new ones")
		}
	}
	if len(found) > 1 {
		var errs []error
		for _, s := range found {
			errs = append(errs, display.Errorf("%s: line %d: %s", f.Name, s.Line, s))
		}
		return nil, cli.Usagef("the Secret is ambiguous: name it, and its namespace with -n:\n%w", errors.Join(errs...))
	}
	if len(found) == 0 {
		return nil, nil
	}
	return found[0], nil
}

// Namespace returns the namespace to which the ciphertext of a Secret is bound: that of the manifest, or else the
// one that kubectl would use. It is empty if neither has one and none is needed.
func Namespace(p *cli.Factory, f *manifestfile.File, s *manifest.Secret) (string, error) {
	if s.Namespace != "" || !s.BindsNamespace() {
		return s.Namespace, nil
	}
	return p.RequireNamespace(display.Sprintf("%s: line %d: %s has none, and scope %s binds its ciphertext to one", f.Name,
		s.Line, s, s.Settings.Scope))
}

// AsStored returns a Secret of a file as the API server would store it.
func AsStored(p *cli.Factory, f *manifestfile.File, s *manifest.Secret) (*corev1.Secret, error) {
	namespace, err := Namespace(p, f, s)
	if err == nil && namespace == "" {
		namespace, err = p.OfflineNamespace()
	}
	if err != nil {
		return nil, err
	}
	secret := s.AsStored()
	secret.ObjectMeta = metav1.ObjectMeta{Namespace: namespace, Name: s.Name}
	s.Settings.Apply(secret)
	return secret, nil
}

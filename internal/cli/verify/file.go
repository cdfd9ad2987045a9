package verify

import (
	"context"
	"errors"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/lint"
	"github.com/secretmanager-io/secretmanager/internal/manifestfile"
)

// addFiles adds the Secrets of manifests. It returns read errors as unread, and an error that ends
// the command as err.
func (o *Options) addFiles(ctx context.Context, verifier *secretmanager.Verifier) (unread, err error) {
	files, unread := manifestfile.Open(o.In, o.ErrOut, o.files, o.recursive,
		func(m manifestfile.File) (*lint.File, error) {
			f, err := lint.Read(m.Name, m.Source)
			if err != nil {
				return nil, manifestfile.WithName(m.Name, err)
			}
			return f, nil
		})
	namespace := "" // of manifests without one; read when first needed
	for _, f := range files {
		for _, s := range f.Secrets {
			if !s.Ours {
				continue
			}
			scope, _ := ciphertext.ParseScope(s.Meta.Annotations[ciphertext.AnnotationScope])
			if s.Meta.Namespace == "" && (scope == ciphertext.Strict || scope == ciphertext.Namespace) {
				if namespace == "" {
					namespace, err = o.RequireNamespace(
						display.Sprintf("%s: line %d: %s has none, and scope %s binds its ciphertext to one", f.Name, s.Line(), s, scope))
				}
				if err != nil {
					return errors.Join(unread, err), nil
				}
				s.Meta.Namespace = namespace
			}
			if err := o.addFile(ctx, verifier, f, s); err != nil {
				return unread, err
			}
		}
	}
	return unread, nil
}

// addFile adds a Secret of a manifest, as the API server would store it.
func (o *Options) addFile(ctx context.Context, verifier *secretmanager.Verifier, f *lint.File, s *lint.Secret) error {
	row := &secretResult{File: f.Name, Line: s.Line(), entries: map[string]*lint.Entry{}}
	o.rows = append(o.rows, row)
	secret := s.Meta.DeepCopy()
	secret.Data = map[string][]byte{}
	for _, e := range s.Entries { // stringData comes last and overrides data
		secret.Data[e.Name], row.entries[e.Name] = e.Text, e
	}
	o.ofFile[secret] = row
	if secret.Name == "" {
		o.take(secretmanager.VerifyResult{Secret: secret, Entries: len(secret.Data),
			Failed: []secretmanager.EntryError{{Err: errors.New("it has no name, to which its ciphertext is bound")}}})
		return nil
	}
	return verifier.Add(ctx, secret)
}

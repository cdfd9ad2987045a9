package verify

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/internal/cli/filesecret"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
	"github.com/secretmanager-io/secretmanager/internal/manifestfile"
)

// addFiles adds the Secrets of manifests. It returns read errors as unread, and an error that ends
// the command as err.
func (o *Options) addFiles(ctx context.Context, verifier *secretmanager.Verifier) (unread, err error) {
	files, unread := manifestfile.Open(o.In, o.ErrOut, o.files, o.recursive)
	for _, f := range files {
		for _, s := range f.Manifest.Secrets {
			secret := s.AsStored()
			if secret.Namespace, err = filesecret.Namespace(o.Factory, f, s); err != nil {
				return errors.Join(unread, err), nil
			}
			row := &secretResult{File: f.Name, Line: s.Line, entries: map[string]*manifest.Entry{}}
			for _, e := range s.Entries {
				row.entries[e.Name] = e
			}
			if err := o.addFile(ctx, verifier, row, secret); err != nil {
				return unread, err
			}
		}
	}
	return unread, nil
}

// addFile adds a Secret of a manifest, as the API server would store it.
func (o *Options) addFile(ctx context.Context, verifier *secretmanager.Verifier, row *secretResult,
	secret *corev1.Secret) error {
	o.rows = append(o.rows, row)
	o.ofFile[secret] = row
	if secret.Name != "" {
		return verifier.Add(ctx, secret)
	}
	o.take(secretmanager.VerifyResult{Secret: secret, Entries: len(secret.Data),
		Failed: []secretmanager.EntryError{{Err: errors.New("it has no name, to which its ciphertext is bound")}}})
	return nil
}

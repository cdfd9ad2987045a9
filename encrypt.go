package secretmanager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Encrypt encrypts the entries of the spec and returns the ciphertext Secret as a
// manifest: type, labels, annotations, data, and the apiVersion and kind that a file
// needs. The key version is the one that stored ciphertext should have: see [Spec.Settle].
// It makes two requests to Vault, one for the key and one batch, possibly a third for the
// type of its storage, and none to a cluster.
//
// Encrypt reports all problems of the spec at once before it sends a request, and then
// those of the key. The key must match the scope: with a key that is not derived, Vault
// would silently ignore the location. Both errors wrap [ErrInvalid]. Encrypt is all or
// nothing.
func Encrypt(ctx context.Context, vault Vault, spec Spec) (*corev1.Secret, error) {
	fail := func(err error) (*corev1.Secret, error) {
		return nil, fmt.Errorf("encrypting Secret %s: %w", describe(spec.namespacedName()), err)
	}
	err := spec.complete()
	if len(spec.Remove) > 0 {
		err = errors.Join(err, errors.New("a new Secret has no entries to remove"))
	}
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	secret := &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: spec.Namespace, Name: spec.Name},
	}
	if secret.Data, err = spec.encrypt(ctx, vault); err != nil {
		return fail(err)
	}
	spec.Settings.Apply(secret)
	return secret, nil
}

// encrypt returns the ciphertexts of the entries of a complete spec.
func (s *Spec) encrypt(ctx context.Context, vault Vault) (map[string][]byte, error) {
	key := s.Settings.Key
	info, err := checkKey(ctx, vault, key, s.Settings.Scope)
	if err != nil {
		return nil, err
	}
	version := s.target(ctx, vault, info).Version
	entries := ciphertext.Entries(s.Entries)
	items := make([]transit.Item, len(entries))
	for i, entry := range entries {
		items[i] = transit.Item{Data: s.Entries[entry], KeyVersion: version,
			Context: s.Settings.Scope.Context(s.Namespace, s.Name, entry)}
	}
	results, err := vault.Encrypt(ctx, key, items)
	if err != nil {
		return nil, transit.WithUpdateHint(err, key, transit.OpEncrypt)
	}
	return collect(entries, results, func(_ string, err error) error { return err })
}

// collect returns the data of the results by entry, or an error that has one line for
// each entry that failed.
func collect(entries []string, results []transit.Result, explain func(string, error) error) (map[string][]byte, error) {
	data := make(map[string][]byte, len(entries))
	var errs []error
	for i, r := range results {
		if r.Err != nil {
			errs = append(errs, fmt.Errorf("entry %q: %w", entries[i], explain(entries[i], r.Err)))
			continue
		}
		data[entries[i]] = r.Data
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return data, nil
}

// target returns the version to encrypt with.
func (s *Spec) target(ctx context.Context, vault Vault, info transit.KeyInfo) transit.Target {
	if session, ok := vault.(interface {
		Target(ctx context.Context, info transit.KeyInfo, settle time.Duration) transit.Target
	}); ok {
		return session.Target(ctx, info, s.Settle)
	}
	return transit.TargetVersion(info, cmp.Or(s.Settle, transit.DefaultSettle), info.ReadAt)
}

// checkKey reads the key and reports whether it matches the scope.
func checkKey(ctx context.Context, vault Vault, key ciphertext.Key, scope ciphertext.Scope) (transit.KeyInfo, error) {
	info, err := vault.Key(ctx, key)
	switch {
	case errors.Is(err, transit.ErrNotFound):
		return info, transit.WithHint(fmt.Errorf("%w: %w", ErrInvalid, err), "check the names of key and mount")
	case err != nil:
		return info, transit.WithHint(err, "check that the policy has read on "+key.String())
	case !info.Derived && scope != ciphertext.None:
		return info, fmt.Errorf("%w: key %s is not derived, so Vault would ignore scope %s and the ciphertext would decrypt "+
			"anywhere: use a key made with derived=true (a key cannot be changed into one), or scope %s",
			ErrInvalid, key, scope, ciphertext.None)
	case info.Derived && scope == ciphertext.None:
		return info, fmt.Errorf("%w: key %s is derived, and scope %s has no context to derive from: use scope %s, %s or %s",
			ErrInvalid, key, scope, ciphertext.Strict, ciphertext.Namespace, ciphertext.Cluster)
	}
	return info, nil
}

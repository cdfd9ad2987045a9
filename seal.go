package secretmanager

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Seal encrypts the entries in one batch request and returns the ciphertext
// Secret as a manifest: type, labels, annotations, data, and the apiVersion and
// kind that a file needs. It talks to Vault only.
//
// All problems of the spec are reported at once, before anything is sent; then
// those of the key, which has to fit the scope: with a key that is not derived
// Vault would silently ignore what binds the ciphertext to its place. They wrap
// [ErrInvalid]. What Vault itself says is an [*transit.Error].
func Seal(ctx context.Context, vault *transit.Session, spec Spec) (*corev1.Secret, error) {
	fail := func(err error) error {
		return fmt.Errorf("encrypting Secret %s: %w", place(spec.Namespace, spec.Name), err)
	}
	if err := spec.complete(); err != nil {
		return nil, fail(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	key := keyOf(spec.Settings)
	if err := checkKey(ctx, vault, key, spec.Settings.Scope); err != nil {
		return nil, fail(err)
	}
	entries := ciphertext.Entries(spec.Entries)
	items := make([]transit.Item, len(entries))
	for i, entry := range entries {
		items[i] = transit.Item{Data: spec.Entries[entry], Context: spec.Settings.Scope.Context(spec.Namespace, spec.Name, entry)}
	}
	results, err := vault.Encrypt(ctx, key, items)
	if err != nil {
		return nil, fail(withHint(err, fmt.Sprintf("check that the policy has update on %s/encrypt/%s", key.Mount, key.Name)))
	}
	secret := &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: spec.Namespace, Name: spec.Name},
		Data:       make(map[string][]byte, len(entries)),
	}
	var errs []error
	for i, r := range results {
		if r.Err != nil {
			errs = append(errs, fmt.Errorf("entry %q: %w", entries[i], r.Err))
			continue
		}
		secret.Data[entries[i]] = r.Data
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fail(err)
	}
	spec.Settings.Apply(secret)
	return secret, nil
}

// checkKey reads the key and reports whether it fits the scope.
func checkKey(ctx context.Context, vault *transit.Session, key transit.Key, scope ciphertext.Scope) error {
	info, err := vault.Key(ctx, key)
	switch {
	case errors.Is(err, transit.ErrNotFound):
		return withHint(fmt.Errorf("%w: %w", ErrInvalid, err), "check the names of key and mount; a new key is made with: vault write -f "+key.String()+" derived=true")
	case err != nil:
		return withHint(err, "check that the policy has read on "+key.String())
	case !info.Derived && scope != ciphertext.None:
		return fmt.Errorf("%w: key %s is not derived, so Vault would ignore scope %s and the ciphertext would open anywhere: use a key made with derived=true (a key cannot be changed into one), or scope %s",
			ErrInvalid, key, scope, ciphertext.None)
	case info.Derived && scope == ciphertext.None:
		return fmt.Errorf("%w: key %s is derived, and scope %s has no context to derive from: use scope %s, %s or %s",
			ErrInvalid, key, scope, ciphertext.Strict, ciphertext.Namespace, ciphertext.Cluster)
	}
	return nil
}

func keyOf(set ciphertext.Settings) transit.Key {
	return transit.Key{Mount: set.Mount, Name: set.Key}
}

// withHint says what to check where Vault refused; other errors speak for themselves.
func withHint(err error, hint string) error {
	if errors.Is(err, transit.ErrDenied) || errors.Is(err, transit.ErrNotFound) {
		return fmt.Errorf("%w: %s", err, hint)
	}
	return err
}

func place(namespace, name string) string {
	if namespace == "" {
		return display.Name(name)
	}
	return display.Name(namespace) + "/" + display.Name(name)
}

package secretmanager

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Prove finds out whether every entry of a ciphertext Secret opens where the
// Secret is, which is by its namespace and name: it lets Vault rewrap them and
// throws the result away. That takes update on the key's rewrap path and no
// right to decrypt. The error wraps [ErrNotProved] and names every entry that
// does not open.
func Prove(ctx context.Context, vault *transit.Session, secret *corev1.Secret) error {
	fail := func(err error) error {
		return fmt.Errorf("proving Secret %s: %w", place(secret.Namespace, secret.Name), err)
	}
	if err := ciphertext.Validate(secret); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrNotProved, err))
	}
	set, err := ciphertext.SettingsOf(secret)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrNotProved, err))
	}
	key := keyOf(set)
	entries := ciphertext.Entries(secret.Data)
	results, err := vault.Rewrap(ctx, key, itemsOf(secret, set, entries))
	if err != nil {
		return fail(withHint(err, fmt.Sprintf("check that the policy has update on %s/rewrap/%s", key.Mount, key.Name)))
	}
	var errs []error
	for i, r := range results {
		if r.Err != nil {
			errs = append(errs, itemError(secret, set, entries[i], r.Err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrNotProved, err))
	}
	return nil
}

// itemsOf returns what Vault needs of the entries.
func itemsOf(secret *corev1.Secret, set ciphertext.Settings, entries []string) []transit.Item {
	items := make([]transit.Item, len(entries))
	for i, entry := range entries {
		items[i] = transit.Item{Data: secret.Data[entry], Context: set.Scope.Context(secret.Namespace, secret.Name, entry)}
	}
	return items
}

// itemError says which entry Vault refused to open, and what to make of it.
func itemError(secret *corev1.Secret, set ciphertext.Settings, entry string, err error) error {
	return fmt.Errorf("entry %q: %w", entry, whyNot(secret, set, entry, err))
}

// whyNot says what to make of Vault's refusal to open an entry.
func whyNot(secret *corev1.Secret, set ciphertext.Settings, entry string, err error) error {
	switch {
	case errors.Is(err, transit.ErrMismatch):
		return fmt.Errorf("%w: it was not made with key %s for %s (scope %s): it may have been copied from elsewhere or made with another key: encrypt the value again",
			err, keyOf(set), display.Line(set.Scope.Place(secret.Namespace, secret.Name, entry)), set.Scope)
	case errors.Is(err, transit.ErrTooOld):
		return fmt.Errorf("%w: it comes from before the last retirement, as from a backup or from Git: encrypt the value again, or lower min_decryption_version of %s to rescue it", err, keyOf(set))
	case errors.Is(err, transit.ErrTooNew):
		return fmt.Errorf("%w: key %s does not have its version: check that it is the right Vault, and not one restored from an older backup", err, keyOf(set))
	}
	return err
}

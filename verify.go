package secretmanager

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Verify reports whether every entry of a ciphertext Secret decrypts at its location, which
// is the namespace and name of the Secret. It needs update on the key's rewrap path and no
// right to decrypt: Vault rewraps the entries, and Verify drops the results. The error
// wraps [ErrNotVerified] and names every entry that does not decrypt. Any other error
// means that the result is not known.
func Verify(ctx context.Context, vault Vault, secret *corev1.Secret) error {
	fail := func(err error) error { return fmt.Errorf("verifying Secret %s: %w", describe(nameOf(secret)), err) }
	if err := ciphertext.Validate(secret); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrNotVerified, err))
	}
	settings, err := ciphertext.SettingsOf(secret)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrNotVerified, err))
	}
	entries := ciphertext.Entries(secret.Data)
	results, err := vault.Rewrap(ctx, settings.Key, itemsOf(secret, settings, entries))
	if err != nil {
		return fail(transit.WithUpdateHint(err, settings.Key, transit.OpRewrap))
	}
	if _, err := collect(entries, results, func(entry string, err error) error {
		return explain(secret, settings, entry, err)
	}); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrNotVerified, err))
	}
	return nil
}

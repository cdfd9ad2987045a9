package secretmanager

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Read returns the plaintext of the named entries of a ciphertext Secret, or of all of
// them if none is named: one GET and one batch decrypt. The identity needs get on the
// Secret and update on the key's decrypt path.
//
// Read is all or nothing: the error names every entry that is missing, is not ciphertext
// or does not decrypt. Key, mount and scope are those of the Secret's metadata; the policy
// in Vault determines which keys are allowed.
func (c *Client) Read(ctx context.Context, namespace, name string, entries ...string) (map[string][]byte, error) {
	fail := func(err error) (map[string][]byte, error) {
		return nil, fmt.Errorf("reading Secret %s: %w", describe(types.NamespacedName{Namespace: namespace, Name: name}), err)
	}
	secret, err := c.kube.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fail(fmt.Errorf("%w: check both names, and that this identity may get that Secret", err))
	}
	plaintext, err := decrypt(ctx, c.vault, secret, entries)
	if err != nil {
		return fail(err)
	}
	return plaintext, nil
}

// Decrypt returns the plaintext of all entries of a ciphertext Secret, such as one from a
// manifest. It is the inverse of [Encrypt]. Like [Client.Read] it is all or nothing and needs
// update on the key's decrypt path.
func Decrypt(ctx context.Context, vault Vault, secret *corev1.Secret) (map[string][]byte, error) {
	plaintext, err := decrypt(ctx, vault, secret, nil)
	if err != nil {
		return nil, fmt.Errorf("decrypting Secret %s: %w", describe(nameOf(secret)), err)
	}
	return plaintext, nil
}

func decrypt(ctx context.Context, vault Vault, secret *corev1.Secret, entries []string) (map[string][]byte, error) {
	var errs []error
	settings, err := ciphertext.SettingsOf(secret)
	if err != nil {
		errs = append(errs, err)
	}
	if len(secret.Data) == 0 {
		errs = append(errs, errors.New("the Secret has no entries"))
	}
	if len(entries) == 0 {
		entries = ciphertext.Entries(secret.Data)
	}
	for _, entry := range entries {
		text, ok := secret.Data[entry]
		if !ok {
			errs = append(errs, fmt.Errorf("entry %q does not exist: the entries are %q", entry,
				ciphertext.Entries(secret.Data)))
		} else if _, err := ciphertext.Version(text); err != nil {
			errs = append(errs, fmt.Errorf("entry %q: %w", entry, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	results, err := vault.Decrypt(ctx, settings.Key, itemsOf(secret, settings, entries))
	if err != nil {
		return nil, transit.WithUpdateHint(err, settings.Key, transit.OpDecrypt)
	}
	return collect(entries, results, func(entry string, err error) error { return explain(secret, settings, entry, err) })
}

// itemsOf returns the entries as items for Vault.
func itemsOf(secret *corev1.Secret, settings ciphertext.Settings, entries []string) []transit.Item {
	items := make([]transit.Item, len(entries))
	for i, entry := range entries {
		items[i] = transit.Item{
			Data: secret.Data[entry], Context: settings.Scope.Context(secret.Namespace, secret.Name, entry),
		}
	}
	return items
}

// explain adds the cause and the fix to the error of an entry that does not decrypt.
func explain(secret *corev1.Secret, settings ciphertext.Settings, entry string, err error) error {
	return transit.ExplainItem(err, settings, display.Line(settings.Scope.Describe(secret.Namespace, secret.Name, entry)))
}

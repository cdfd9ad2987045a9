package secretmanager

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Read returns the plaintext of the named entries of a ciphertext Secret, or of
// all of them when none is named: one GET and one batch decrypt. It is for
// programs that decrypt in-process; the identity needs get on the Secret and
// update on the key's decrypt path.
//
// It is all or nothing: the error names every entry that is missing, is not
// ciphertext or does not open. Key, mount and scope are those the Secret states
// of itself; which keys are accepted is for the Vault policy to say.
func (c *Client) Read(ctx context.Context, namespace, name string, entries ...string) (map[string][]byte, error) {
	fail := func(err error) (map[string][]byte, error) {
		return nil, fmt.Errorf("reading Secret %s: %w", place(namespace, name), err)
	}
	secret, err := c.kube.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fail(fmt.Errorf("%w: check both names, and that this identity may get that Secret", err))
	}
	plain, err := open(ctx, c.vault, secret, entries)
	if err != nil {
		return fail(err)
	}
	return plain, nil
}

// Open returns the plaintext of all entries of a ciphertext Secret that is at
// hand, such as one from a manifest: the opposite of [Seal]. Like [Client.Read] it
// is all or nothing, and takes update on the key's decrypt path.
func Open(ctx context.Context, vault *transit.Session, secret *corev1.Secret) (map[string][]byte, error) {
	plain, err := open(ctx, vault, secret, nil)
	if err != nil {
		return nil, fmt.Errorf("decrypting Secret %s: %w", place(secret.Namespace, secret.Name), err)
	}
	return plain, nil
}

func open(ctx context.Context, vault *transit.Session, secret *corev1.Secret, entries []string) (map[string][]byte, error) {
	var errs []error
	set, err := ciphertext.SettingsOf(secret)
	if err != nil {
		errs = append(errs, err)
	}
	if len(secret.Data) == 0 {
		errs = append(errs, errors.New("it has no entries"))
	}
	if len(entries) == 0 {
		entries = ciphertext.Entries(secret.Data)
	}
	for _, entry := range entries {
		text, ok := secret.Data[entry]
		if !ok {
			errs = append(errs, fmt.Errorf("entry %q: is not there: the entries are %q", entry, ciphertext.Entries(secret.Data)))
		} else if _, err := ciphertext.Version(text); err != nil {
			errs = append(errs, fmt.Errorf("entry %q: %w", entry, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	key := keyOf(set)
	results, err := vault.Decrypt(ctx, key, itemsOf(secret, set, entries))
	if err != nil {
		return nil, withHint(err, fmt.Sprintf("check that the policy has update on %s/decrypt/%s", key.Mount, key.Name))
	}
	plain := make(map[string][]byte, len(entries))
	for i, r := range results {
		if r.Err != nil {
			errs = append(errs, itemError(secret, set, entries[i], r.Err))
			continue
		}
		plain[entries[i]] = r.Data
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return plain, nil
}

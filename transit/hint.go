package transit

import (
	"errors"
	"fmt"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// WithHint adds a hint to an error that wraps [ErrDenied] or [ErrNotFound]. It returns
// other errors as they are.
func WithHint(err error, hint string) error {
	if errors.Is(err, ErrDenied) || errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%w: %s", err, hint)
	}
	return err
}

// WithUpdateHint is [WithHint] for a request that needs update on an operation of the
// key, such as decrypt.
func WithUpdateHint(err error, key ciphertext.Key, operation Operation) error {
	return WithHint(err, fmt.Sprintf("check that the policy has update on %s/%s/%s", key.Mount, operation, key.Name))
}

// ExplainItem adds the cause and the fix to the error of an item that Vault did not
// decrypt. The settings are those of the Secret, and location is that of the entry.
func ExplainItem(err error, s ciphertext.Settings, location string) error {
	switch {
	case errors.Is(err, ErrMismatch):
		return fmt.Errorf("%w: it was not made with key %s for %s (scope %s): it may have been copied from elsewhere "+
			"or made with another key: encrypt the value again", err, s.Key, location, s.Scope)
	case errors.Is(err, ErrTooOld):
		return fmt.Errorf("%w: it comes from before the last retirement, as from a backup or from Git: encrypt the value "+
			"again, or lower min_decryption_version of %s to rescue it", err, s.Key)
	case errors.Is(err, ErrTooNew):
		return fmt.Errorf("%w: key %s does not have its version: check that this is the right Vault, and that it was not "+
			"restored from an older backup", err, s.Key)
	}
	return err
}

package secretmanager

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/secretpatch"
)

// Outcome is what [Client.Apply] did.
type Outcome string

// The outcomes. Apply never reports "unchanged": without the right to decrypt, Apply cannot
// compare a value with the stored one.
const (
	Created Outcome = "created" // the Secret did not exist
	Updated Outcome = "updated" // entries of an existing Secret were set
)

// Apply encrypts the entries and writes them to the cluster: as a new Secret, or into
// the existing ciphertext Secret, whose other entries stay as they are, byte for byte. It
// returns the Secret as stored.
//
// Apply rejects an existing Secret that is not ciphertext, has another key or scope
// ([ErrExists]), is managed by somebody else ([ErrManaged]), or is immutable, and reports
// all reasons at once. From an existing Secret it removes the annotation in which kubectl
// apply keeps a copy of the last applied Secret, which may contain plaintext.
//
// The write is a compare-and-swap with up to five attempts ([ErrConflict]). Apply
// verifies what was stored, as [Verify] does: an error that wraps [ErrNotVerified] comes
// with the Secret, which has been written.
func (c *Client) Apply(ctx context.Context, spec Spec, opts Options) (*corev1.Secret, Outcome, error) {
	// Encrypt once: the ciphertext depends on names and settings, which no conflict changes.
	encrypted, err := Encrypt(ctx, c.vault, spec)
	if err != nil {
		return nil, "", err
	}
	fail := func(err error) (*corev1.Secret, Outcome, error) {
		return nil, "", fmt.Errorf("writing Secret %s: %w", describe(nameOf(encrypted)), err)
	}
	if encrypted.Namespace == "" {
		return fail(fmt.Errorf("%w: no namespace to write the Secret to", ErrInvalid))
	}
	var outcome Outcome
	stored, err := c.writer(opts).Write(ctx, nameOf(encrypted), func(current *corev1.Secret) (*secretpatch.Patch, error) {
		if current == nil {
			outcome = Created
			return secretpatch.Create(encrypted), nil
		}
		outcome = Updated
		return mergePatch(current, encrypted, nil, opts)
	})
	if err != nil {
		return fail(explainWrite(err, ErrConflict,
			"check that the namespace exists and that you may get, create and patch Secrets in it"))
	}
	return c.verified(ctx, stored, outcome)
}

// EncryptUpdate encrypts the entries of the spec for an existing ciphertext Secret, with
// the same checks as [Client.Update], and returns the ciphertext by entry. It is for
// programs that write the Secret themselves, such as to a manifest. Namespace, Name and
// Settings of the spec default to those of the Secret.
func EncryptUpdate(ctx context.Context, vault Vault, old *corev1.Secret, spec Spec) (map[string][]byte, error) {
	encrypted, err := encryptUpdate(ctx, vault, old, spec)
	if err != nil {
		return nil, err
	}
	return encrypted.Data, nil
}

func encryptUpdate(ctx context.Context, vault Vault, old *corev1.Secret, spec Spec) (*corev1.Secret, error) {
	fail := func(err error) (*corev1.Secret, error) {
		return nil, fmt.Errorf("updating Secret %s: %w", describe(nameOf(old)), err)
	}
	settings, err := ciphertext.SettingsOf(old)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	if spec.Namespace == "" && spec.Name == "" {
		spec.Namespace, spec.Name = old.Namespace, old.Name
	}
	if spec.Settings == (ciphertext.Settings{}) {
		spec.Settings = settings
	}
	if err := spec.checkUpdate(old); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	encrypted := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: old.Namespace, Name: old.Name}}
	spec.Settings.Apply(encrypted)
	remove := spec.Remove
	spec.Remove = nil
	if len(spec.Entries) > 0 {
		if encrypted, err = Encrypt(ctx, vault, spec); err != nil {
			return nil, err
		}
	}
	if err := mergeable(old, encrypted, remove); err != nil {
		return fail(err)
	}
	return encrypted, nil
}

// checkUpdate reports whether the spec is a valid update of the Secret.
func (s *Spec) checkUpdate(old *corev1.Secret) error {
	var errs []error
	if s.namespacedName() != nameOf(old) {
		errs = append(errs, fmt.Errorf("the specification is for Secret %s", describe(s.namespacedName())))
	}
	remaining, removed := len(old.Data), map[string]bool{}
	for entry := range s.Entries {
		if _, ok := old.Data[entry]; !ok {
			remaining++
		}
	}
	for _, entry := range s.Remove {
		_, exists := old.Data[entry]
		_, set := s.Entries[entry]
		switch {
		case set, removed[entry]:
			errs = append(errs, fmt.Errorf("entry %q is to be removed, and named a second time", entry))
		case !exists:
			errs = append(errs, fmt.Errorf("entry %q is to be removed and does not exist", entry))
		}
		removed[entry] = true
		remaining--
	}
	switch {
	case len(s.Entries)+len(s.Remove) == 0:
		errs = append(errs, errors.New("there is nothing to change"))
	case remaining <= 0:
		errs = append(errs, errors.New("no entry would remain: delete the Secret if nothing needs it"))
	}
	return errors.Join(errs...)
}

// Update sets and removes entries of a ciphertext Secret that was read before, in one batch
// request to Vault and one write. If the Secret was replaced since it was read, or its
// settings or one of these entries changed, the error wraps [ErrChanged] and nothing is
// written: the caller should read the Secret again. Changes of other entries stay. Update
// makes one attempt. It recognizes a manager by the Secret as it was read, which therefore
// must have its managedFields.
//
// Namespace, Name and Settings of the spec default to those of the Secret, and must not
// differ from them. Otherwise Update checks and verifies as [Client.Apply] does for an
// existing Secret, and returns the Secret as stored.
func (c *Client) Update(ctx context.Context, old *corev1.Secret, spec Spec, opts Options) (*corev1.Secret, error) {
	encrypted, err := encryptUpdate(ctx, c.vault, old, spec)
	if err != nil {
		return nil, err
	}
	w := c.writer(opts)
	w.Attempts = 1
	stored, err := w.WriteFrom(ctx, nameOf(old), old, func(current *corev1.Secret) (*secretpatch.Patch, error) {
		return mergePatch(current, encrypted, spec.Remove, opts)
	})
	if err != nil {
		return nil, fmt.Errorf("writing Secret %s: %w", describe(nameOf(old)),
			explainWrite(err, ErrChanged, "check that you may get and patch Secrets in the namespace"))
	}
	stored, _, err = c.verified(ctx, stored, Updated)
	return stored, err
}

func (c *Client) writer(opts Options) secretpatch.Writer {
	return secretpatch.Writer{Kube: c.kube, DryRun: opts.DryRun}
}

// explainWrite wraps a conflict of the writer in the documented error, and adds a hint to
// other errors of the API server.
func explainWrite(err, conflict error, hint string) error {
	var status apierrors.APIStatus
	switch {
	case errors.Is(err, secretpatch.ErrConflict):
		return fmt.Errorf("%w: %w", conflict, err)
	case errors.As(err, &status) && !errors.Is(err, secretpatch.ErrRejected):
		return fmt.Errorf("%w: %s", err, hint)
	}
	return err
}

// verified verifies a Secret as stored.
func (c *Client) verified(ctx context.Context, stored *corev1.Secret,
	outcome Outcome) (*corev1.Secret, Outcome, error) {
	stored.APIVersion, stored.Kind = "v1", "Secret" // clientsets drop them
	if err := Verify(ctx, c.vault, stored); err != nil {
		return stored, outcome, fmt.Errorf("the Secret was %s, but: %w", outcome, err)
	}
	return stored, outcome, nil
}

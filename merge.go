package secretmanager

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/secretpatch"
)

// mergeable reports whether the encrypted entries can be set in an existing Secret, and
// others removed.
func mergeable(existing, encrypted *corev1.Secret, remove []string) error {
	if existing.Type != ciphertext.Type && existing.Labels[ciphertext.LabelTransitKey] == "" {
		return fmt.Errorf("%w, of type %s and without the label %s: it is not a ciphertext Secret and was not changed: "+
			"choose another name, or delete it first", ErrExists, existing.Type, ciphertext.LabelTransitKey)
	}
	var errs []error
	refuse := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrExists}, args...)...))
	}
	desired, _ := ciphertext.SettingsOf(encrypted) // always valid
	if current, err := ciphertext.SettingsOf(existing); err != nil {
		refuse("%w: set what is missing, or choose another name", err)
	} else {
		if current.Key != desired.Key {
			refuse("its key is %s, not %s: use that key, or choose another name", current.Key, desired.Key)
		}
		if current.Scope != desired.Scope {
			refuse("its scope is %s, not %s: use that scope, or choose another name", current.Scope, desired.Scope)
		}
	}
	size := 0
	for _, entry := range ciphertext.Entries(existing.Data) {
		if _, replaced := encrypted.Data[entry]; replaced || slices.Contains(remove, entry) {
			continue
		}
		size += len(existing.Data[entry])
		if _, err := ciphertext.Version(existing.Data[entry]); err != nil {
			refuse("its entry %q %w: encrypt that one too, or remove it", entry, err)
		}
	}
	for _, text := range encrypted.Data {
		size += len(text)
	}
	if size > ciphertext.MaxSecretSize {
		errs = append(errs, fmt.Errorf("%w: with its other entries the Secret would hold %d bytes, and Kubernetes accepts "+
			"%d: use a second Secret", ErrInvalid, size, ciphertext.MaxSecretSize))
	}
	if existing.Immutable != nil && *existing.Immutable {
		errs = append(errs,
			errors.New("the existing Secret is immutable: delete it and create it again, or choose another name"))
	}
	if existing.DeletionTimestamp != nil {
		errs = append(errs,
			errors.New("the existing Secret is being deleted: wait until it is deleted, or see which finalizer keeps it"))
	}
	return errors.Join(errs...)
}

// mergePatch returns the patch that sets the encrypted entries of an existing Secret and
// removes others. It takes effect only if the Secret, its settings and these entries did
// not change since they were read.
func mergePatch(existing, encrypted *corev1.Secret, remove []string, opts Options) (*secretpatch.Patch, error) {
	if err := errors.Join(mergeable(existing, encrypted, remove), opts.CheckManager(existing)); err != nil {
		return nil, err
	}
	p := secretpatch.New(existing)
	p.TestLabel(ciphertext.LabelTransitKey)
	p.TestAnnotation(ciphertext.AnnotationTransitMount)
	p.TestAnnotation(ciphertext.AnnotationScope)
	p.SetEntries(encrypted.Data)
	p.RemoveEntries(remove...)
	p.SetKeyVersion()
	p.RemoveAnnotation(ciphertext.AnnotationLastApplied)
	return p, nil
}

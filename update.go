package secretmanager

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Change is what to do to the entries of a ciphertext Secret. Those in neither
// stay as they are, byte for byte.
type Change struct {
	Set    map[string][]byte // plaintexts by entry, there already or not
	Remove []string          // entries that are there
	// AllowEmpty is as in [Spec].
	AllowEmpty bool
}

// Seal encrypts what the change sets, in one batch request, for the Secret as it
// was read: with its settings, for its place. It returns the ciphertext by entry,
// and refuses what does not fit, as [Client.Update] does. It is for whoever
// writes the Secret elsewhere, to a manifest for example.
func (change Change) Seal(ctx context.Context, vault *transit.Session, was *corev1.Secret) (map[string][]byte, error) {
	sealed, err := change.seal(ctx, vault, was)
	if err != nil {
		return nil, err
	}
	return sealed.Data, nil
}

func (change Change) seal(ctx context.Context, vault *transit.Session, was *corev1.Secret) (*corev1.Secret, error) {
	fail := func(err error) (*corev1.Secret, error) {
		return nil, fmt.Errorf("changing Secret %s: %w", place(was.Namespace, was.Name), err)
	}
	set, err := ciphertext.SettingsOf(was)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	if err := change.check(was); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	sealed := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: was.Namespace, Name: was.Name}}
	set.Apply(sealed)
	if len(change.Set) > 0 {
		spec := Spec{Namespace: was.Namespace, Name: was.Name, Settings: set, Entries: change.Set, AllowEmpty: change.AllowEmpty}
		if sealed, err = Seal(ctx, vault, spec); err != nil {
			return nil, err
		}
	}
	if err := mergeable(was, sealed, change.Remove); err != nil {
		return fail(err)
	}
	return sealed, nil
}

func (change Change) check(was *corev1.Secret) error {
	var errs []error
	left := len(was.Data)
	for entry := range change.Set {
		if _, there := was.Data[entry]; !there {
			left++
		}
	}
	for i, entry := range change.Remove {
		_, there := was.Data[entry]
		_, set := change.Set[entry]
		switch {
		case set, slices.Contains(change.Remove[:i], entry):
			errs = append(errs, fmt.Errorf("entry %q: it is to be removed, and named a second time", entry))
		case !there:
			errs = append(errs, fmt.Errorf("entry %q: it is to be removed and is not there", entry))
		}
		left--
	}
	switch {
	case len(change.Set)+len(change.Remove) == 0:
		errs = append(errs, errors.New("there is nothing to change"))
	case left <= 0:
		errs = append(errs, errors.New("no entry would be left: delete the Secret if nothing needs it"))
	}
	return errors.Join(errs...)
}

// UpdateOptions are for [Client.Update].
type UpdateOptions struct {
	// DryRun has the API server check and admit everything and store nothing.
	DryRun bool
}

// Update changes entries of a ciphertext Secret as it was read: one batch request
// to Vault and one write, which takes place only if neither the Secret was
// replaced, nor its settings, nor one of the entries in question changed since
// ([ErrChanged]): read it again then, and decide anew. What happened to other
// entries meanwhile stays. It is not tried again.
//
// Otherwise it refuses, drops and proves what [Client.Create] does when it merges,
// and returns the Secret as stored.
func (c *Client) Update(ctx context.Context, was *corev1.Secret, change Change, opts UpdateOptions) (*corev1.Secret, error) {
	sealed, err := change.seal(ctx, c.vault, was)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*corev1.Secret, error) {
		return nil, fmt.Errorf("writing Secret %s: %w", place(was.Namespace, was.Name), err)
	}
	patch, err := mergePatch(was, sealed, change.Remove)
	if err != nil {
		return fail(err)
	}
	stored, err := c.patch(ctx, was, patch, opts.DryRun)
	if err != nil {
		return fail(err)
	}
	if err := Prove(ctx, c.vault, stored); err != nil {
		return stored, fmt.Errorf("the Secret was %s, but: %w", Updated, err)
	}
	return stored, nil
}

// patch sends a JSON Patch for the Secret as it was read, and tells a test in it
// that failed from what the API server refuses for other reasons.
func (c *Client) patch(ctx context.Context, was *corev1.Secret, patch []byte, dryRun bool) (*corev1.Secret, error) {
	secrets := c.kube.CoreV1().Secrets(was.Namespace)
	opts := metav1.PatchOptions{}
	if dryRun {
		opts.DryRun = []string{metav1.DryRunAll}
	}
	stored, err := secrets.Patch(ctx, was.Name, types.JSONPatchType, patch, opts)
	switch {
	case err == nil:
		stored.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
		return stored, nil
	case !conflict(err, Updated):
		return nil, fmt.Errorf("%w: check that you may patch Secrets in namespace %s", err, was.Namespace)
	}
	now, getErr := secrets.Get(ctx, was.Name, metav1.GetOptions{})
	if getErr == nil && now.UID == was.UID && now.ResourceVersion == was.ResourceVersion {
		// Nobody was in the way: it is refused for what it is.
		return nil, fmt.Errorf("%w: check what admits Secrets in namespace %s", err, was.Namespace)
	}
	return nil, fmt.Errorf("%w: %w", ErrChanged, err)
}

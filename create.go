package secretmanager

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// maxTries is how often a write is tried that others keep getting in before.
const maxTries = 5

// Outcome is what [Client.Create] did.
type Outcome string

// What Create may have done. It never finds that there is nothing to do:
// whether a value is the one that is stored already, only somebody who may
// decrypt can tell.
const (
	Created Outcome = "created" // there was no Secret of that name
	Updated Outcome = "updated" // entries were merged into the one that was there
)

// CreateOptions are for [Client.Create].
type CreateOptions struct {
	// DryRun has the API server check and admit everything and store nothing.
	DryRun bool
}

// Create encrypts the entries and writes them to the cluster: as a new Secret,
// or into the ciphertext Secret that is there, whose other entries stay as they
// are, byte for byte. It returns the Secret as stored.
//
// What does not fit is refused, all reasons at once, and never touched: a
// Secret that holds something else, or that was made with another key, mount or
// scope ([ErrOther]), or that is immutable. Merging drops the annotation in which
// kubectl apply keeps a copy of the Secret as it was, plaintext perhaps.
//
// The write is a compare-and-swap and is tried five times ([ErrConflict]).
// Afterwards what was stored is put to the proof, see [Prove]: an error that
// wraps [ErrNotProved] comes with the Secret, which has been written.
func (c *Client) Create(ctx context.Context, spec Spec, opts CreateOptions) (*corev1.Secret, Outcome, error) {
	// Sealed once: the ciphertext depends on names and settings, which no
	// conflict changes.
	sealed, err := Seal(ctx, c.vault, spec)
	if err != nil {
		return nil, "", err
	}
	if sealed.Namespace == "" {
		return nil, "", fmt.Errorf("writing Secret %s: %w: no namespace to write it to", sealed.Name, ErrInvalid)
	}
	stored, outcome, err := c.write(ctx, sealed, opts)
	if err != nil {
		return nil, "", fmt.Errorf("writing Secret %s: %w", place(sealed.Namespace, sealed.Name), err)
	}
	// A Secret from the API server does not say what it is.
	stored.TypeMeta = sealed.TypeMeta
	if err := Prove(ctx, c.vault, stored); err != nil {
		return stored, outcome, fmt.Errorf("the Secret was %s, but: %w", outcome, err)
	}
	return stored, outcome, nil
}

func (c *Client) write(ctx context.Context, sealed *corev1.Secret, opts CreateOptions) (*corev1.Secret, Outcome, error) {
	secrets := c.kube.CoreV1().Secrets(sealed.Namespace)
	var dryRun []string
	if opts.DryRun {
		dryRun = []string{metav1.DryRunAll}
	}
	var last *corev1.Secret // as it was when the last try failed; nil: absent or no try yet
	var refused error
	for range maxTries {
		existing, err := secrets.Get(ctx, sealed.Name, metav1.GetOptions{})
		var stored *corev1.Secret
		outcome := Updated
		switch {
		case apierrors.IsNotFound(err):
			last, outcome = nil, Created
			stored, err = secrets.Create(ctx, sealed, metav1.CreateOptions{DryRun: dryRun})
		case err != nil:
			return nil, "", fmt.Errorf("%w: check that you may get, create and patch Secrets in namespace %s", err, sealed.Namespace)
		default:
			if last != nil && last.UID == existing.UID && last.ResourceVersion == existing.ResourceVersion {
				// Nobody was in the way: it is refused for what it is.
				return nil, "", fmt.Errorf("%w: check what admits Secrets in namespace %s", refused, sealed.Namespace)
			}
			if err := mergeable(existing, sealed, nil); err != nil {
				return nil, "", err
			}
			last = existing
			patch, patchErr := mergePatch(existing, sealed, nil)
			if patchErr != nil {
				return nil, "", patchErr
			}
			stored, err = secrets.Patch(ctx, sealed.Name, types.JSONPatchType, patch, metav1.PatchOptions{DryRun: dryRun})
		}
		if err == nil {
			return stored, outcome, nil
		}
		refused = err
		if !conflict(err, outcome) {
			return nil, "", fmt.Errorf("%w: check that the namespace is there and that you may get, create and patch Secrets in it", err)
		}
	}
	return nil, "", fmt.Errorf("%w, %d times in a row: try again: %w", ErrConflict, maxTries, refused)
}

// conflict reports whether a write failed in the way it does when somebody else
// was faster. The answer to a failed test in a JSON Patch is 422 without saying so.
func conflict(err error, outcome Outcome) bool {
	if outcome == Created {
		return apierrors.IsAlreadyExists(err)
	}
	return apierrors.IsInvalid(err) || apierrors.IsConflict(err) || apierrors.IsNotFound(err)
}

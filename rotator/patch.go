package rotator

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/kuberetry"
	"github.com/secretmanager-io/secretmanager/internal/secretpatch"
	"github.com/secretmanager-io/secretmanager/transit"
)

// managedHint is what to do about a Secret that others manage.
const managedHint = "run secretmanager rewrap on the manifest it comes from, or give --include-managed"

var reasonImmutable = reasonText(failure.SecretImmutable, "the Secret is immutable: delete it and create it again")

// patcher writes rewrapped entries by compare-and-swap.
type patcher struct {
	vault          Vault
	kube           kubernetes.Interface
	retry          *kuberetry.Retrier
	includeManaged bool // write what others manage
	// saw records, before a Secret is written, that ciphertext of a version decrypted.
	saw func(ctx context.Context, key ciphertext.Key, lowest int) error
}

// maxPatchEntries bounds the entries of a patch, which has two operations for each. The API
// server accepts 10,000 operations.
const maxPatchEntries = 4000

// patch writes the results for a part into its Secret. If one of the old values changed
// meanwhile, or the Secret was replaced, it reads the Secret again and rewraps its current
// entries. It returns the entries that it wrote, and those that stay below the target with
// the reason. Entries that somebody else brought to the target are in neither.
func (w patcher) patch(ctx context.Context, p part, target int,
	results []transit.Result) (done []string, failed []Problem) {
	for first := 0; first < len(p.entries); first += maxPatchEntries {
		end := min(first+maxPatchEntries, len(p.entries))
		stored, doneNow, failedNow := w.patchOnce(ctx, part{p.secret, p.set, p.entries[first:end]}, target,
			results[first:end])
		done, failed = append(done, doneNow...), append(failed, failedNow...)
		if stored != nil {
			p.secret = stored
		}
	}
	return done, failed
}

// patchOnce is patch for entries that fit into one patch. It returns the Secret as it is stored
// now, or nil if that is not known.
func (w patcher) patchOnce(ctx context.Context, p part, target int,
	results []transit.Result) (stored *corev1.Secret, done []string, failed []Problem) {
	first := true
	plan := func(current *corev1.Secret) (*secretpatch.Patch, error) {
		if !first {
			done, failed = nil, nil
			if current == nil {
				return nil, nil // deleted
			}
			var reason string
			if p, results, reason = w.rewrapAgain(ctx, p, current, target); reason != "" {
				failed = p.problems(reason)
				return nil, nil
			}
		}
		first = false
		rewrapped := map[string][]byte{}
		for i, r := range results {
			if r.Err != nil {
				failed = append(failed, Problem{p.location(i), p.explain(p.entries[i], r.Err).Error()})
				continue
			}
			rewrapped[p.entries[i]] = r.Data
		}
		if done = ciphertext.Entries(rewrapped); len(done) == 0 {
			return nil, nil
		}
		patch := secretpatch.New(p.secret)
		patch.SetEntries(rewrapped)
		// The label is no evidence of the version that was written: manifests have it
		// too, and revert it.
		patch.SetAnnotation(ciphertext.AnnotationRewrapped, patch.SetKeyVersion())
		return patch, nil
	}
	name := types.NamespacedName{Namespace: p.secret.Namespace, Name: p.secret.Name}
	stored, err := secretpatch.Writer{Kube: w.kube, Retry: w.retry}.WriteFrom(ctx, name, p.secret, plan)
	if err == nil {
		return stored, done, failed
	}
	err = fmt.Errorf("writing the Secret: %w", err)
	switch {
	case errors.Is(err, secretpatch.ErrConflict):
		err = failure.SecretConflict.Wrap(err)
	case errors.Is(err, secretpatch.ErrRejected):
		err = failure.SecretRejected.Wrap(err)
	default:
		err = withReason(fmt.Errorf("%w: check that this identity may patch it", err), failure.APIServerUnavailable)
	}
	for _, entry := range done {
		failed = append(failed, Problem{Location{name.Namespace, name.Name, entry}, err.Error()})
	}
	return nil, nil, failed
}

// rewrapAgain rewraps the current entries of a Secret that changed after the part was made.
// It returns a reason if they cannot be rewrapped.
func (w patcher) rewrapAgain(ctx context.Context, old part, current *corev1.Secret,
	target int) (p part, results []transit.Result, reason string) {
	set, err := ciphertext.SettingsOf(current)
	p = part{secret: current, set: set}
	p.entries, _ = below(current, target)
	p.entries = p.entries[:min(len(p.entries), maxPatchEntries)]
	manager := ciphertext.ManagedBy(current)
	switch {
	case len(p.entries) == 0: // somebody else rewrapped them
		return p, nil, ""
	case err != nil:
		return p, nil, reasonText(failure.SecretMalformed, "it was changed meanwhile and is now malformed: %s", err)
	case set.Key != old.set.Key:
		return p, nil, reasonText(failure.SecretModified, "it was changed meanwhile to another key, %s: run again", set.Key)
	case immutable(current):
		return p, nil, reasonImmutable
	case manager.Reverts && !w.includeManaged:
		return p, nil,
			reasonText(failure.SecretManaged, "it was changed meanwhile and is now managed by %s: "+managedHint, manager.Name)
	}
	items := p.items()
	if results, err = transit.RewrapVerified(ctx, w.vault, set.Key, target, items); err != nil {
		return p, nil, withReason(err, failure.VaultError).Error()
	}
	if err = w.saw(ctx, set.Key, lowestRewrapped(items, results)); err != nil {
		return p, nil, err.Error()
	}
	return p, results, ""
}

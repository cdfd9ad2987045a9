package rotator

import (
	"context"
	"fmt"
	"time"

	"github.com/secretmanager-io/secretmanager/transit"
)

// rotate reads the key, gives it a new version if one is due, and so decides
// where its entries should be.
func (r *run) rotate(ctx context.Context, k *KeyReport, t *keyCount) {
	// Read right before rotating: another run, or Vault's own auto_rotate_period,
	// may have been faster than the listing.
	info, err := r.vault.Key(ctx, k.key())
	if err != nil {
		k.RotateReason = "the key cannot be read"
		k.fail(transit.WithHint(err, "check the names of key and mount, and that the policy has read on "+k.key().String()))
		return
	}
	k.MinDecryption, k.MinAvailable = info.MinDecryptionVersion, info.MinAvailableVersion
	r.state.of(k.key()).Refused.observeRefused(info, r.Now().UTC())
	k.Before, k.After, k.Target = info.Latest, info.Latest, info.Latest
	due, why := r.due(info, t)
	k.RotateReason = why
	if !due {
		return
	}
	if r.DryRun {
		k.Target++
		k.RotateReason = "would be rotated: " + why
		return
	}
	after, err := r.vault.Rotate(ctx, k.key())
	if err != nil {
		// Whether it took is not known, and a second try might be one version too
		// many. The key knows.
		now, readErr := r.vault.Key(ctx, k.key())
		if readErr != nil || now.Latest <= info.Latest {
			k.RotateReason = "rotating failed: " + why
			k.fail(transit.WithHint(err, "check that the policy has update on "+k.key().String()+"/rotate"))
			return
		}
		r.Log.Warn("rotating answered with an error, and took all the same", "key", k.key().String(), "error", err)
		after = now
	}
	k.After, k.Target, k.Rotated = after.Latest, after.Latest, true
	r.Log.Info("rotated", "key", k.key().String(), "from", k.Before, "to", k.After, "reason", why)
}

// due decides whether a key gets a new version, and says why or why not.
func (r *run) due(info transit.KeyInfo, t *keyCount) (bool, string) {
	age := info.Age(r.Now()).Truncate(time.Second)
	below, beyond := 0, 0
	for v, n := range t.versions {
		switch {
		case v < info.Latest:
			below += n
		case v > info.Latest: // as seen before the key was read
			beyond += n
		}
	}
	_, known := info.Created[info.Latest]
	switch {
	case r.Rotate == Never:
		return false, "asked not to"
	case beyond > 0:
		// A version made now would have the number of one that is lost, and what
		// is lost would look as if it were current.
		return false,
			fmt.Sprintf("%d entries are of versions that the key does not have: it was restored from an older "+
				"backup, or they come from another Vault: encrypt them again first", beyond)
	case r.Rotate == Always:
		return true, "asked for in any case"
	case info.AutoRotatePeriod > 0:
		return false, fmt.Sprintf("Vault rotates it by itself every %s (auto_rotate_period)", info.AutoRotatePeriod)
	case len(r.inventory.unread) > 0:
		return false, "not all namespaces could be listed, so entries may still be below version " + fmt.Sprint(info.Latest)
	case below > 0:
		return false, fmt.Sprintf("%d entries are still below version %d and come first", below, info.Latest)
	case !known:
		return false, fmt.Sprintf("Vault does not say how old version %d is", info.Latest)
	case age <= r.MaxKeyAge:
		return false, fmt.Sprintf("version %d is %s old, and due after %s", info.Latest, age, r.MaxKeyAge)
	}
	return true, fmt.Sprintf("version %d was %s old, more than %s", info.Latest, age, r.MaxKeyAge)
}

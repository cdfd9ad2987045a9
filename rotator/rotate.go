package rotator

import (
	"context"
	"fmt"
	"time"

	"github.com/secretmanager-io/secretmanager/transit"
)

// rotate reads the key, gives it a new version if one is due, and sets the target
// version of its entries.
func (r *run) rotate(ctx context.Context, k *KeyReport, c *keyCount) {
	// Read immediately before the rotation: another run, or Vault's
	// auto_rotate_period, may have rotated the key since the listing.
	info, err := r.vault.Key(ctx, k.key())
	if err != nil {
		k.RotateReason = "the key cannot be read"
		k.fail(transit.WithHint(err, "check the names of key and mount, and that the policy has read on "+k.key().String()))
		return
	}
	k.MinDecryption, k.MinAvailable = info.MinDecryptionVersion, info.MinAvailableVersion
	k.Before, k.After = info.Latest, info.Latest
	if err := r.identify(k, info); err != nil {
		k.RotateReason = "the key was restored or created again"
		k.fail(err)
		return
	}
	k.aim(info, r.settle, r.timeOf(info))
	due, reason := r.due(info, c, k.Target)
	k.RotateReason = reason
	if !due {
		return
	}
	if r.DryRun {
		if r.settle <= 0 {
			k.Target = info.Latest + 1
		}
		k.RotateReason = "would be rotated: " + reason
		return
	}
	after, err := r.vault.Rotate(ctx, k.key())
	if err != nil {
		// The request may have succeeded, and another one might create one version
		// too many. So read the key.
		current, readErr := r.vault.Key(ctx, k.key())
		if readErr != nil || current.Latest <= info.Latest {
			k.RotateReason = "rotating failed: " + reason
			k.fail(transit.WithHint(err, "check that the policy has update on "+k.key().String()+"/rotate"))
			return
		}
		r.Log.Warn("rotating returned an error, but succeeded", "key", k.key().String(), "error", err)
		after = current
	}
	k.After, k.Rotated = after.Latest, true
	r.newest[k.key()] = newestOf(after)
	k.aim(after, r.settle, r.timeOf(after))
	r.Log.Info("rotated", "key", k.key().String(), "from", k.Before, "to", k.After, "reason", reason)
}

// timeOf returns the time of Vault, not of this machine, whose clock may be wrong.
func (r *run) timeOf(info transit.KeyInfo) time.Time {
	if r.vaultClock == nil {
		return info.ReadAt
	}
	return r.vaultClock()
}

// aim sets the target version.
func (k *KeyReport) aim(info transit.KeyInfo, settle time.Duration, now time.Time) {
	target := transit.TargetVersion(info, settle, now)
	k.Target, k.Unsettled = target.Version, nil
	if !target.Unsettled.IsZero() {
		k.Unsettled = &target.Unsettled
	}
}

// due reports whether a key gets a new version, and the reason.
func (r *run) due(info transit.KeyInfo, c *keyCount, target int) (bool, string) {
	age := info.Age(r.timeOf(info)).Truncate(time.Second)
	below, beyond := 0, 0
	for v, n := range c.versions {
		switch {
		case v < target:
			below += n
		case v > info.Latest:
			beyond += n
		}
	}
	_, known := info.Created[info.Latest]
	switch {
	case r.Rotate == Never:
		return false, "the rotate mode is never"
	case beyond > 0:
		// A new version would get the number of a lost one, and the entries of the
		// lost version would look current.
		return false,
			fmt.Sprintf("%d entries have versions that the key does not have: it was restored from an older "+
				"backup, or they come from another Vault: encrypt them again first", beyond)
	case info.Latest > 1 && known && age < r.rotateInterval:
		return false, fmt.Sprintf("version %d was created %s ago, and a key is rotated at most once in %s", info.Latest, age,
			r.rotateInterval)
	case r.Rotate == Always:
		return true, "the rotate mode is always"
	case info.AutoRotatePeriod > 0:
		return false, fmt.Sprintf("Vault rotates it every %s (auto_rotate_period)", info.AutoRotatePeriod)
	case len(r.inventory.unlisted) > 0:
		return false, "not all namespaces could be listed, so entries may still be below version " + fmt.Sprint(target)
	case below > 0:
		return false, fmt.Sprintf("%d entries are still below version %d and must be rewrapped first", below, target)
	case !known:
		return false, fmt.Sprintf("Vault does not say how old version %d is", info.Latest)
	case age <= r.MaxKeyAge:
		return false, fmt.Sprintf("version %d is %s old, and due after %s", info.Latest, age, r.MaxKeyAge)
	}
	return true, fmt.Sprintf("version %d was %s old, more than %s", info.Latest, age, r.MaxKeyAge)
}

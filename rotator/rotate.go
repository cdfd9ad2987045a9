package rotator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// rotate reads the key, gives it a new version if one is due, and sets the target
// version of its entries.
func (r *run) rotate(ctx context.Context, k *keyRun) {
	// Read immediately before the rotation: another run, or Vault's
	// auto_rotate_period, may have rotated the key since the listing.
	known := 0
	if n := r.state.evidence(k.key()).Newest; n != nil && r.acknowledged[k.key()] == 0 {
		known = n.Version
	}
	info, err := r.readAtLeast(ctx, k.key(), known)
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
	due, reason := r.due(info, r.inventory.count(k.key()), r.state.evidence(k.key()).Newest != nil)
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
	if err != nil || after.Latest <= info.Latest {
		// Without a response, the request may have succeeded, and another one might create
		// one version too many. So read the key.
		current, readErr := r.readAtLeast(ctx, k.key(), info.Latest+1)
		if readErr != nil || current.Latest <= info.Latest {
			k.RotateReason = "rotating failed: " + reason
			k.fail(transit.WithHint(cmp.Or(err, readErr, errLagging),
				"check that the policy has update on "+k.key().String()+"/rotate"))
			return
		}
		if err != nil {
			r.Log.Warn("rotating returned an error, but succeeded", "key", k.key().String(), "error", err)
		}
		after = current
	}
	k.After, k.Rotated = after.Latest, true
	k.facts.newest = newestOf(after)
	k.aim(after, r.settle, r.timeOf(after))
	r.Log.Info("rotated", "key", k.key().String(), "from", k.Before, "to", k.After, "reason", reason)
}

// maxOutages is the number of requests in a row without a response after which a run sends no
// more to Vault. Each waits for its own retries, and a run may have thousands of keys.
const maxOutages = 2

// readKey reads a key, unless Vault does not respond.
func (r *run) readKey(ctx context.Context, key ciphertext.Key) (transit.KeyInfo, error) {
	if err := r.outage(); err != nil {
		return transit.KeyInfo{}, err
	}
	info, err := r.vault.Key(ctx, key)
	r.noteOutage(err)
	return info, err
}

// outage returns an error if Vault does not respond.
func (r *run) outage() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.vaultDown
}

// noteOutage records whether Vault responded to a request.
func (r *run) noteOutage(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case errors.Is(err, transit.ErrUnreachable), errors.Is(err, transit.ErrTimeout), errors.Is(err, transit.ErrSealed):
		if r.outages++; r.outages >= maxOutages {
			r.vaultDown = fmt.Errorf("after %d requests in a row without a response, Vault was not asked: %w", r.outages, err)
		}
	default:
		r.outages = 0
	}
}

// timeOf returns the time of Vault, not of this machine, whose clock may be wrong.
func (r *run) timeOf(info transit.KeyInfo) time.Time {
	if r.vaultClock == nil {
		return info.ReadAt
	}
	return r.vaultClock()
}

// aim sets the target version.
func (k *keyRun) aim(info transit.KeyInfo, settle time.Duration, now time.Time) {
	target := transit.TargetVersion(info, settle, now)
	k.Target, k.Unsettled = target.Version, nil
	if !target.Unsettled.IsZero() {
		k.Unsettled = &target.Unsettled
	}
}

// due reports whether a key gets a new version, and the reason. What Secrets have matters only
// in the first run that sees the key: the author of a Secret must not be able to stop rotation.
// Entries that cannot be rewrapped keep decrypting, because retirement verifies that none needs
// a version.
func (r *run) due(info transit.KeyInfo, c *keyCount, known bool) (bool, string) {
	age := info.Age(r.timeOf(info)).Truncate(time.Second)
	_, dated := info.Created[info.Latest]
	switch beyond := c.above(info.Latest); {
	case r.Rotate == Never:
		return false, "the rotate mode is never"
	case beyond > 0 && !known:
		// A new version gets the number of a lost one, whose entries then look current. Later
		// runs know whether the key was restored.
		return false, fmt.Sprintf("%d entries have versions that the key does not have, and no run has seen the key before: "+
			"it was restored from an older backup, or they come from another Vault: encrypt them again", beyond)
	case info.Latest > 1 && dated && age < r.rotateInterval:
		return false, fmt.Sprintf("version %d was created %s ago, and a key is rotated at most once in %s", info.Latest, age,
			r.rotateInterval)
	case r.Rotate == Always:
		return true, "the rotate mode is always"
	case info.AutoRotatePeriod > 0:
		return false, fmt.Sprintf("Vault rotates it every %s (auto_rotate_period)", info.AutoRotatePeriod)
	case !dated:
		return false, fmt.Sprintf("Vault does not say how old version %d is", info.Latest)
	case age <= r.MaxKeyAge:
		return false, fmt.Sprintf("version %d is %s old, and due after %s", info.Latest, age, r.MaxKeyAge)
	}
	return true, fmt.Sprintf("version %d was %s old, more than %s", info.Latest, age, r.MaxKeyAge)
}

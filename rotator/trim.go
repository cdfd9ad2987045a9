package rotator

import (
	"context"
	"fmt"
	"time"

	"github.com/secretmanager-io/secretmanager/transit"
)

// trimKey deletes the versions of a key that have been retired for RetireAfter.
// Vault does not say when min_decryption_version was set, so the time counts from
// the first run that saw it.
func (r *run) trimKey(ctx context.Context, k *KeyReport, cluster block) *TrimReport {
	info, err := r.vault.Key(ctx, k.key())
	if err != nil {
		return &TrimReport{Reason: "the key cannot be read: " + err.Error()}
	}
	from := info.MinAvailableVersion
	unchanged := func(format string, args ...any) *TrimReport {
		return &TrimReport{From: from, To: from, Reason: fmt.Sprintf(format, args...)}
	}
	if b := r.keyBlock(k, cluster); b.kind != "" {
		return unchanged("%s", b.reason)
	}
	retiredSince := r.state.history(k.key()).RetiredSince
	retiredSince.observeRetired(info, r.Now().UTC()) // somebody may have lowered it
	minDecryption := info.MinDecryptionVersion
	if minDecryption <= max(from, 1) {
		return unchanged("every retired version is trimmed already")
	}
	to := retiredSince.ready(minDecryption, r.Now().Add(-r.RetireAfter))
	if to <= from {
		next := max(from, 1) + 1
		since := retiredSince[next]
		return unchanged(
			"all below version %d has been retired since %s, and %s must pass: it may be trimmed from %s on",
			next, since.UTC().Format(time.RFC3339), r.RetireAfter, since.Add(r.RetireAfter).UTC().Format(time.RFC3339))
	}
	if oldest := r.inventory.count(k.key()).oldest(to); oldest < to {
		return unchanged("an entry has version %d", oldest)
	}
	if r.DryRun {
		return unchanged("all below version %d would be deleted permanently", to)
	}
	err = r.vault.Trim(ctx, k.key(), info, to)
	if err != nil {
		if current, readErr := r.vault.Key(ctx, k.key()); readErr != nil || current.MinAvailableVersion < to {
			err = transit.WithHint(err, "trimming needs update on "+k.key().String()+
				"/config and /trim, which a rotator otherwise does not have")
			k.fail(err)
			return unchanged("%s", err)
		}
		r.Log.Warn("trimming returned an error, but succeeded", "key", k.key().String(), "error", err)
	}
	return &TrimReport{From: from, To: to, Done: true,
		Reason: fmt.Sprintf("all below version %d has been retired since %s",
			to, retiredSince[to].UTC().Format(time.RFC3339))}
}

package rotator

import (
	"context"
	"fmt"
	"time"

	"github.com/secretmanager-io/secretmanager/transit"
)

// trimKey deletes the versions of a key that Vault has refused to decrypt with for
// so long that nobody can have missed them. What a run may not find out is how long
// min_decryption_version has been where it is: Vault does not say, so the time
// counts from the first run that saw it.
func (r *run) trimKey(ctx context.Context, k *KeyReport, found *inventory, blocked obstacle) *TrimReport {
	info, err := r.vault.Key(ctx, k.key())
	if err != nil {
		return &TrimReport{Reason: "the key cannot be read: " + err.Error()}
	}
	from := info.MinAvailableVersion
	not := func(format string, args ...any) *TrimReport {
		return &TrimReport{From: from, To: from, Reason: fmt.Sprintf(format, args...)}
	}
	t := found.of(k.key())
	if o := r.unfinished(k, t, blocked); o.kind != "" {
		return not("%s", o.reason)
	}
	refused := r.state.of(k.key()).Refused
	refused.observeRefused(info, r.Now().UTC()) // somebody may have lowered it
	min := info.MinDecryptionVersion
	if min <= max(from, 1) {
		return not("no version is retired that is not trimmed already")
	}
	to := refused.ready(min, r.Now().Add(-r.RetireAfter))
	if to <= from {
		next := max(from, 1) + 1
		since := refused[next]
		return not("all below version %d has been retired since %s, and %s must pass: it may be trimmed from %s on",
			next, since.UTC().Format(time.RFC3339), r.RetireAfter, since.Add(r.RetireAfter).UTC().Format(time.RFC3339))
	}
	if oldest := t.oldest(to); oldest < to {
		return not("an entry is of version %d", oldest)
	}
	if r.DryRun {
		return not("all below version %d would be deleted for good", to)
	}
	err = r.vault.Trim(ctx, k.key(), info, to)
	if err != nil {
		if now, readErr := r.vault.Key(ctx, k.key()); readErr != nil || now.MinAvailableVersion < to {
			err = transit.WithHint(err, "trimming needs update on "+k.key().String()+
				"/config and /trim, which a rotator otherwise does not have")
			k.fail(err)
			return not("%s", err)
		}
		r.Log.Warn("trimming answered with an error, and took all the same", "key", k.key().String(), "error", err)
	}
	return &TrimReport{From: from, To: to, Done: true,
		Reason: fmt.Sprintf("all below version %d has been retired since %s", to, refused[to].UTC().Format(time.RFC3339))}
}

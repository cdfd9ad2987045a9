package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/retirescan"
	"github.com/secretmanager-io/secretmanager/transit"
)

// retire raises min_decryption_version of every key that is ready: old ciphertext was not seen
// for long enough, and no text in any Secret decrypts with the versions that would be retired.
func (r *run) retire(ctx context.Context) {
	var due []dueKey
	for _, k := range r.all {
		if d, ok := r.planRetirement(ctx, k); ok {
			due = append(due, d)
		}
	}
	if len(due) > 0 {
		searches, unlisted := r.search(ctx, due)
		for _, s := range searches {
			for _, d := range s.due {
				if d.checkSearch(s.result, unlisted); d.k.Retire.Blocked == "" {
					r.retireKey(ctx, d)
				}
			}
		}
	}
	for _, k := range r.all {
		r.Log.Info("retire", "key", k.key().String(), "done", k.Retire.Done, "from", k.Retire.From, "to",
			k.Retire.To, "reason", k.Retire.Reason)
		for _, p := range k.Retire.WouldBreak {
			r.Log.Warn("would break", "key", k.key().String(), "location", p.Location.String(), "reason", p.Reason)
		}
		for _, p := range k.Retire.Released {
			r.Log.Warn("released", "key", k.key().String(), "location", p.Location.String(), "reason", p.Reason)
		}
	}
}

// dueKey is a key of which versions are due to be retired.
type dueKey struct {
	k        *keyRun
	info     transit.KeyInfo
	evidence evidence
	to       int // new min_decryption_version
}

// planRetirement determines what is due. The report of the key says why nothing is.
func (r *run) planRetirement(ctx context.Context, k *keyRun) (d dueKey, ok bool) {
	info, err := r.readAtLeast(ctx, k.key(), k.After)
	if err != nil {
		k.Retire = &RetireReport{Reason: "the key cannot be read: " + err.Error(), Blocked: BlockerError}
		return d, false
	}
	from := info.MinDecryptionVersion
	k.Retire = &RetireReport{From: from, To: from}
	e := r.state.evidence(k.key()).add(k.facts, r.limits())
	target := min(k.Target, info.Latest)
	switch {
	case k.Error != "":
		k.Retire.block(BlockerError, "the run failed: %s", k.Error)
	case k.unverified:
		k.Retire.block(BlockerError, "not every entry below version %d could be verified", k.Target)
	case len(r.inventory.unlisted) > 0:
		k.Retire.block(BlockerUnlisted, "not everything can be listed: %s", r.inventory.unlisted[0])
	case !r.complete(k):
		k.Retire.block(BlockerUnlisted, "the run excludes Secrets of the key: give no selector, and only namespaces that "+
			"--transit-key binds the key to")
	case r.clockProblem != nil:
		k.Retire.block(BlockerClock, "%s", r.clockProblem)
	case from >= target:
		k.Retire.Reason = fmt.Sprintf("every version below %d is retired already", target)
	case e.entriesMissing(r.inventory.count(k.key()).entries()):
		k.Retire.blockMissing(r.inventory.count(k.key()).entries(), e.Entries)
	default:
		d = dueKey{k, info, e, e.ready(target, k.facts.at.Add(-r.RetireAfter))}
		if held := e.Held; len(r.Release) == 0 && held.Version > 0 && k.facts.at.Sub(held.Since) < r.RetireAfter {
			d.to = min(d.to, held.Version)
		}
		if d.to > from {
			return d, true
		}
		r.explainWait(k, e, from)
	}
	return d, false
}

// explainWait says why versions are not due yet.
func (r *run) explainWait(k *keyRun, e evidence, from int) {
	next := max(from, 1) + 1
	since := e.cleanSince(next)
	var reason string
	switch held := e.Held; {
	case e.LongGaps > 0 && since.Equal(k.facts.at):
		k.Retire.Blocked = BlockerGap
		reason = fmt.Sprintf("the time since the last run is longer than %s (--max-gap), so the waiting time began again",
			r.MaxGap)
		if e.LongGaps >= 3 {
			reason += fmt.Sprintf("; this happened %d times in a row: with this schedule nothing is ever retired", e.LongGaps)
		}
	case held.Version > 0 && held.Version < next && k.facts.at.Sub(held.Since) < r.RetireAfter:
		k.Retire.Blocked = BlockerInUse
		reason = fmt.Sprintf("ciphertext of version %d that decrypts and was not rewrapped was seen at %s, and %s must pass",
			held.Version, held.Since.Format(time.RFC3339), r.RetireAfter)
	case since.IsZero():
		reason = fmt.Sprintf("it is not known yet since when no entry is below version %d", next)
	default:
		reason = fmt.Sprintf("no entry below version %d has been seen since %s, and %s must pass: it may be retired "+
			"from %s on",
			next, since.Format(time.RFC3339), r.RetireAfter, since.Add(r.RetireAfter).Format(time.RFC3339))
	}
	k.Retire.Reason = reason
}

// checkSearch adds what was found to the report of the key.
func (d *dueKey) checkSearch(found retirescan.Result, unlisted []Problem) {
	k, key := d.k, d.k.key()
	k.facts.verified, k.facts.scanned = found.Verified[key], true
	inUse := found.InUse[key]
	for _, f := range inUse.Items {
		k.facts.hold(f.Version)
		k.Retire.WouldBreak = append(k.Retire.WouldBreak, problemOf(f))
	}
	for _, f := range found.Released.Items {
		if f.Key == key {
			k.Retire.Released = append(k.Retire.Released, problemOf(f))
		}
	}
	switch {
	case len(unlisted) > 0:
		k.Retire.block(BlockerUnlisted, "not every Secret could be searched: %s", unlisted[0])
	case found.Errors[key] != nil:
		k.Retire.block(BlockerError, "old ciphertext could not be verified: %s", found.Errors[key])
	case inUse.Count > 0:
		k.Retire.block(BlockerInUse, "%d texts of versions below %d still decrypt, for example %s", inUse.Count, d.to,
			k.Retire.WouldBreak[0])
	case len(found.Delayed[key]) > 0:
		k.Retire.block(BlockerSearch, "not everything could be searched for old ciphertext, and the next run continues: %s",
			delay(found, found.Delayed[key]))
	case d.evidence.entriesMissing(found.Verified[key]):
		k.Retire.blockMissing(found.Verified[key], d.evidence.Entries)
	case !found.MayRetire(key):
		k.Retire.block(BlockerSearch, "the search for old ciphertext has no result for the key")
	}
}

// delay says which namespaces could not be searched completely, and names the first reason.
func delay(found retirescan.Result, namespaces []string) string {
	text := "namespace " + strings.Join(namespaces[:min(len(namespaces), 10)], ", ")
	for _, u := range found.NotSearched {
		if slices.Contains(namespaces, u.Namespace) {
			return fmt.Sprintf("%s (%s/%s: %s)", text, u.Namespace, u.Secret, u.Reason)
		}
	}
	return text
}

func problemOf(f retirescan.Found) Problem {
	return Location{f.Namespace, f.Secret, f.Entry}.problem(failure.CiphertextInUse,
		"has ciphertext of version %d that decrypts%s", f.Version, where(f))
}

// where says where a text is that is not an entry of a ciphertext Secret.
func where(f retirescan.Found) string {
	switch {
	case f.Annotation != "":
		return fmt.Sprintf(", in its annotation %s", f.Annotation)
	case f.InRelease:
		return ", in the manifests of a Helm release"
	case !f.Labeled:
		return ", without the label of its key"
	}
	return ""
}

func (t *RetireReport) block(by Blocker, format string, args ...any) {
	t.Blocked, t.Reason = by, fmt.Sprintf(format, args...)
}

func (t *RetireReport) blockMissing(entries, before int) {
	if entries == 0 {
		t.block(BlockerMissing, "this cluster has no entry that decrypts with the key: it may be used elsewhere, or its "+
			"Secrets may not be restored yet")
		return
	}
	t.block(
		BlockerMissing,
		"only %d entries decrypt, and %d did before: if the others are gone for good, run the rotator "+
			"once with --acknowledge",
		entries,
		before,
	)
}

// retireKey raises min_decryption_version.
func (r *run) retireKey(ctx context.Context, d dueKey) {
	k, from := d.k, d.k.Retire.From
	// Read immediately before the change, which therefore never lowers it.
	info, err := r.readAtLeast(ctx, k.key(), k.After)
	if err == nil {
		err = checkRestored(k.key(), k.facts.newest, info)
	}
	var now time.Time
	if err == nil {
		now, err = r.checkTime(ctx, info)
	}
	switch {
	case errors.Is(err, errClocks):
		k.Retire.block(BlockerClock, "%s", err)
	case err != nil:
		k.fail(err)
		k.Retire.block(BlockerError, "the key cannot be read again: %s", err)
	case now.Before(k.facts.at) || now.Sub(k.facts.at) > r.MaxGap:
		k.Retire.block(BlockerClock, "the time of Vault changed from %s to %s during the run",
			k.facts.at.Format(time.RFC3339), now.Format(time.RFC3339))
	case info.MinDecryptionVersion != from:
		k.Retire.block(BlockerError, "somebody else has changed min_decryption_version from %d to %d during the run", from,
			info.MinDecryptionVersion)
	case r.DryRun:
		k.Retire.Reason = fmt.Sprintf("would be raised from %d to %d", from, d.to)
	default:
		r.setMinimum(ctx, d, info)
	}
}

func (r *run) setMinimum(ctx context.Context, d dueKey, info transit.KeyInfo) {
	k := d.k
	if err := r.vault.SetMinDecryptionVersion(ctx, k.key(), info, d.to); err != nil {
		err = transit.WithHint(err, "retiring needs update on "+k.key().String()+
			"/config, which a rotator otherwise does not have")
		k.fail(err)
		k.Retire.block(BlockerError, "%s", err)
		return
	}
	k.Retire.To, k.Retire.Done = d.to, true
	k.Retire.Reason = fmt.Sprintf(
		"no entry below version %d has been seen since %s, and no text in any Secret decrypts with "+
			"an older one",
		d.to,
		d.evidence.cleanSince(d.to).Format(time.RFC3339),
	)
}

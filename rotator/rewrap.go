package rotator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/batch"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/transit"
)

// part is a Secret and its entries below the target.
type part struct {
	secret  *corev1.Secret
	set     ciphertext.Settings
	entries []string
}

func (p part) items() []transit.Item {
	items := make([]transit.Item, len(p.entries))
	for i, entry := range p.entries {
		items[i] = transit.Item{
			Data:    p.secret.Data[entry],
			Context: p.set.Scope.Context(p.secret.Namespace, p.secret.Name, entry),
		}
	}
	return items
}

func (p part) explain(entry string, err error) error {
	err = transit.ExplainItem(err, p.set, p.set.Scope.Describe(p.secret.Namespace, p.secret.Name, entry))
	return withReason(err, failure.DecryptFailed)
}

func (p part) location(i int) Location {
	return Location{p.secret.Namespace, p.secret.Name, p.entries[i]}
}

// problems returns a problem with the same reason for every entry of the part.
func (p part) problems(reason string) (problems []Problem) {
	for i := range p.entries {
		problems = append(problems, Problem{p.location(i), reason})
	}
	return problems
}

// below returns the well-formed entries below the target, and those that are not.
func below(s *corev1.Secret, target int) (old, current []string) {
	for _, entry := range ciphertext.Entries(s.Data) {
		switch v, err := ciphertext.Version(s.Data[entry]); {
		case err != nil: // reported by the inventory
		case v < target:
			old = append(old, entry)
		default:
			current = append(current, entry)
		}
	}
	return old, current
}

// rewrap lists the selected area again and rewraps every entry below its target.
func (r *run) rewrap(ctx context.Context) {
	batches := batch.Batcher[part]{
		Send: func(ctx context.Context, g batch.Group, parts []part) error {
			r.rewrapBatch(ctx, g, parts)
			return nil
		},
		// Vault rewraps one batch while another is written. More batches would only use memory,
		// because all of them share the write slots.
		Workers: min(r.Concurrency, 2),
	}
	unlisted := r.eachSecret(ctx, r.selectedArea(), func(s *corev1.Secret) {
		set, err := ciphertext.SettingsOf(s)
		if err != nil || r.checkSelected(s, set.Key) != nil {
			return
		}
		k := r.keys[set.Key]
		if k == nil || k.Target == 0 {
			return
		}
		entries, current := below(s, k.Target)
		r.mu.Lock()
		k.Current += len(current)
		r.mu.Unlock()
		if len(entries) == 0 || immutable(s) {
			return
		}
		manager := ciphertext.ManagedBy(s)
		if manager.Reverts && !r.IncludeManaged {
			return // reported by the recount
		}
		if manager.Name != "" && !manager.Reverts {
			r.mu.Lock()
			k.OlderManifests++
			r.mu.Unlock()
		}
		s.ManagedFields = nil // often most of the object
		// With Workers, Add and Flush return no error.
		_ = batches.Add(ctx, batch.GroupOf(set), part{s, set, entries}, len(entries), sizeOf(s, entries))
	})
	_ = batches.Flush(ctx)
	r.writePostponed(ctx)
	for _, p := range unlisted { // the recount reports it, if it persists
		r.Log.Warn("listing failed", "namespace", p.Namespace, "reason", p.Reason)
	}
}

// rewrapBatch rewraps a batch and writes its Secrets.
func (r *run) rewrapBatch(ctx context.Context, g batch.Group, parts []part) {
	if r.hasFailed(g) || ctx.Err() != nil {
		return
	}
	if err := r.outage(); err != nil {
		r.failGroup(g, err)
		return
	}
	var items []transit.Item
	for _, p := range parts {
		items = append(items, p.items()...)
	}
	results, err := transit.RewrapVerified(ctx, r.vault, g.Key, r.keys[g.Key].Target, items)
	r.noteOutage(err)
	if err != nil {
		r.failGroup(g, err)
		return
	}
	// Writing destroys the only evidence that old ciphertext came back. So the state has it
	// first; see evidence.
	if r.mustSave(g.Key, lowestRewrapped(items, results)) {
		r.postpone(ctx, rewrapped{g.Key, parts, results})
		return
	}
	r.write(ctx, rewrapped{g.Key, parts, results})
}

// rewrapped is a batch that is rewrapped and verified, and not yet written.
type rewrapped struct {
	key     ciphertext.Key
	parts   []part
	results []transit.Result
}

func (b rewrapped) size() (n int) {
	for _, result := range b.results {
		n += len(result.Data)
	}
	return n
}

// write writes a batch into its Secrets.
func (r *run) write(ctx context.Context, b rewrapped) {
	target := r.keys[b.key].Target
	var writes sync.WaitGroup
	for _, p := range b.parts {
		partResults := b.results[:len(p.entries)]
		b.results = b.results[len(p.entries):]
		r.writeSlots <- struct{}{}
		writes.Go(func() {
			defer func() { <-r.writeSlots }()
			done, failed := r.patch(ctx, p, target, partResults)
			r.record(b.key, done, failed)
		})
	}
	writes.Wait()
}

// lowestRewrapped returns the lowest version of the items that were rewrapped, or 0.
func lowestRewrapped(items []transit.Item, results []transit.Result) (lowest int) {
	for i, result := range results {
		if result.Err != nil {
			continue
		}
		if v, err := ciphertext.Version(items[i].Data); err == nil && (lowest == 0 || v < lowest) {
			lowest = v
		}
	}
	return lowest
}

// mustSave records that ciphertext of a version decrypted. It reports whether the state must be
// saved before that ciphertext is overwritten, because the state still says that none exists.
func (r *run) mustSave(key ciphertext.Key, lowest int) bool {
	if lowest == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.keys[key]
	if k.facts.lowest == 0 || lowest < k.facts.lowest {
		k.facts.lowest = lowest
	}
	return !r.state.evidence(key).cleanSince(lowest + 1).IsZero()
}

// saw is mustSave for one Secret, and saves at once.
func (r *run) saw(ctx context.Context, key ciphertext.Key, lowest int) error {
	if !r.mustSave(key, lowest) {
		return nil
	}
	r.saveMu.Lock()
	defer r.saveMu.Unlock()
	return r.saveEvidence(ctx, []*keyRun{r.keys[key]})
}

// maxPostponed bounds the results that wait for the state, in bytes.
const maxPostponed = 1 << 20

// postpone keeps a batch until the state is saved, which happens for many batches at once: a cluster
// may have thousands of keys.
func (r *run) postpone(ctx context.Context, b rewrapped) {
	r.mu.Lock()
	r.postponed = append(r.postponed, b)
	r.postponedSize += b.size()
	full := r.postponedSize >= maxPostponed
	r.mu.Unlock()
	if full {
		r.writePostponed(ctx)
	}
}

// writePostponed saves the evidence and then writes the batches that wait. If the state cannot be
// saved, nothing is written.
func (r *run) writePostponed(ctx context.Context) {
	r.mu.Lock()
	batches := r.postponed
	r.postponed, r.postponedSize = nil, 0
	keys := map[ciphertext.Key]*keyRun{}
	for _, b := range batches {
		keys[b.key] = r.keys[b.key]
	}
	r.mu.Unlock()
	if len(batches) == 0 {
		return
	}
	r.saveMu.Lock()
	err := r.saveEvidence(ctx, slices.Collect(maps.Values(keys)))
	r.saveMu.Unlock()
	if err != nil {
		err = fmt.Errorf("saving that old ciphertext was found, without which nothing is written: %w", err)
		r.mu.Lock()
		defer r.mu.Unlock()
		for key, k := range keys {
			k.fail(err)
			r.failedGroups[batch.Group{Key: key, Bound: true}] = true
			r.failedGroups[batch.Group{Key: key, Bound: false}] = true
		}
		return
	}
	for _, b := range batches {
		r.write(ctx, b)
	}
}

// failGroup ends the work on a group after a request failed for a reason that the next
// request would meet too.
func (r *run) failGroup(g batch.Group, err error) {
	err = transit.WithUpdateHint(err, g.Key, transit.OpRewrap)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failedGroups[g] = true
	r.keys[g.Key].fail(err)
}

func (r *run) hasFailed(g batch.Group) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failedGroups[g]
}

// record adds the outcome for one Secret to the report.
func (r *run) record(key ciphertext.Key, done []string, failed []Problem) {
	r.mu.Lock()
	k := r.keys[key]
	k.Rewrapped += len(done)
	r.done += len(done)
	for _, p := range failed {
		if len(r.reasons) < maxProblems { // the report names no more
			r.reasons[p.Location] = p.Reason
		}
	}
	p := Progress{Phase: "rewrap", Done: r.done, Total: max(r.done, r.pending)}
	r.mu.Unlock()
	r.progress(p)
}

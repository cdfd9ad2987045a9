package rotator

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// A batch holds at most so many entries and so many bytes, but always at least
// one whole Secret, so that each is written once. Package transit splits what is
// still too long for a request.
const (
	maxItems = 100
	maxBytes = 1 << 20
)

// group is what may share a request: Vault wants a context for every item of a
// batch or for none.
type group struct {
	key   ciphertext.Key
	bound bool
}

// batch is Secrets whose entries go to Vault together.
type batch struct {
	group  group
	target int
	parts  []part
	items  int
	bytes  int
}

// part is the share of one Secret: its entries that are below the target.
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
	return transit.ExplainItem(err, p.set, p.set.Scope.Describe(p.secret.Namespace, p.secret.Name, entry))
}

func (p part) ref(i int) entryRef {
	return entryRef{p.secret.Namespace, p.secret.Name, p.entries[i]}
}

// left says of every entry of the part why it is left.
func (p part) left(reason string) (left []Left) {
	for i := range p.entries {
		left = append(left, p.ref(i).left(reason))
	}
	return left
}

// below returns the well-formed entries below the target, in order, and those
// that are there already.
func below(s *corev1.Secret, target int) (old, current []string) {
	for _, entry := range ciphertext.Entries(s.Data) {
		switch v, err := ciphertext.Version(s.Data[entry]); {
		case err != nil: // the inventory names it
		case v < target:
			old = append(old, entry)
		default:
			current = append(current, entry)
		}
	}
	return old, current
}

// rewrap lists the area once more and brings every entry to its target.
func (r *run) rewrap(ctx context.Context) {
	var workers errgroup.Group
	// One batch is rewrapped while another is written: more would only fill the
	// memory, as all of them share the writes. Go waits while both are busy, so the
	// listing goes no faster than the work.
	workers.SetLimit(min(r.Concurrency, 2))
	open := map[group]*batch{}
	send := func(b *batch) {
		delete(open, b.group)
		workers.Go(func() error {
			r.work(ctx, b)
			return nil
		})
	}
	unread := r.each(ctx, r.asked(), func(s *corev1.Secret) {
		set, err := ciphertext.SettingsOf(s)
		if err != nil {
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
		if len(entries) == 0 || immutable(s) || r.passedOver(s) {
			return
		}
		g := group{k.key(), set.Scope != ciphertext.None}
		p, size := part{s, set, entries}, 0
		for _, entry := range entries {
			size += len(s.Data[entry])
		}
		b := open[g]
		if b != nil && (b.items+len(entries) > maxItems || b.bytes+size > maxBytes) {
			send(b)
			b = nil
		}
		if b == nil {
			b = &batch{group: g, target: k.Target}
			open[g] = b
		}
		b.parts, b.items, b.bytes = append(b.parts, p), b.items+len(entries), b.bytes+size
		if b.items >= maxItems {
			send(b)
		}
	})
	for _, b := range open {
		send(b)
	}
	workers.Wait()
	for _, l := range unread { // verify sees it too, if it is still so
		r.Log.Warn("listing broke off", "namespace", l.Namespace, "reason", l.Reason)
	}
}

// work rewraps a batch and writes its Secrets.
func (r *run) work(ctx context.Context, b *batch) {
	if r.isStopped(b.group) || ctx.Err() != nil {
		return
	}
	var items []transit.Item
	for _, p := range b.parts {
		items = append(items, p.items()...)
	}
	results, err := r.vault.Rewrap(ctx, b.group.key, items)
	if err != nil {
		r.batchFailed(b, err)
		return
	}
	var writes sync.WaitGroup
	for _, p := range b.parts {
		mine := results[:len(p.entries)]
		results = results[len(p.entries):]
		r.writing <- struct{}{}
		writes.Go(func() {
			defer func() { <-r.writing }()
			done, left := r.patch(ctx, p, b.target, mine)
			r.record(b.group.key, done, left)
		})
	}
	writes.Wait()
}

// batchFailed notes that a request failed for a reason that the next one would meet too:
// nothing is tried for the rest of the group.
func (r *run) batchFailed(b *batch, err error) {
	err = transit.WithUpdateHint(err, b.group.key, transit.OpRewrap)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped[b.group] = true
	r.keys[b.group.key].fail(err)
}

func (r *run) isStopped(g group) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopped[g]
}

// settle takes the outcome for one Secret into the report.
func (r *run) record(key ciphertext.Key, done []string, left []Left) {
	r.mu.Lock()
	k := r.keys[key]
	k.Rewrapped += len(done)
	r.done += len(done)
	for _, l := range left {
		r.remember(entryRef{l.Namespace, l.Name, l.Entry}, l.Reason)
	}
	p := Progress{Phase: "rewrap", Done: r.done, Total: max(r.done, r.pending)}
	r.mu.Unlock()
	r.progress(p)
}

// remember keeps the reason for verify to tell. Beyond what a report names it
// would only take memory. The caller holds r.mu.
func (r *run) remember(ref entryRef, reason string) {
	if len(r.reasons) < maxLeft {
		r.reasons[ref] = reason
	}
}

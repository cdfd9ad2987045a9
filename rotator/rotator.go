// Package rotator rotates transit keys and brings every ciphertext Secret of a
// cluster to the newest version, without ever seeing plaintext.
//
// A run has five steps. Plan lists the Secrets and counts entries by key and
// version. Rotate gives a key a new version if that is due. Rewrap lets Vault
// encrypt the entries below that version anew, in batches that span Secrets, and
// writes each Secret by compare-and-swap: a JSON Patch that tests the uid and
// every old value, so that a write of somebody else's is never undone. Verify
// lists again. Retire, if asked for, makes Vault refuse the old versions, and
// trim delete those that it has refused for long.
//
// What has still to be done is read from the ciphertext itself ("vault:v3:…"),
// so a run that was killed at any point loses nothing: old ciphertext opens
// until its version is retired, and the next run goes on where this one ended.
// Only what cannot be read there, since when older entries have been gone, is
// kept in the ConfigMap [StateName]. A Lease of the same name keeps two runs apart.
//
// The identity needs get, list and patch on Secrets, get, create and update on
// that ConfigMap, that Lease and on events; in Vault read on the key and update on its rotate and rewrap
// paths, for Retire also on its
// config, for Trim on that and on its trim path. It never needs decrypt.
package rotator

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/kuberetry"
	"github.com/secretmanager-io/secretmanager/transit"
)

// saveTimeout is how long a run that was told to stop may take for its summary.
const saveTimeout = 10 * time.Second

// retryKube is how long a request is repeated that the API server cannot answer for now:
// a restart of it should not end the night's run, an outage should.
const retryKube = time.Minute

// logEvery is how often the log says how far a run is.
const logEvery = 10 * time.Second

// run is one run.
type run struct {
	Options
	patcher
	pageSize int64 // Secrets of a page, at most; 0: the default
	lease    lease

	report *Report
	keys   map[ciphertext.Key]*KeyReport // those of the report
	state  *state

	inventory *inventory // the last one
	narrow    bool       // the last one was of a part of the cluster
	secrets   int        // number of Secrets found by plan
	pending   int        // entries to rewrap, as far as plan could see
	asking    map[keyVersion]bool
	oldest    map[ciphertext.Key]int // version that an entry had at any time of the run

	writing chan struct{} // has an element for each write under way

	mu      sync.Mutex // guards what follows, and the counts that workers add to
	done    int        // entries rewrapped
	reasons map[entryRef]string
	stopped map[group]bool

	telling sync.Mutex // one call of Progress at a time
	logged  time.Time  // when progress was logged last
}

// Run makes one run. The Report is there unless the run could not begin. An error
// that wraps [ErrIncomplete] says that the run went to its end and something is
// left, which the report names; without an error everything is at its target.
//
// Only one run at a time gets the Lease [StateName], a dry one does without: a
// second does no harm to any Secret, but could make one more version of a key than
// was wanted. While another has it the error wraps [ErrRunning]. The Lease of a run
// that died is taken over when it has run out, which takes up to two minutes.
//
// The requests to Vault carry the run id and the verb of [transit.WithAudit]; what
// the context does not have, Run adds. The log has the same run id.
func Run(ctx context.Context, vault *transit.Session, kube kubernetes.Interface, opts Options) (*Report, error) {
	if err := opts.complete(); err != nil {
		return nil, fmt.Errorf("options of the rotator: %w", err)
	}
	audit := transit.AuditFrom(ctx)
	audit.RunID, audit.Verb = cmp.Or(audit.RunID, rand.Text()), cmp.Or(audit.Verb, "rotator")
	opts.Log = opts.Log.With("run", audit.RunID)
	return newRun(vault, kube, opts).run(transit.WithAudit(ctx, audit))
}

func newRun(vault *transit.Session, kube kubernetes.Interface, opts Options) *run {
	return &run{
		Options: opts,
		patcher: patcher{vault: vault, kube: kube, retry: kuberetry.New(retryKube), includeManaged: opts.IncludeManaged},
		logged:  opts.Now(),
		lease:   lease{kube: kube, namespace: opts.StateNamespace, holder: newHolder(), duration: leaseDuration},
		report:  &Report{Started: opts.Now().UTC(), DryRun: opts.DryRun, Keys: []*KeyReport{}},
		keys:    map[ciphertext.Key]*KeyReport{}, asking: map[keyVersion]bool{}, oldest: map[ciphertext.Key]int{},
		reasons: map[entryRef]string{}, stopped: map[group]bool{}, writing: make(chan struct{}, opts.Concurrency),
	}
}

// run makes the run while it holds the Lease.
func (r *run) run(ctx context.Context) (*Report, error) {
	if r.DryRun {
		return r.alone(ctx)
	}
	holding, err := r.lease.acquire(ctx)
	if err != nil {
		return nil, err
	}
	report, err := r.alone(holding)
	releasing, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	if released := r.lease.release(releasing); released != nil {
		r.Log.Warn("the Lease is still held", "error", released)
	}
	return report, err
}

// alone is the run itself.
func (r *run) alone(ctx context.Context) (*Report, error) {
	if err := r.loadState(ctx); err != nil {
		return nil, err
	}
	if err := r.plan(ctx); err != nil {
		return nil, err
	}
	stopped := r.steps(ctx)
	errs := []error{stopped}
	r.report.Finished, r.report.Result = r.Now().UTC(), r.report.result(stopped)
	for _, k := range r.report.Keys {
		if k.Error != "" {
			r.Log.Error("failed", "key", k.key().String(), "error", k.Error)
		}
	}
	if !r.DryRun {
		// Also of a run that is told to stop, which is when it matters most.
		saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
		defer cancel()
		errs = append(errs, r.saveState(saving))
		r.tell(saving)
	}
	return r.report, errors.Join(append(errs, r.report.err())...)
}

// steps are those after plan.
func (r *run) steps(ctx context.Context) error {
	work := false
	for _, k := range r.report.Keys {
		if ctx.Err() != nil {
			break
		}
		r.rotate(ctx, k, r.inventory.of(k.key()))
		n := r.toDo(k)
		r.pending += n
		work = work || n > 0
	}
	r.observe() // what is rewrapped now was there until now
	if work && !r.DryRun && ctx.Err() == nil {
		r.rewrap(ctx)
	} else {
		for _, k := range r.report.Keys {
			if k.Target > 0 {
				k.Current = r.inventory.of(k.key()).entries() - r.toDo(k)
			}
		}
	}
	if ctx.Err() == nil {
		r.verify(ctx)
	}
	if (r.Retire || r.Trim) && ctx.Err() == nil {
		if r.narrowed() {
			r.refresh(ctx, "retire", r.everywhere(), false)
		}
		r.observe()
		r.retire(ctx, r.inventory)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("stopped before the end, which the next run will find as it is: %w", context.Cause(ctx))
	}
	return nil
}

// plan finds the keys, and how many entries each has at what version.
func (r *run) plan(ctx context.Context) error {
	r.refresh(ctx, "plan", r.asked(), r.narrowed())
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(r.Namespaces) == 0 && len(r.inventory.unread) > 0 {
		return fmt.Errorf("listing ciphertext Secrets in all namespaces: %s; or name the namespaces that take part",
			r.inventory.unread[0].Reason)
	}
	for _, name := range r.Keys {
		mounts := 0
		for k := range r.inventory.keys {
			if k.Name == name {
				mounts++
			}
		}
		if mounts == 0 {
			mount := r.Mount
			if mount == "" {
				mount = ciphertext.DefaultTransitMount
			}
			r.inventory.of(ciphertext.Key{Mount: mount, Name: name})
		}
	}
	for key := range r.inventory.keys {
		k := &KeyReport{Mount: key.Mount, Name: key.Name, PutBack: r.inventory.keys[key].PutBack}
		for _, l := range k.Back {
			r.Log.Warn("put back", "place", entryRef{l.Namespace, l.Name, l.Entry}.String(), "reason", l.Reason)
		}
		r.keys[key] = k
		r.report.Keys = append(r.report.Keys, k)
	}
	slices.SortFunc(r.report.Keys, func(a, b *KeyReport) int {
		return strings.Compare(a.key().String(), b.key().String())
	})
	r.secrets = r.inventory.seen
	r.Log.Info("plan", "secrets", r.inventory.seen, "keys", len(r.report.Keys), "malformed",
		r.inventory.unassigned.LeftCount)
	return nil
}

// toDo counts the entries that are below the target of the key, as last seen.
func (r *run) toDo(k *KeyReport) (n int) {
	for v, count := range r.inventory.of(k.key()).versions {
		if v < k.Target {
			n += count
		}
	}
	return n
}

// atTarget is whether the last look saw each entry of every key at its target.
func (r *run) atTarget() bool {
	for _, k := range r.report.Keys {
		for v := range r.inventory.of(k.key()).versions {
			if v != k.Target {
				return false
			}
		}
	}
	return true
}

// refresh takes the inventory that counts from now on.
func (r *run) refresh(ctx context.Context, phase string, a area, narrow bool) {
	r.inventory, r.narrow = r.takeInventory(ctx, phase, a), narrow
}

// verify lists again and puts what it finds into the report. If plan saw every
// entry at its target already, nothing was written and plan's look stands.
func (r *run) verify(ctx context.Context) {
	if !r.atTarget() {
		r.refresh(ctx, "verify", r.asked(), r.narrowed())
	}
	for _, l := range r.inventory.unread {
		r.report.leave(l)
	}
	for _, l := range r.inventory.unassigned.Left {
		r.report.leave(l)
	}
	r.report.LeftCount += r.inventory.unassigned.LeftCount - len(r.inventory.unassigned.Left)
	r.report.log(r.Log)
	for _, k := range r.report.Keys {
		t := r.inventory.of(k.key())
		k.Secrets, k.Versions, k.Pending, k.Remainder = t.secrets, t.versions, t.pending, t.left
		k.Oldest, k.Failed = t.oldest(0), t.left.LeftCount-t.passed
		r.Log.Info("verified", "key", k.key().String(), "target", k.Target, "secrets", k.Secrets,
			"rewrapped", k.Rewrapped, "current", k.Current, "left", k.LeftCount)
		k.log(r.Log)
	}
}

// progress tells how far the run has come.
func (r *run) progress(p Progress) {
	r.telling.Lock()
	defer r.telling.Unlock()
	if now := r.Now(); now.Sub(r.logged) >= logEvery {
		r.logged = now
		r.Log.Info("progress", "phase", p.Phase, "done", p.Done, "total", p.Total, "since",
			now.Sub(r.report.Started).Round(time.Second).String())
	}
	if r.Options.Progress != nil {
		r.Options.Progress(p)
	}
}

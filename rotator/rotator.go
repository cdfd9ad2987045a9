// Package rotator rotates transit keys and brings every ciphertext Secret of a
// cluster to its target version, without ever seeing plaintext. The target is the newest
// version that is old enough to be in the backups of Vault: see [transit.TargetVersion].
//
// A run has these phases. Plan lists the Secrets and counts entries by key and
// version. Rotate gives a key a new version if one is due. Rewrap has Vault
// encrypt the entries below that version again, in batches that span Secrets, and
// writes each Secret by compare-and-swap: a JSON Patch that tests the uid and
// every old value, and so never overwrites a concurrent change. Recount lists
// again, and verifies what is still below. Retire is optional: it searches all Secrets, and
// makes Vault refuse old versions that nothing needs. No run deletes them.
//
// A run finds its work in the ciphertext itself ("vault:v3:…"). So a run that is
// killed at any point loses nothing: old ciphertext decrypts until its version is
// retired, and the next run continues. The ConfigMaps [StateNames] keep only what
// the ciphertext does not have: since when no ciphertext needs an old version. A run saves
// there that old ciphertext came back before it overwrites it. A Lease prevents two runs at a
// time.
//
// The identity needs get, list and patch on Secrets; get and update on those
// ConfigMaps and that Lease; get, create and update on Events. In Vault it needs
// read on the key and update on its rotate and rewrap paths, and with Retire also on
// its config path. It never needs decrypt.
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
	"github.com/secretmanager-io/secretmanager/internal/batch"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/kuberetry"
	"github.com/secretmanager-io/secretmanager/transit"
)

// saveTimeout bounds how long a run that is stopped may take to write its summary.
const saveTimeout = 10 * time.Second

// retryKube bounds how long a run repeats a request that the API server cannot answer. A
// restart of the API server must not end a run; an outage must.
const retryKube = time.Minute

// logEvery is the interval of the progress messages in the log.
const logEvery = 10 * time.Second

// Vault is what a run needs of Vault. A [*transit.Session] implements it.
type Vault interface {
	transit.Rewrapper
	// Key returns the state of a key, or an error that wraps [transit.ErrNotFound].
	Key(ctx context.Context, key ciphertext.Key) (transit.KeyInfo, error)
	// ListKeys returns the names of the keys of a transit engine.
	ListKeys(ctx context.Context, mount string) ([]string, error)
	// Rotate adds a version to a key and returns its state.
	Rotate(ctx context.Context, key ciphertext.Key) (transit.KeyInfo, error)
	// SetMinDecryptionVersion retires the versions of a key below version. current is what
	// Key returned last.
	SetMinDecryptionVersion(ctx context.Context, key ciphertext.Key, current transit.KeyInfo, version int) error
	// Settle returns the settle time to use: see [transit.Session.Settle].
	Settle(ctx context.Context, configured time.Duration) time.Duration
}

// run is the state of one run.
type run struct {
	Options
	patcher
	pageSize int64 // maximum number of Secrets in a page; 0: the default
	lease    lease

	settle         time.Duration // resolved
	acknowledged   acknowledged
	rotateInterval time.Duration
	lagFor         time.Duration    // remaining
	vaultClock     func() time.Time // nil: the time of Vault's responses
	kubeClock      func() time.Time // nil: the time of the API server
	clockProblem   error            // why the time does not count

	rules    keyRules
	selected map[ciphertext.Key]*keyRule
	report   *Report
	all      []*keyRun // in the order of the report
	keys     map[ciphertext.Key]*keyRun
	state    *state
	gone     []string // entries of the state to remove
	// unfinished is where the next search for old ciphertext continues.
	unfinished   *savedSearch
	ownSearch    bool // whether the run continued the search of the state, or there was none
	searchBudget int  // 0: the default

	inventory *inventory // the last one
	secrets   int        // number of Secrets in the inventory of plan
	pending   int        // number of entries to rewrap in the inventory of plan
	queried   map[keyVersion]bool

	writeSlots chan struct{} // one element for each write in flight

	mu            sync.Mutex // guards the following fields, and the reports of keys during rewrap
	done          int        // entries rewrapped
	reasons       map[Location]string
	failedGroups  map[batch.Group]bool
	postponed     []rewrapped // until the state is saved
	postponedSize int         // in bytes
	outages       int         // requests in a row to which Vault did not respond
	vaultDown     error       // ends the requests to Vault

	saveMu sync.Mutex // serializes writes of the state during rewrap

	progressMu sync.Mutex // serializes calls of Progress
	lastLogged time.Time  // when progress was last logged
}

// keyRun is a key in a run.
type keyRun struct {
	*KeyReport
	rule       *keyRule // that selects the key
	facts      facts
	unverified bool // whether some entries below the target could not be verified
}

// Run makes one run. It returns a Report unless the run could not begin. Without an
// error everything is at its target version. An error that wraps [ErrIncomplete]
// means that all phases ran and the report names unresolved entries.
//
// Only one run at a time holds the Lease [StateName]: two would damage no Secret, but
// could create two versions of a key. If another run holds it, the error wraps
// [ErrRunning]. A dry run takes no Lease. The Lease of a run that died expires after
// two minutes, and Run waits for that.
//
// The requests to Vault have the run id and the verb of [transit.WithAudit]. Run adds
// those that the context does not have. The log has the same run id.
func Run(ctx context.Context, vault Vault, kube kubernetes.Interface, opts Options) (*Report, error) {
	clock := opts.Now
	if err := opts.complete(); err != nil {
		return nil, err
	}
	audit := transit.AuditFrom(ctx)
	audit.RunID, audit.Verb = cmp.Or(audit.RunID, rand.Text()), cmp.Or(audit.Verb, "rotator")
	opts.Log = opts.Log.With("run", audit.RunID)
	r := newRun(vault, kube, opts)
	r.vaultClock, r.kubeClock = clock, clock
	return r.run(transit.WithAudit(ctx, audit))
}

func newRun(vault Vault, kube kubernetes.Interface, opts Options) *run {
	acknowledged, _ := parseAcknowledge(opts.Acknowledge) // complete has reported the errors
	rules, _ := parseKeyRules(opts.Keys, opts.Mount)
	r := &run{
		acknowledged: acknowledged, rules: rules, selected: map[ciphertext.Key]*keyRule{},
		Options:    opts,
		patcher:    patcher{vault: vault, kube: kube, retry: kuberetry.New(retryKube), includeManaged: opts.IncludeManaged},
		lastLogged: opts.Now(), rotateInterval: rotateInterval, lagFor: lagFor,
		lease: lease{kube: kube, namespace: opts.StateNamespace, holder: newHolder(), duration: leaseDuration,
			waiting: opts.Waiting},
		report: &Report{Started: opts.Now().UTC(), DryRun: opts.DryRun, Keys: []*KeyReport{}},
		keys:   map[ciphertext.Key]*keyRun{}, queried: map[keyVersion]bool{},
		reasons:      map[Location]string{},
		failedGroups: map[batch.Group]bool{}, writeSlots: make(chan struct{}, opts.Concurrency),
	}
	r.patcher.saw = r.saw
	return r
}

// run takes the Lease, unless it is a dry run, and executes the run.
func (r *run) run(ctx context.Context) (*Report, error) {
	if r.DryRun {
		return r.execute(ctx)
	}
	holding, err := r.lease.acquire(ctx)
	if err != nil {
		return nil, err
	}
	report, err := r.execute(holding)
	releasing, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	if err := r.lease.release(releasing); err != nil {
		r.Log.Warn("the Lease is still held", "error", err)
	}
	return report, err
}

// execute is the run without the Lease.
func (r *run) execute(ctx context.Context) (*Report, error) {
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	stopped := r.runPhases(ctx)
	errs := []error{stopped}
	r.report.Finished, r.report.Result = r.Now().UTC(), r.report.result(stopped)
	for _, k := range r.all {
		if k.Error != "" {
			r.Log.Error("failed", "key", k.key().String(), "error", k.Error)
		}
	}
	if !r.DryRun {
		// A run that is stopped needs its summary most.
		saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
		defer cancel()
		errs = append(errs, r.saveState(saving))
		r.recordEvents(saving)
	}
	return r.report, errors.Join(append(errs, r.report.err())...)
}

// prepare reads the state, resolves the settle time and plans, at the same time: all of them only read. An error
// of the state comes first, because it names what is not installed.
func (r *run) prepare(ctx context.Context) error {
	planning, cancel := context.WithCancel(ctx)
	defer cancel()
	planned := make(chan error, 1)
	go func() { planned <- r.plan(planning) }()
	err := r.loadState(ctx)
	if err != nil {
		cancel()
		<-planned
		return err
	}
	r.settle = r.vault.Settle(ctx, r.Settle)
	return <-planned
}

// runPhases executes the phases after plan.
func (r *run) runPhases(ctx context.Context) error {
	work := false
	for _, k := range r.all {
		if ctx.Err() != nil {
			break
		}
		r.rotate(ctx, k)
		if k.Unsettled != nil {
			r.Log.Warn("unsettled: take a snapshot of Vault", "key", k.key().String(), "target", k.Target, "until",
				k.Unsettled.UTC().Format(time.RFC3339))
		}
		n := r.inventory.count(k.key()).below(k.Target)
		r.pending += n
		work = work || n > 0
	}
	if work && !r.DryRun && ctx.Err() == nil {
		r.rewrap(ctx)
	} else {
		for _, k := range r.all {
			if k.Target > 0 {
				c := r.inventory.count(k.key())
				k.Current = c.entries() - c.below(k.Target)
			}
		}
	}
	if ctx.Err() == nil {
		r.recount(ctx)
	}
	if ctx.Err() == nil {
		r.observe(ctx)
	}
	if r.Retire && ctx.Err() == nil {
		r.retire(ctx)
	}
	if r.Scheduled && !r.DryRun && ctx.Err() == nil {
		r.gone = r.findGone(ctx)
	}
	if ctx.Err() != nil {
		return failure.Stopped.Wrap(fmt.Errorf("stopped early, and the next run continues: %w", context.Cause(ctx)))
	}
	return nil
}

// selectKeys finds the keys that the options select.
func (r *run) selectKeys(ctx context.Context) error {
	lists := map[string][]string{}
	for i := range r.rules {
		rule := &r.rules[i]
		if !rule.isPattern() {
			r.selected[ciphertext.Key{Mount: rule.mount, Name: rule.name}] = rule
			continue
		}
		names, listed := lists[rule.mount]
		if !listed {
			var err error
			if names, err = r.vault.ListKeys(ctx, rule.mount); err != nil {
				return withReason(transit.WithHint(err, "the pattern "+rule.name+" needs list on "+rule.mount+"/keys"),
					failure.VaultError)
			}
			lists[rule.mount] = names
		}
		for _, name := range names {
			key := ciphertext.Key{Mount: rule.mount, Name: name}
			if r.selected[key] == nil && r.rules.find(key) == rule {
				r.selected[key] = rule
			}
		}
	}
	return nil
}

// plan finds the keys, and counts their entries by version.
func (r *run) plan(ctx context.Context) error {
	if err := r.selectKeys(ctx); err != nil {
		return err
	}
	r.refresh(ctx, "plan", nil)
	if ctx.Err() != nil {
		return failure.Stopped.Wrap(context.Cause(ctx))
	}
	if len(r.Namespaces) == 0 && len(r.inventory.unlisted) > 0 {
		_, cause, _ := strings.Cut(r.inventory.unlisted[0].Reason, ": ")
		return failure.SecretsNotListed.Wrap(fmt.Errorf("listing ciphertext Secrets in all namespaces: %s; "+
			"or name the namespaces to list", cause))
	}
	for key, rule := range r.selected {
		c := r.inventory.count(key)
		k := &keyRun{KeyReport: &KeyReport{Mount: key.Mount, Name: key.Name, Reverted: c.reverted}, rule: rule}
		k.Reverted.log(r.Log, "reverted")
		r.keys[key] = k
		r.all = append(r.all, k)
	}
	slices.SortFunc(r.all, func(a, b *keyRun) int { return strings.Compare(a.key().String(), b.key().String()) })
	for _, k := range r.all {
		r.report.Keys = append(r.report.Keys, k.KeyReport)
	}
	r.secrets = r.inventory.secrets
	r.Log.Info("plan", "secrets", r.secrets, "keys", len(r.report.Keys), "malformed",
		r.inventory.unassigned.Count, "notSelected", r.inventory.notSelected.Count)
	return nil
}

// atTarget reports whether every entry in the inventory is at its target.
func (r *run) atTarget() bool {
	for _, k := range r.all {
		for v := range r.inventory.count(k.key()).versions {
			if v < k.Target || v > k.After {
				return false
			}
		}
	}
	return true
}

// refresh replaces the inventory. What is below the target is verified if rest is not nil.
func (r *run) refresh(ctx context.Context, phase string, rest *remainder) {
	r.inventory = r.takeInventory(ctx, phase, r.selectedArea(), rest)
}

// recount takes another inventory and adds it to the report. If every entry was at its
// target in that of plan, nothing was written and that one is still valid.
func (r *run) recount(ctx context.Context) {
	if !r.atTarget() {
		r.refresh(ctx, "recount", r.newRemainder())
	}
	unassigned := &r.report.Unassigned
	for _, p := range slices.Concat(r.inventory.unlisted, r.inventory.unassigned.Items) {
		unassigned.add(p)
	}
	unassigned.Count += r.inventory.unassigned.Count - len(r.inventory.unassigned.Items)
	unassigned.log(r.Log, "unassigned")
	r.report.NotSelected = r.inventory.notSelected
	few := r.report.NotSelected.stored(10)
	few.log(r.Log, "not selected")
	for _, k := range r.all {
		c := r.inventory.count(k.key())
		k.Secrets, k.Versions, k.Pending, k.Unresolved = c.secrets, c.versions, c.pending, c.unresolved
		k.Oldest, k.Failed, k.NotCovered = c.oldest(), c.unresolved.Count-c.skipped, c.above(k.Target)-c.above(k.After)
		r.Log.Info("counted", "key", k.key().String(), "target", k.Target, "secrets", k.Secrets,
			"rewrapped", k.Rewrapped, "current", k.Current, "failed", k.Failed, "skipped", c.skipped)
		k.Unresolved.log(r.Log, "unresolved")
		if k.NotCovered > 0 {
			r.Log.Warn("entries are newer than the target, which older backups of Vault do not have: what wrote them uses "+
				"another settle time", "key", k.key().String(), "entries", k.NotCovered, "target", k.Target)
		}
	}
}

// progress reports the progress to the caller and, from time to time, to the log.
func (r *run) progress(p Progress) {
	r.progressMu.Lock()
	defer r.progressMu.Unlock()
	if now := r.Now(); now.Sub(r.lastLogged) >= logEvery {
		r.lastLogged = now
		r.Log.Info("progress", "phase", p.Phase, "done", p.Done, "total", p.Total, "since",
			now.Sub(r.report.Started).Round(time.Second).String())
	}
	if r.Options.Progress != nil {
		r.Options.Progress(p)
	}
}

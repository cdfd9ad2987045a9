package rotator

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/secretpatch"
	"github.com/secretmanager-io/secretmanager/transit"
)

// StateName is the name of the ConfigMap that has the report of the last scheduled run, without its
// keys, and of the last other run. The Lease of the rotator has the same name. See [StateNames].
const StateName = "secretmanager-rotation"

// keyShards is the number of ConfigMaps for the keys. Thousands of keys do not fit into one.
const keyShards = 4

const (
	runEntry    = "run"
	searchEntry = "search" // where a search for old ciphertext continues
	// reportSuffix ends the name of a key's report; see [stateEntry].
	reportSuffix = "_report"
	// forgetUnselected is the time after which the state forgets a key that no run selects.
	forgetUnselected = 90 * 24 * time.Hour
	// unknownKeysPerRun bounds how many keys of the state a run looks up in Vault.
	unknownKeysPerRun = 100
)

// StateNames are the names of the ConfigMaps of the state: [StateName], and four which share the
// keys by a hash. Of each key they have the evidence that retirement needs, and the report of
// the last scheduled run that processed it.
func StateNames() []string {
	names := []string{StateName}
	for i := range keyShards {
		names = append(names, shardName(i))
	}
	return names
}

func shardName(i int) string { return fmt.Sprintf("%s-%d", StateName, i) }

// shardOf returns the index of the ConfigMap that has an entry.
func shardOf(entry string) int {
	h := fnv.New32a()
	h.Write([]byte(entry)) // never fails
	return int(h.Sum32() % keyShards)
}

// runState is the JSON text about the last scheduled run.
type runState struct {
	*Report
	// LastDone is when the last run with [ResultDone] ended; nil if none is known.
	LastDone *time.Time `json:"lastDone,omitempty"`
}

// keyState is the JSON text of the report of a key.
type keyState struct {
	*KeyReport           // of the last scheduled run that processed the key
	Finished   time.Time `json:"finished"`
}

// state has the ConfigMaps as they were last read or written.
type state struct {
	run      *corev1.ConfigMap
	shards   [keyShards]*corev1.ConfigMap
	lastDone *time.Time
}

// evidence returns what is known about a key.
func (s *state) evidence(k ciphertext.Key) evidence {
	entry := stateEntry(k)
	e, _ := parseEvidence(s.shards[shardOf(entry)].Data[entry]) // loadState has reported the error
	return e
}

// ErrNotInstalled is wrapped by the error of [Run] when a ConfigMap of the state or the Lease
// is missing. The run then changes nothing. The chart and manifests/rotator have them. A run
// does not create them, because RBAC cannot limit create by name: its identity could create
// any ConfigMap and any Lease of the namespace.
var ErrNotInstalled = errors.New("the rotator is not installed in this namespace")

// stateError returns the error of an action on a ConfigMap or the Lease.
func stateError(action, namespace, name string, err error) error {
	if apierrors.IsNotFound(err) {
		return failure.NotInstalled.Wrap(fmt.Errorf("%s %s/%s: %w: install the chart or manifests/rotator, or name another "+
			"namespace with --state-namespace (%w)",
			action, namespace, name, ErrNotInstalled, err))
	}
	return failure.StateUnavailable.Wrap(fmt.Errorf("%s %s/%s: %w: check that this identity may get and update it",
		action, namespace, name, err))
}

// loadState reads the ConfigMaps. It comes before anything changes, so that a missing namespace or
// permission is reported first.
func (r *run) loadState(ctx context.Context) error {
	r.state = &state{}
	reads, reading := errgroup.WithContext(ctx)
	reads.Go(func() (err error) {
		r.state.run, err = r.readState(reading, StateName)
		return err
	})
	for i := range r.state.shards {
		reads.Go(func() (err error) {
			r.state.shards[i], err = r.readState(reading, shardName(i))
			return err
		})
	}
	if err := reads.Wait(); err != nil {
		return err
	}
	var last runState
	if err := json.Unmarshal([]byte(r.state.run.Data[runEntry]), &last); err == nil { // otherwise there is nothing to keep
		r.state.lastDone = last.LastDone
	}
	for i, shard := range r.state.shards {
		for entry, text := range shard.Data {
			if strings.HasSuffix(entry, reportSuffix) {
				continue
			}
			// Without its evidence a key is only retired later.
			if _, err := parseEvidence(text); err != nil {
				r.Log.Warn("the state has an entry that the rotator did not write, which is skipped", "configmap",
					r.StateNamespace+"/"+shardName(i), "entry", entry)
			}
		}
	}
	return nil
}

func (r *run) readState(ctx context.Context, name string) (m *corev1.ConfigMap, err error) {
	err = r.retry.Read(ctx, func() error {
		m, err = r.kube.CoreV1().ConfigMaps(r.StateNamespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	if r.DryRun && (apierrors.IsForbidden(err) || apierrors.IsNotFound(err)) {
		r.noteUnread(name, err)
		return &corev1.ConfigMap{}, nil
	}
	if err != nil {
		return nil, stateError("reading the state in ConfigMap", r.StateNamespace, name, err)
	}
	return m, nil
}

// noteUnread reports that a dry run continues without the state: a user who asks what a run would do may have fewer
// rights, or no rotator.
func (r *run) noteUnread(name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.report.StateUnread == "" {
		r.report.StateUnread = fmt.Sprintf("ConfigMap %s/%s: %s", r.StateNamespace, name, err)
		r.Log.Warn("the state cannot be read", "configmap", r.StateNamespace+"/"+name, "error", err)
	}
}

// update changes a ConfigMap of the state. After a conflict it reads the ConfigMap again, and
// repeats the change.
func (r *run) update(ctx context.Context, m **corev1.ConfigMap, change func(data map[string]string) error) error {
	for try := 1; ; try++ {
		desired := (*m).DeepCopy()
		if desired.Data == nil {
			desired.Data = map[string]string{}
		}
		if err := change(desired.Data); err != nil {
			return err
		}
		if maps.Equal(desired.Data, (*m).Data) {
			return nil
		}
		// If only the response was lost, the next attempt is a conflict.
		err := r.retry.Write(ctx, func() error {
			updated, err := r.kube.CoreV1().ConfigMaps(r.StateNamespace).Update(ctx, desired, metav1.UpdateOptions{})
			if err == nil {
				r.mu.Lock()
				*m = updated
				r.mu.Unlock()
			}
			return err
		})
		if err == nil {
			return nil
		}
		if apierrors.IsConflict(err) && try < secretpatch.MaxAttempts {
			current, readErr := r.readState(ctx, desired.Name)
			if readErr == nil {
				r.mu.Lock()
				*m = current
				r.mu.Unlock()
				continue
			}
			err = readErr
		}
		return stateError("writing the state to ConfigMap", r.StateNamespace, desired.Name, err)
	}
}

// saveEvidence adds the facts of keys to the state. It writes only what changes.
func (r *run) saveEvidence(ctx context.Context, keys []*keyRun) error {
	for i, keys := range byShard(keys) {
		if len(keys) == 0 {
			continue
		}
		err := r.update(ctx, &r.state.shards[i], func(data map[string]string) error {
			r.addFacts(data, keys)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func byShard(keys []*keyRun) (shards [keyShards][]*keyRun) {
	for _, k := range keys {
		i := shardOf(stateEntry(k.key()))
		shards[i] = append(shards[i], k)
	}
	return shards
}

// addFacts replaces the evidence of keys in the data of a ConfigMap.
func (r *run) addFacts(data map[string]string, keys []*keyRun) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range keys {
		entry := stateEntry(k.key())
		known, _ := parseEvidence(data[entry])
		if text := known.add(k.facts, r.limits()).String(); text != "" {
			data[entry] = text
		}
	}
}

func (r *run) limits() limits { return limits{retireAfter: r.RetireAfter, maxGap: r.MaxGap} }

// saveState writes the evidence of all keys. A scheduled run also writes their reports and then its own, which alerts
// read; another run only writes what it was.
func (r *run) saveState(ctx context.Context) error {
	if !r.Scheduled {
		return errors.Join(r.saveEvidence(ctx, r.all), r.update(ctx, &r.state.run, func(data map[string]string) error {
			return errors.Join(r.updateSearch(data), setJSON(data, manualEntry, r.manualRun()))
		}))
	}
	shards := byShard(r.all)
	errs := make([]error, keyShards+1)
	var writes sync.WaitGroup
	for i, keys := range shards {
		writes.Go(func() {
			errs[i] = r.update(ctx, &r.state.shards[i], func(data map[string]string) error {
				for _, entry := range r.gone {
					delete(data, entry)
					delete(data, entry+reportSuffix)
				}
				r.addFacts(data, keys)
				return addReports(data, keys, r.report.Finished)
			})
		})
	}
	writes.Wait()
	errs[keyShards] = r.update(ctx, &r.state.run, func(data map[string]string) error {
		last := *r.report
		last.Keys = nil
		last.Unassigned, last.NotSelected = last.Unassigned.stored(10), last.NotSelected.stored(10)
		last.Undecryptable, last.OlderReleases = last.Undecryptable.stored(10), last.OlderReleases.stored(10)
		lastDone := r.state.lastDone
		if last.Result == ResultDone {
			lastDone = &last.Finished
		}
		return errors.Join(r.updateSearch(data), setJSON(data, runEntry, runState{&last, lastDone}))
	})
	return errors.Join(errs...)
}

// findGone returns the entries of keys that no longer exist, that no run has selected for a
// long time, or that no run selects and that could not be read when one did: their name was wrong.
func (r *run) findGone(ctx context.Context) (gone []string) {
	selected := map[string]bool{}
	for _, k := range r.all {
		selected[stateEntry(k.key())] = true
	}
	lookups := 0
	for _, m := range r.state.shards {
		for _, entry := range slices.Sorted(maps.Keys(m.Data)) {
			entry, isReport := strings.CutSuffix(entry, reportSuffix)
			if !isReport || selected[entry] {
				continue
			}
			stored := keyState{KeyReport: &KeyReport{}}
			if err := json.Unmarshal([]byte(m.Data[entry+reportSuffix]), &stored); err != nil ||
				entry != stateEntry(stored.key()) {
				gone = append(gone, entry)
				continue
			}
			if stored.Before == 0 && r.rules.find(stored.key()) == nil ||
				r.report.Finished.Sub(stored.Finished) > forgetUnselected {
				gone = append(gone, entry)
				continue
			}
			if lookups++; lookups > unknownKeysPerRun || r.rules.find(stored.key()) == nil {
				continue
			}
			if _, err := r.readKey(ctx, stored.key()); errors.Is(err, transit.ErrNotFound) {
				gone = append(gone, entry)
			}
		}
	}
	return gone
}

// stateEntry returns the name of a transit key's entry in a ConfigMap, for example
// "transit__app". It has only letters, digits, "-", "_" and ".", and is unique. Because "_" is
// followed by another "_" or by two hexadecimal digits, none ends with [reportSuffix].
func stateEntry(k ciphertext.Key) string {
	var b strings.Builder
	for _, c := range []byte(k.Mount + "/" + k.Name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.':
			b.WriteByte(c)
		case c == '/':
			b.WriteString("__")
		default:
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	if b.Len() > 253-len(reportSuffix) {
		return fmt.Sprintf("sha256__%x", sha256.Sum256([]byte(k.Mount+"/"+k.Name)))
	}
	return b.String()
}

package rotator

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/secretpatch"
)

// StateName is the name of the ConfigMap that has the summary of the last run and the
// history that retirement needs. It has one JSON text for each transit key, and one about
// the run under "run". The Lease of the rotator has the same name.
const StateName = "secretmanager-rotation"

const (
	runEntry = "run" // not the entry of any transit key: those contain "__"
	// maxStoredProblems bounds how many problems of a key the summary names. A
	// ConfigMap can have 1 MiB.
	maxStoredProblems = 10
	// maxStoredVersions bounds the history of a key whose versions are never retired.
	maxStoredVersions = 500
)

// versionTimes maps versions of a key to times. It has a time for each version because a
// key may be rotated more often than versions are retired.
type versionTimes map[int]time.Time

// observeOldest updates times since when no entry is below a version. oldest is the oldest
// version in an inventory. Only a complete inventory shows that no entry is below a
// version; any inventory can show the contrary.
func (g versionTimes) observeOldest(k *KeyReport, oldest int, complete bool, now time.Time) {
	first := max(k.MinDecryption, 1, k.Target-maxStoredVersions) + 1
	for v := range g {
		if v > oldest || v > k.Target || v < first {
			delete(g, v)
		}
	}
	if !complete {
		return
	}
	for v := first; v <= min(oldest, k.Target); v++ {
		if _, ok := g[v]; !ok {
			g[v] = now
		}
	}
}

// ready returns the highest version up to the target with a time no later than before,
// or 0 if there is none.
func (g versionTimes) ready(target int, before time.Time) (version int) {
	for v, since := range g {
		if v <= target && v > version && !since.After(before) {
			version = v
		}
	}
	return version
}

// keyState is the JSON text of a transit key.
type keyState struct {
	*KeyReport           // of the last run that processed the key
	Finished   time.Time `json:"finished"`
	keyHistory
}

// runState is the JSON text about the last run.
type runState struct {
	*Report
	// LastDone is when the last run with [ResultDone] ended; nil if none is known.
	LastDone *time.Time `json:"lastDone,omitempty"`
}

// keyHistory has what neither the ciphertext nor Vault can tell about a key.
type keyHistory struct {
	CleanSince versionTimes `json:"cleanSince"` // since when no entry is below a version
	// Newest is the newest version that a run has seen; nil if none has.
	Newest *newestVersion `json:"newest,omitempty"`
}

// state is the ConfigMap as it was read.
type state struct {
	stored   *corev1.ConfigMap
	lastDone *time.Time
	keys     map[ciphertext.Key]*keyHistory
}

// history returns the history of a key. It is empty for a new key.
func (s *state) history(k ciphertext.Key) *keyHistory {
	h, ok := s.keys[k]
	if !ok {
		h = &keyHistory{CleanSince: versionTimes{}}
		s.keys[k] = h
	}
	return h
}

// ErrNotInstalled is wrapped by the error of [Run] when the ConfigMap or the Lease
// [StateName] is missing. The run then changes nothing. The chart and manifests/rotator
// have both. A run does not create them, because RBAC cannot limit create by name: its
// identity could create any ConfigMap and any Lease of the namespace.
var ErrNotInstalled = errors.New("the rotator is not installed in this namespace")

// stateError returns the error of an action on the ConfigMap or the Lease.
func stateError(action, namespace string, err error) error {
	if apierrors.IsNotFound(err) {
		return failure.NotInstalled.Wrap(fmt.Errorf("%s %s/%s: %w: install the chart or manifests/rotator, or name another "+
			"namespace with --state-namespace (%w)",
			action, namespace, StateName, ErrNotInstalled, err))
	}
	return failure.StateUnavailable.Wrap(fmt.Errorf("%s %s/%s: %w: check that this identity may get and update it",
		action, namespace, StateName, err))
}

// loadState reads the ConfigMap. It comes first, so that a missing namespace or permission
// is reported before anything changes.
func (r *run) loadState(ctx context.Context) error {
	stored, err := r.kube.CoreV1().ConfigMaps(r.StateNamespace).Get(ctx, StateName, metav1.GetOptions{})
	if err != nil {
		return stateError("reading the state in ConfigMap", r.StateNamespace, err)
	}
	r.state = &state{stored: stored, keys: map[ciphertext.Key]*keyHistory{}}
	for entry, text := range stored.Data {
		if entry == runEntry {
			var last runState
			if err := json.Unmarshal([]byte(text), &last); err == nil { // otherwise there is nothing to keep
				r.state.lastDone = last.LastDone
			}
			continue
		}
		var k struct {
			Mount, Name string
			keyHistory
		}
		if err := json.Unmarshal([]byte(text), &k); err != nil ||
			entry != stateEntry(ciphertext.Key{Mount: k.Mount, Name: k.Name}) {
			// Without its history a key is only retired later.
			r.Log.Warn("the state has a key that the rotator did not write, which is skipped", "configmap",
				r.StateNamespace+"/"+StateName, "key", entry)
			continue
		}
		key := ciphertext.Key{Mount: k.Mount, Name: k.Name}
		history := r.state.history(key)
		history.Newest = k.Newest
		if _, ok := r.acknowledged[key]; ok {
			continue // the waiting times are those of another key
		}
		maps.Copy(history.CleanSince, k.CleanSince)
	}
	return nil
}

// saveState writes the summary. After a conflict it reads the ConfigMap again and merges.
func (r *run) saveState(ctx context.Context) error {
	for try := 1; ; try++ {
		stored := r.state.stored.DeepCopy()
		if stored.Data == nil {
			stored.Data = map[string]string{}
		}
		last := *r.report
		last.Keys, last.Unassigned = nil, r.report.Unassigned.head(maxStoredProblems)
		lastDone := r.state.lastDone
		if last.Result == ResultDone {
			lastDone = &last.Finished
		}
		if err := setJSON(stored, runEntry, runState{&last, lastDone}); err != nil {
			return err
		}
		r.observe()
		for _, k := range r.report.Keys {
			key := *k
			key.Unresolved, key.Reverted = k.Unresolved.head(maxStoredProblems), k.Reverted.head(maxStoredProblems)
			if k.Retire != nil {
				retire := *k.Retire
				retire.WouldBreak = retire.WouldBreak[:min(len(retire.WouldBreak), maxStoredProblems)]
				key.Retire = &retire
			}
			history := r.state.history(k.key())
			if newest := r.newest[k.key()]; newest != nil {
				history.Newest = newest
			}
			value := keyState{&key, r.report.Finished, *history}
			if err := setJSON(stored, stateEntry(k.key()), value); err != nil {
				return err
			}
		}
		// If only the response was lost, the next attempt is a conflict.
		err := r.retry.Write(ctx, func() error {
			_, err := r.kube.CoreV1().ConfigMaps(r.StateNamespace).Update(ctx, stored, metav1.UpdateOptions{})
			return err
		})
		if err == nil {
			return nil
		}
		if apierrors.IsConflict(err) && try < secretpatch.MaxAttempts {
			if err = r.loadState(ctx); err == nil {
				continue
			}
		}
		return stateError("writing the summary to ConfigMap", r.StateNamespace, err)
	}
}

// observe updates the state from the last inventory.
func (r *run) observe() {
	if r.inventory == nil {
		return
	}
	complete := !r.inventoryPartial && len(r.inventory.unlisted) == 0 && r.inventory.unassigned.Count == 0
	for _, k := range r.report.Keys {
		if k.Target == 0 {
			continue
		}
		key, oldest, now := k.key(), r.inventory.count(k.key()).oldest(k.Target), r.Now().UTC()
		if known, ok := r.oldest[key]; !ok || oldest < known {
			r.oldest[key] = oldest
		}
		// Entries that this run rewrapped were old before, and the state may have been
		// read again since.
		clean := r.state.history(key).CleanSince
		clean.observeOldest(k, r.oldest[key], false, now)
		clean.observeOldest(k, oldest, complete, now)
	}
}

func setJSON(m *corev1.ConfigMap, entry string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the summary: %w", err)
	}
	m.Data[entry] = string(text)
	return nil
}

// stateEntry returns the name of a transit key's entry in the ConfigMap, for example
// "transit__app". It has only letters, digits, "-", "_" and ".", and is unique.
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
	if b.Len() > 253 {
		return fmt.Sprintf("sha256__%x", sha256.Sum256([]byte(k.Mount+"/"+k.Name)))
	}
	return b.String()
}

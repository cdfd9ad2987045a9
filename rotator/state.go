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
	"github.com/secretmanager-io/secretmanager/internal/secretpatch"
	"github.com/secretmanager-io/secretmanager/transit"
)

// StateName is the name of the ConfigMap in which runs leave a summary and keep
// what retirement needs to know. It has one JSON text per key, and one about the
// run as a whole under "run".
const StateName = "secretmanager-rotation"

const (
	runEntry = "run" // no key has an entry of that name: they have a "__"
	// maxLeftKept bounds what a summary names, as a ConfigMap holds 1 MiB.
	maxLeftKept = 10
	// maxVersionsKept bounds what is kept of a key that nobody ever retires.
	maxVersionsKept = 500
)

// cleanSince has, for a version of a key, since when no entry below it was seen
// anywhere. It is per version because a key may be rotated more often than
// versions are retired: what was clean a week ago counts, whatever came since.
type cleanSince map[int]time.Time

// observe takes in what a look at the entries found: the oldest version among
// them. Only a look at the whole cluster can tell that something is clean; any
// look can tell that it is back.
func (g cleanSince) observe(k *KeyReport, oldest int, whole bool, now time.Time) {
	first := max(k.MinDecryption, 1, k.Target-maxVersionsKept) + 1
	for v := range g {
		if v > oldest || v > k.Target || v < first {
			delete(g, v)
		}
	}
	if !whole {
		return
	}
	for v := first; v <= min(oldest, k.Target); v++ {
		if _, ok := g[v]; !ok {
			g[v] = now
		}
	}
}

// ready returns the highest version, no higher than the target, below which
// nothing was seen since before; 0 for none.
func (g cleanSince) ready(target int, before time.Time) (version int) {
	for v, since := range g {
		if v <= target && v > version && !since.After(before) {
			version = v
		}
	}
	return version
}

// observeRefused takes in below which version Vault refuses to decrypt, for a map
// that has since when it does.
func (g cleanSince) observeRefused(info transit.KeyInfo, now time.Time) {
	first := max(info.MinAvailableVersion, 1, info.MinDecryptionVersion-maxVersionsKept) + 1
	for v := range g {
		if v < first || v > info.MinDecryptionVersion {
			delete(g, v)
		}
	}
	for v := first; v <= info.MinDecryptionVersion; v++ {
		if _, ok := g[v]; !ok {
			g[v] = now
		}
	}
}

// keyState is what the ConfigMap holds of a key.
type keyState struct {
	*KeyReport           // of the last run that looked at it
	Finished   time.Time `json:"finished"`
	history
}

// runState is what the ConfigMap holds of the last run as a whole.
type runState struct {
	*Report
	// LastDone is when the last run ended whose result was [ResultDone]; nil
	// if none is known.
	LastDone *time.Time `json:"lastDone,omitempty"`
}

// history is what is known of a key only because it was seen and noted.
type history struct {
	CleanSince cleanSince `json:"noneBelowSince"`
	Refused    cleanSince `json:"refusedBelowSince"`
}

// state is the ConfigMap as it was read, and what is known of each key.
type state struct {
	stored   *corev1.ConfigMap
	lastDone *time.Time
	keys     map[ciphertext.Key]history
}

// of returns what is known of a key, which may be nothing yet.
func (s *state) of(k ciphertext.Key) history {
	m, ok := s.keys[k]
	if !ok {
		m = history{CleanSince: cleanSince{}, Refused: cleanSince{}}
		s.keys[k] = m
	}
	return m
}

// ErrNotInstalled is wrapped by the error of [Run] when the ConfigMap or the Lease
// [StateName] is missing: nothing was done. The chart and manifests/rotator have both.
// A run does not create them: they would not be part of the installation, and an
// identity that may create them may create any ConfigMap and any Lease beside them.
var ErrNotInstalled = errors.New("the rotator is not installed in this namespace")

// stateError is the error about the ConfigMap or the Lease of a namespace.
func stateError(doing, namespace string, err error) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%s %s/%s: %w: install the chart or manifests/rotator, which have it, or name another "+
			"namespace with --state-namespace (%w)",
			doing, namespace, StateName, ErrNotInstalled, err)
	}
	return fmt.Errorf("%s %s/%s: %w: check that this identity may get and update it", doing, namespace, StateName, err)
}

// loadState reads the ConfigMap before anything is done, so that a namespace or a
// right that is missing shows first.
func (r *run) loadState(ctx context.Context) error {
	stored, err := r.kube.CoreV1().ConfigMaps(r.StateNamespace).Get(ctx, StateName, metav1.GetOptions{})
	if err != nil {
		return stateError("reading the state in ConfigMap", r.StateNamespace, err)
	}
	r.state = &state{stored: stored, keys: map[ciphertext.Key]history{}}
	for entry, text := range stored.Data {
		if entry == runEntry {
			var last runState
			if err := json.Unmarshal([]byte(text), &last); err == nil { // else it is only for people to look at
				r.state.lastDone = last.LastDone
			}
			continue
		}
		var k struct {
			Mount, Name string
			history
		}
		if err := json.Unmarshal([]byte(text), &k); err != nil ||
			entry != stateEntry(ciphertext.Key{Mount: k.Mount, Name: k.Name}) {
			// To know nothing is safe: it only makes retirement wait longer.
			r.Log.Warn("an entry of the state is not one of the rotator's and is passed over", "configmap",
				r.StateNamespace+"/"+StateName, "entry", entry)
			continue
		}
		known := r.state.of(ciphertext.Key{Mount: k.Mount, Name: k.Name})
		maps.Copy(known.CleanSince, k.CleanSince)
		maps.Copy(known.Refused, k.Refused)
	}
	return nil
}

// saveState writes the summary. What others wrote meanwhile is read again and
// taken into account.
func (r *run) saveState(ctx context.Context) error {
	for try := 1; ; try++ {
		stored := r.state.stored.DeepCopy()
		if stored.Data == nil {
			stored.Data = map[string]string{}
		}
		brief := *r.report
		brief.Keys, brief.Remainder = nil, r.report.brief()
		lastDone := r.state.lastDone
		if brief.Result == ResultDone {
			lastDone = &brief.Finished
		}
		if err := put(stored, runEntry, runState{&brief, lastDone}); err != nil {
			return err
		}
		r.observe()
		for _, k := range r.report.Keys {
			short := *k
			short.Remainder, short.PutBack = k.Remainder.brief(), k.PutBack.brief()
			if k.Retire != nil {
				retire := *k.Retire
				retire.WouldBreak = retire.WouldBreak[:min(len(retire.WouldBreak), maxLeftKept)]
				short.Retire = &retire
			}
			if err := put(stored, stateEntry(k.key()), keyState{&short, r.report.Finished, r.state.of(k.key())}); err != nil {
				return err
			}
		}
		// If it took and only the answer was lost, the next try is a conflict.
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

// observe takes the last look at the cluster into the state.
func (r *run) observe() {
	if r.inventory == nil {
		return
	}
	whole := !r.narrow && len(r.inventory.unread) == 0 && r.inventory.unassigned.LeftCount == 0
	for _, k := range r.report.Keys {
		if k.Target == 0 {
			continue
		}
		key, now := k.key(), r.inventory.of(k.key()).oldest(k.Target)
		if was, ok := r.oldest[key]; !ok || now < was {
			r.oldest[key] = now
		}
		// What this run itself has rewrapped was not clean before; and the state may
		// have been read anew since.
		r.state.of(key).CleanSince.observe(k, r.oldest[key], false, r.Now().UTC())
		r.state.of(key).CleanSince.observe(k, now, whole, r.Now().UTC())
	}
}

func (r *Remainder) brief() Remainder {
	return Remainder{Left: r.Left[:min(len(r.Left), maxLeftKept)], LeftCount: r.LeftCount}
}

func put(m *corev1.ConfigMap, entry string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("making the summary: %w", err)
	}
	m.Data[entry] = string(text)
	return nil
}

// stateEntry is the name of a key's entry in the ConfigMap, which takes letters,
// digits, "-", "_" and "." only: "transit__app". No two keys share one.
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

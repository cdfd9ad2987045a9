// Package inventory lists the ciphertext Secrets of a cluster, with their keys, key versions
// and state.
package inventory

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// State is the state of a ciphertext Secret.
type State string

// The states.
const (
	Current State = "current"
	Behind  State = "behind"
	Broken  State = "broken"
	Unknown State = "unknown"
	Deleted State = "deleted" // only in a watch
)

// Secret is the inventory of a ciphertext Secret. Its JSON is stable: fields are added and never
// renamed. Unknown values are omitted.
type Secret struct {
	Namespace     string     `json:"namespace"`
	Name          string     `json:"name"`
	Key           string     `json:"key,omitempty"`
	Mount         string     `json:"mount,omitempty"`
	Scope         string     `json:"scope,omitempty"`
	State         State      `json:"state"`
	Oldest        int        `json:"oldestVersion,omitempty"` // in use by an entry
	Newest        int        `json:"newestVersion,omitempty"` // in use by an entry
	Latest        int        `json:"latestVersion,omitempty"` // of the key
	Target        int        `json:"targetVersion,omitempty"` // version that every entry should have at least
	MinDecryption int        `json:"minDecryptionVersion,omitempty"`
	Unsettled     *time.Time `json:"unsettled,omitempty"` // until then, backups of Vault may lack the target version
	ManagedBy     string     `json:"managedBy,omitempty"` // who would revert a change
	// Rewrapped is the oldest version of an entry at the rotator's last write, LastRewrap the
	// time of that write.
	Rewrapped  int          `json:"rewrappedVersion,omitempty"`
	LastRewrap *metav1.Time `json:"lastRewrap,omitempty"`
	Entries    []Entry      `json:"entries"`
	Problems   []string     `json:"problems,omitempty"` // of the Secret as a whole

	changed time.Time // when it was last written, as far as its managedFields say
}

// Entry is an entry of a Secret, with its key version.
type Entry struct {
	Name    string `json:"name"`
	Version int    `json:"version,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// IsCiphertext reports whether a Secret is selected by its type or label.
func IsCiphertext(s *corev1.Secret) bool {
	return s.Type == ciphertext.Type || s.Labels[ciphertext.LabelTransitKey] != ""
}

// NewSecret returns what can be seen without Vault. SetState of a KeyReader adds the rest.
func NewSecret(s *corev1.Secret) *Secret {
	r := &Secret{Namespace: s.Namespace, Name: s.Name, Entries: []Entry{}, changed: lastChange(s)}
	if m := ciphertext.ManagedBy(s); m.Reverts {
		r.ManagedBy = m.Name
	}
	set, err := ciphertext.SettingsOf(s)
	if err != nil {
		r.addProblem("", "%v", err)
	}
	// An invalid mount may have control characters.
	r.Key, r.Mount, r.Scope = set.Key.Name, display.Line(set.Key.Mount), string(set.Scope)
	r.Oldest, r.Newest, _ = ciphertext.Versions(s.Data)
	r.Rewrapped, _ = strconv.Atoi(s.Annotations[ciphertext.AnnotationRewrapped])
	r.LastRewrap = lastRewrap(s)
	for _, name := range ciphertext.Entries(s.Data) {
		version, err := ciphertext.Version(s.Data[name])
		r.Entries = append(r.Entries, Entry{Name: name, Version: version})
		if err != nil {
			r.addProblem(name, "%v", err)
		}
	}
	return r
}

// lastRewrap returns the time of the rotator's last write, which is that of the fields it owns. It
// is nil if the rotator owns none any more, or if the Secret was created from a copy.
func lastRewrap(s *corev1.Secret) (last *metav1.Time) {
	for _, m := range s.ManagedFields {
		if m.Manager == ciphertext.RotatorManager && m.Time != nil && (last == nil || last.Before(m.Time)) {
			last = m.Time
		}
	}
	return last.DeepCopy()
}

func lastChange(s *corev1.Secret) time.Time {
	last := s.CreationTimestamp.Time
	for _, m := range s.ManagedFields {
		if m.Time != nil && m.Time.After(last) {
			last = m.Time.Time
		}
	}
	return last
}

// ChangedAfter reports whether the Secret was written after a time.
func (r *Secret) ChangedAfter(t time.Time) bool { return r.changed.After(t) }

// Break adds a problem of an entry that others have found, and makes the Secret broken.
func (r *Secret) Break(entry, format string, args ...any) {
	r.addProblem(entry, format, args...)
	r.State = Broken
}

// EntryState returns the state of an entry.
func (r *Secret) EntryState(e Entry) State {
	switch {
	case e.Problem != "" || len(r.Problems) > 0:
		return Broken
	case r.Target == 0:
		return Unknown
	case e.Version < r.Target:
		return Behind
	}
	return Current
}

// addProblem adds a problem of an entry, or of the Secret if entry is empty.
func (r *Secret) addProblem(entry, format string, args ...any) {
	text := display.Sprintf(format, args...)
	if entry == "" {
		r.Problems = append(r.Problems, text)
		return
	}
	for i := range r.Entries {
		if r.Entries[i].Name == entry {
			r.Entries[i].Problem = text
		}
	}
}

// AllProblems returns the problems of the Secret and of its entries.
func (r *Secret) AllProblems() []string {
	all := slices.Clone(r.Problems)
	for _, e := range r.Entries {
		if e.Problem != "" {
			all = append(all, fmt.Sprintf("entry %q %s", e.Name, e.Problem))
		}
	}
	return all
}

// Clone returns a copy whose state can be set.
func (r *Secret) Clone() *Secret {
	c := *r
	c.Entries, c.Problems = slices.Clone(r.Entries), slices.Clone(r.Problems)
	return &c
}

// Stale reports whether the Secret is behind or broken.
func (r *Secret) Stale() bool { return r.State == Behind || r.State == Broken }

// setState sets the state by the key, which is nil if it is unknown. Call it once: it adds
// problems.
func (r *Secret) setState(key *keyResult) {
	if key != nil {
		// Vault has 0 or 1 for "all versions".
		r.Latest, r.Target, r.MinDecryption = key.info.Latest, key.target.Version, max(key.info.MinDecryptionVersion, 1)
		if until := key.target.Unsettled; !until.IsZero() {
			r.Unsettled = &until
		}
		if !key.info.Derived && r.Scope != string(ciphertext.None) {
			r.addProblem("", "scope is %s, but the key is not derived, so nothing binds the ciphertext to its location", r.Scope)
		}
		for _, e := range r.Entries {
			switch {
			case e.Problem != "":
			case e.Version < r.MinDecryption:
				r.addProblem(e.Name,
					"has version %d, which has been retired: encrypt it again, or lower min_decryption_version", e.Version)
			case e.Version > r.Latest:
				r.addProblem(e.Name, "has version %d, which the key does not have: check that this is the right Vault", e.Version)
			}
		}
	}
	switch {
	case len(r.AllProblems()) > 0:
		r.State = Broken
	case key == nil:
		r.State = Unknown
	case len(r.Entries) > 0 && r.Oldest < r.Target:
		r.State = Behind
	default:
		r.State = Current
	}
}

// Sort sorts Secrets by namespace and name.
func Sort(rows []*Secret) {
	slices.SortFunc(rows, func(a, b *Secret) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// TransitKey returns the key that a Secret names; its name is empty if it names none.
func (r *Secret) TransitKey() ciphertext.Key { return ciphertext.Key{Mount: r.Mount, Name: r.Key} }

// NamespacedName returns namespace and name.
func (r *Secret) NamespacedName() types.NamespacedName {
	return types.NamespacedName{Namespace: r.Namespace, Name: r.Name}
}

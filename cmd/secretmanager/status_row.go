package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/transit"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/pager"
)

// state is the word that says how a Secret is.
type state string

const (
	stateCurrent state = "current"
	stateBehind  state = "behind"
	stateBroken  state = "broken"
	stateUnknown state = "unknown"
	stateDeleted state = "deleted" // only seen by who watches
)

// rotatorManager is the field manager that the API server notes for the writes
// of the rotator, which it takes from the name that the program gives itself.
const rotatorManager = "secretmanager-rotator"

// statusRow is what status shows of a Secret. Its JSON is a promise: fields are
// added and never renamed; what is not known is left out.
type statusRow struct {
	Namespace     string `json:"namespace"`
	Name          string `json:"name"`
	Key           string `json:"key,omitempty"`
	Mount         string `json:"mount,omitempty"`
	Scope         string `json:"scope,omitempty"`
	State         state  `json:"state"`
	Oldest        int    `json:"oldestVersion,omitempty"` // in use by an entry
	Newest        int    `json:"newestVersion,omitempty"` // in use by an entry
	Latest        int    `json:"latestVersion,omitempty"` // of the key
	MinDecryption int    `json:"minDecryptionVersion,omitempty"`
	ManagedBy     string `json:"managedBy,omitempty"` // the GitOps tool that keeps it
	// Rewrapped is the oldest version among the entries when the rotator last
	// wrote the Secret, LastRewrap when that was.
	Rewrapped  int           `json:"rewrappedVersion,omitempty"`
	LastRewrap *metav1.Time  `json:"lastRewrap,omitempty"`
	Entries    []statusEntry `json:"entries"`
	Problems   []string      `json:"problems,omitempty"` // of the Secret as a whole
}

type statusEntry struct {
	Name    string `json:"name"`
	Version int    `json:"version,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// eachSecret lists in pages, so that no answer gets large.
func eachSecret(ctx context.Context, kube kubernetes.Interface, namespace string, options metav1.ListOptions, do func(*corev1.Secret)) error {
	lister := pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		return kube.CoreV1().Secrets(namespace).List(ctx, o)
	})
	lister.PageBufferSize = 1 // the next page is under way while one is read
	return lister.EachListItem(ctx, options, func(o runtime.Object) error {
		secret, ok := o.(*corev1.Secret)
		if !ok {
			return fmt.Errorf("the API server answered with a %T in a list of Secrets", o)
		}
		do(secret)
		return nil
	})
}

// rowOf is what can be seen without Vault.
func rowOf(s *corev1.Secret) *statusRow {
	r := &statusRow{Namespace: s.Namespace, Name: s.Name, ManagedBy: ciphertext.ManagedBy(s), Entries: []statusEntry{}}
	set, err := ciphertext.SettingsOf(s)
	if err != nil {
		r.problem("", "%v", err)
	}
	// What is no mount may be anything, and is shown on a line of a terminal.
	r.Key, r.Mount, r.Scope = set.Key, display.Line(set.Mount), string(set.Scope)
	r.Oldest, r.Newest, _ = ciphertext.Versions(s.Data)
	r.Rewrapped, _ = strconv.Atoi(s.Annotations[ciphertext.AnnotationRewrapped])
	r.LastRewrap = lastRewrap(s)
	for _, name := range ciphertext.Entries(s.Data) {
		version, err := ciphertext.Version(s.Data[name])
		r.Entries = append(r.Entries, statusEntry{Name: name, Version: version})
		if err != nil {
			r.problem(name, "%v", err)
		}
	}
	return r
}

// lastRewrap is when the rotator last changed the Secret. The API server keeps
// that time with the fields that the rotator owns; it is nil once others own all
// of them, or where the Secret was made from a copy.
func lastRewrap(s *corev1.Secret) (last *metav1.Time) {
	for _, m := range s.ManagedFields {
		if m.Manager == rotatorManager && m.Time != nil && (last == nil || last.Before(m.Time)) {
			last = m.Time
		}
	}
	return last.DeepCopy()
}

// problem notes what is broken with an entry, or with the Secret as a whole.
func (r *statusRow) problem(entry, format string, args ...any) {
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

// problems returns all of them.
func (r *statusRow) problems() []string {
	all := slices.Clone(r.Problems)
	for _, e := range r.Entries {
		if e.Problem != "" {
			all = append(all, fmt.Sprintf("entry %q %s", e.Name, e.Problem))
		}
	}
	return all
}

// clone returns a copy that can be judged anew.
func (r *statusRow) clone() *statusRow {
	c := *r
	c.Entries, c.Problems = slices.Clone(r.Entries), slices.Clone(r.Problems)
	return &c
}

// stale is whether there is something to do about it.
func (r *statusRow) stale() bool { return r.State == stateBehind || r.State == stateBroken }

// judge finds the state, given the key or nil if it is not known. It is done
// once: problems add up.
func (r *statusRow) judge(key *transit.KeyInfo) {
	if key != nil {
		// Vault says 0 or 1 for "all of them".
		r.Latest, r.MinDecryption = key.Latest, max(key.MinDecryptionVersion, 1)
		if !key.Derived && r.Scope != string(ciphertext.None) {
			r.problem("", "scope is %s, but the key is not derived, so nothing binds the ciphertext to its place", r.Scope)
		}
		for _, e := range r.Entries {
			switch {
			case e.Problem != "":
			case e.Version < r.MinDecryption:
				r.problem(e.Name, "is of version %d, which has been retired: encrypt it again, or lower min_decryption_version", e.Version)
			case e.Version > r.Latest:
				r.problem(e.Name, "is of version %d, which the key does not have: check that this is the right Vault", e.Version)
			}
		}
	}
	switch {
	case len(r.problems()) > 0:
		r.State = stateBroken
	case key == nil:
		r.State = stateUnknown
	case len(r.Entries) > 0 && r.Oldest < r.Latest:
		r.State = stateBehind
	default:
		r.State = stateCurrent
	}
}

func sortRows(rows []*statusRow) {
	slices.SortFunc(rows, func(a, b *statusRow) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

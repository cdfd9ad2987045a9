package rotator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

// populate creates ciphertext Secrets in three namespaces and returns the plaintext of each
// by "NAMESPACE/NAME".
func (f *testFixture) populate(perNamespace int) map[string]map[string]string {
	f.T.Helper()
	scopes := []ciphertext.Scope{ciphertext.Strict, ciphertext.Namespace, ciphertext.Cluster}
	plain := map[string]map[string]string{}
	for n := range 3 {
		ns := fmt.Sprintf("%s-%d", f.Namespace, n)
		f.CreateNamespace(ns)
		for i := range perNamespace {
			name := fmt.Sprintf("secret-%02d", i)
			entries := map[string]string{}
			for e := range 1 + i%3 {
				entries[fmt.Sprintf("entry.%d", e)] = fmt.Sprintf("%s/%s/%d", ns, name, e)
			}
			s := f.encrypt(ns, name, entries, scoped(scopes[i%3]))
			s.Labels["team"] = "red"
			s.Annotations["note"] = "keep me"
			f.CreateSecret(s)
			plain[ns+"/"+name] = entries
		}
	}
	return plain
}

// all returns every Secret of the fixture's namespaces by "NAMESPACE/NAME".
func (f *testFixture) all() map[string]*corev1.Secret {
	f.T.Helper()
	list, err := f.Kube.CoreV1().Secrets("").List(f.T.Context(), metav1.ListOptions{})
	if err != nil {
		f.T.Fatal(err)
	}
	found := map[string]*corev1.Secret{}
	for i := range list.Items {
		if s := &list.Items[i]; strings.HasPrefix(s.Namespace, f.Namespace) {
			found[s.Namespace+"/"+s.Name] = s
		}
	}
	return found
}

// rewrapCounter counts the requests to rewrap.
type rewrapCounter struct {
	rotator.Vault
	requests atomic.Int64
}

func (c *rewrapCounter) Rewrap(ctx context.Context, k ciphertext.Key, items []transit.Item) ([]transit.Result, error) {
	c.requests.Add(1)
	return c.Vault.Rewrap(ctx, k, items)
}

func TestRunRewrapsAllEntries(t *testing.T) {
	f := newFixture(t)
	plain := f.populate(22)
	entries := 0
	for _, e := range plain {
		entries += len(e)
	}
	// The run must not write these: a plaintext Secret, ciphertext of another key, and
	// ciphertext of the key without its label.
	other := f.Key + "-other"
	f.CreateKey(other, true)
	f.CreateSecret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "plain"},
		StringData: map[string]string{"a": "b"}})
	s := f.encrypt(f.Namespace, "unlabeled", map[string]string{"a": "b"})
	s.Labels, s.Type = nil, corev1.SecretTypeOpaque
	f.CreateSecret(s)
	s = f.encrypt(f.Namespace, "other", map[string]string{"a": "b"})
	s.Labels[ciphertext.LabelTransitKey] = other
	f.CreateSecret(s)
	before := f.all()

	session := &rewrapCounter{Vault: f.minimal()}
	last := rotator.Progress{}
	opts := f.options(func(o *rotator.Options) {
		o.Rotate = rotator.Always
		o.Concurrency = 1 // the requests are counted
		o.Progress = func(p rotator.Progress) {
			if p.Phase == "rewrap" {
				last = p
			}
		}
	})
	report, err := rotator.RunPaged(t.Context(), session, f.Kube, opts, 7)
	if err != nil {
		t.Fatal(err)
	}
	k := onlyKey(t, report)
	want := &rotator.KeyReport{
		Mount: "transit", Name: f.Key, MinDecryption: 1, Before: 1, After: 2, Target: 2, Rotated: true,
		RotateReason: "the rotate mode is always", Secrets: 66, Oldest: 2, Versions: map[int]int{2: entries},
		Rewrapped: entries,
	}
	if diff := cmp.Diff(want, k); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if want := (rotator.Progress{Phase: "rewrap", Done: entries, Total: entries}); last != want {
		t.Errorf("progress ended with %+v, want %+v", last, want)
	}
	// A batch may be full at 98 entries, because a Secret has up to three. Each result is
	// rewrapped a second time to verify it.
	if got, most := session.requests.Load(), int64(2*(entries/98+1)); got > most {
		t.Errorf("%d rewrap requests for %d entries, want at most %d: batches should span Secrets", got, entries, most)
	}

	after := f.all()
	for id, old := range before {
		current := after[id]
		if plain[id] == nil {
			if current.ResourceVersion != old.ResourceVersion {
				t.Errorf("%s was written", id)
			}
			continue
		}
		// Only the ciphertext, the hint and the annotation may differ.
		expect := old.DeepCopy()
		expect.Labels[ciphertext.LabelKeyVersion], expect.Annotations[ciphertext.AnnotationRewrapped] = "2", "2"
		expect.Data, expect.ResourceVersion, expect.ManagedFields = current.Data, current.ResourceVersion,
			current.ManagedFields
		if diff := cmp.Diff(expect, current); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
		if diff := cmp.Diff(plain[id], f.plain(old.Namespace, old.Name)); diff != "" {
			t.Errorf("%s decrypts to other values (-want +got):\n%s", id, diff)
		}
	}

	// A second run changes nothing.
	opts.Rotate = rotator.Auto
	report, err = rotator.Run(t.Context(), session, f.Kube, opts)
	if err != nil {
		t.Fatal(err)
	}
	if k := onlyKey(t, report); k.Rewrapped != 0 || k.Current != entries || k.Rotated {
		t.Errorf("second run: %+v, want %d current entries and no change", k, entries)
	}
	for id, s := range f.all() {
		if s.ResourceVersion != after[id].ResourceVersion {
			t.Errorf("the second run wrote %s", id)
		}
	}
}

func TestRunSkipsCurrentEntries(t *testing.T) {
	f := newFixture(t)
	old := f.encrypt(f.Namespace, "mixed", map[string]string{"old": "1"})
	f.RotateKey()
	s := f.encrypt(f.Namespace, "mixed", map[string]string{"new": "2"})
	current := s.Data["new"]
	s.Data["old"] = old.Data["old"]
	s.Labels[ciphertext.LabelKeyVersion] = "1"
	f.CreateSecret(s)
	report, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options())
	if err != nil {
		t.Fatal(err)
	}
	if k := onlyKey(t, report); k.Rewrapped != 1 || k.Current != 1 {
		t.Errorf("rewrapped %d, current %d, want 1 and 1", k.Rewrapped, k.Current)
	}
	got := f.GetSecret(f.Namespace, "mixed")
	if string(got.Data["new"]) != string(current) {
		t.Error("an entry at the target was written")
	}
	if got.Labels[ciphertext.LabelKeyVersion] != "2" {
		t.Errorf("the hint is %q, want 2", got.Labels[ciphertext.LabelKeyVersion])
	}
}

func TestPartialRun(t *testing.T) {
	tests := map[string]struct {
		change func(*rotator.Options, string)
		want   []string
	}{
		"by namespaces": {func(o *rotator.Options, ns string) { o.Namespaces = []string{ns + "-0", ns + "-2"} },
			[]string{"0/a", "0/b", "2/a", "2/b"}},
		"by selector": {func(o *rotator.Options, ns string) { o.Selector = "name in (b)" }, []string{"0/b", "1/b", "2/b"}},
		"by both": {func(o *rotator.Options, ns string) {
			o.Selector, o.Namespaces = "name=a", []string{ns + "-1"}
		}, []string{"1/a"}},
		"by mount": {func(o *rotator.Options, ns string) { o.Mount = "elsewhere" }, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			for n := range 3 {
				ns := fmt.Sprintf("%s-%d", f.Namespace, n)
				f.CreateNamespace(ns)
				for _, name := range []string{"a", "b"} {
					s := f.encrypt(ns, name, map[string]string{"e": "x"})
					s.Labels["name"] = name
					f.CreateSecret(s)
				}
			}
			f.RotateKey()
			opts := f.options()
			test.change(&opts, f.Namespace)
			if opts.Mount == "" {
				if _, err := rotator.Run(t.Context(), f.minimal(), f.Kube, opts); err != nil {
					t.Fatal(err)
				}
			} else if _, err := rotator.Run(t.Context(), f.Root, f.Kube, opts); !errors.Is(err, rotator.ErrIncomplete) {
				t.Fatalf("got %v, want the error of a missing mount", err)
			}
			var got []string
			all := f.all()
			for _, id := range slices.Sorted(maps.Keys(all)) {
				if versions(t, all[id])["e"] == 2 {
					got = append(got, strings.TrimPrefix(id, f.Namespace+"-"))
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("rewrapped (-want +got):\n%s", diff)
			}
		})
	}
}

// The log has the progress, at most every ten seconds.
func TestProgressIsLogged(t *testing.T) {
	progress := regexp.MustCompile(`msg=progress run=\w+ phase=rewrap done=1 total=1`)
	for name, test := range map[string]struct {
		step time.Duration // added to the clock at each read
		want bool
	}{"slow": {11 * time.Second, true}, "quick": {time.Microsecond, false}} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
			f.RotateKey()
			var mu sync.Mutex
			now := time.Now()
			var log bytes.Buffer
			if _, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options(func(o *rotator.Options) {
				o.Log = slog.New(slog.NewTextHandler(&log, nil))
				o.Now = func() time.Time {
					mu.Lock()
					defer mu.Unlock()
					now = now.Add(test.step)
					return now
				}
			})); err != nil {
				t.Fatal(err)
			}
			if got := progress.MatchString(log.String()); got != test.want {
				t.Errorf("logged: %t, want %t:\n%s", got, test.want, log.String())
			}
		})
	}
}

func TestRotatorCannotDecrypt(t *testing.T) {
	f := newServerFixture(t)
	s := f.encrypt(f.Namespace, "s", map[string]string{"e": "x"})
	_, err := f.minimal().Decrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: f.Key},
		[]transit.Item{{Data: s.Data["e"], Context: ciphertext.Strict.Context(f.Namespace, "s", "e")}})
	if !errors.Is(err, transit.ErrDenied) {
		t.Errorf("the rotator's policy lets it decrypt: %v", err)
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	f := newFixture(t)
	f.CreateSecret(f.encrypt(f.Namespace, "old", map[string]string{"a": "1", "b": "2"}))
	fixed := f.encrypt(f.Namespace, "fixed", map[string]string{"a": "1"})
	yes := true
	fixed.Immutable = &yes
	f.CreateSecret(fixed)
	f.RotateKey()
	f.CreateSecret(f.encrypt(f.Namespace, "new", map[string]string{"a": "1"}))
	before := f.all()
	report, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options(func(o *rotator.Options) {
		o.DryRun, o.Retire, o.Rotate = true, true, rotator.Always
	}))
	if !errors.Is(err, rotator.ErrIncomplete) {
		t.Errorf("got %v, want ErrIncomplete for the immutable Secret", err)
	}
	k := onlyKey(t, report)
	if k.Target != 3 || k.After != 2 || k.Rotated || k.Pending != 4 || k.Rewrapped != 0 || k.Unresolved.Count != 1 ||
		k.Unresolved.Items[0].Name != "fixed" {
		t.Errorf("report: %+v", k)
	}
	if want := "would be rotated: the rotate mode is always"; k.RotateReason != want {
		t.Errorf("reason %q, want %q", k.RotateReason, want)
	}
	if k.Retire == nil || k.Retire.Done {
		t.Errorf("retire: %+v", k.Retire)
	}
	if diff := cmp.Diff(before, f.all()); diff != "" {
		t.Errorf("a dry run changed Secrets (-before +after):\n%s", diff)
	}
	if info := f.KeyInfo(); info.Latest != 2 || info.MinDecryptionVersion != 1 {
		t.Errorf("a dry run changed the key: %+v", info)
	}
	maps, err := f.Kube.CoreV1().ConfigMaps(f.Namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(maps.Items) != len(rotator.StateNames()) {
		t.Errorf("%d ConfigMaps (%v)", len(maps.Items), err)
	}
	for _, m := range maps.Items {
		if len(m.Data) > 0 {
			t.Errorf("ConfigMap %s after a dry run: %v", m.Name, m.Data)
		}
	}
	if l := f.lease(); l.Spec.HolderIdentity != nil {
		t.Errorf("a dry run holds the Lease: %+v", l.Spec)
	}
}

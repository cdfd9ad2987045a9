package rotator_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
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

// populate stores ciphertext Secrets over three namespaces and returns the
// plaintext of each by "NAMESPACE/NAME".
func (w *world) populate(perNamespace int) map[string]map[string]string {
	w.t.Helper()
	scopes := []ciphertext.Scope{ciphertext.Strict, ciphertext.Namespace, ciphertext.Cluster}
	plain := map[string]map[string]string{}
	for n := range 3 {
		ns := fmt.Sprintf("%s-%d", w.ns, n)
		w.namespace(ns)
		for i := range perNamespace {
			name := fmt.Sprintf("secret-%02d", i)
			entries := map[string]string{}
			for e := range 1 + i%3 {
				entries[fmt.Sprintf("entry.%d", e)] = fmt.Sprintf("%s/%s/%d", ns, name, e)
			}
			s := w.seal(ns, name, entries, scoped(scopes[i%3]))
			s.Labels["team"] = "red"
			s.Annotations["note"] = "keep me"
			w.store(s)
			plain[ns+"/"+name] = entries
		}
	}
	return plain
}

// all returns every Secret of the world's namespaces by "NAMESPACE/NAME".
func (w *world) all() map[string]*corev1.Secret {
	w.t.Helper()
	list, err := w.kube.CoreV1().Secrets("").List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	found := map[string]*corev1.Secret{}
	for i := range list.Items {
		if s := &list.Items[i]; strings.HasPrefix(s.Namespace, w.ns) {
			found[s.Namespace+"/"+s.Name] = s
		}
	}
	return found
}

func TestRunRewrapsEverythingAndNothingElse(t *testing.T) {
	w := newWorld(t)
	plain := w.populate(22)
	entries := 0
	for _, e := range plain {
		entries += len(e)
	}
	// What the run has to leave alone: a plaintext Secret, ciphertext of another
	// key, ciphertext of the key without its label.
	other := w.key + "-other"
	w.newKey(other, true)
	w.store(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "plain"},
		StringData: map[string]string{"a": "b"}})
	s := w.seal(w.ns, "unlabelled", map[string]string{"a": "b"})
	s.Labels, s.Type = nil, corev1.SecretTypeOpaque
	w.store(s)
	s = w.seal(w.ns, "theirs", map[string]string{"a": "b"})
	s.Labels[ciphertext.LabelTransitKey] = other
	w.store(s)
	before := w.all()

	var requests atomic.Int64
	address := w.proxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
		if strings.Contains(r.URL.Path, "/rewrap/") {
			requests.Add(1)
		}
		vault.ServeHTTP(rw, r)
	})
	session := w.session(address, w.token(w.rotatorPaths()...))
	last := rotator.Progress{}
	opts := w.options(func(o *rotator.Options) {
		o.Rotate = rotator.Always
		o.Concurrency = 1 // the requests are counted
		o.Progress = func(p rotator.Progress) {
			if p.Phase == "rewrap" {
				last = p
			}
		}
	})
	report, err := rotator.RunPaged(t.Context(), session, w.kube, opts, 7)
	if err != nil {
		t.Fatal(err)
	}
	k := only(t, report)
	want := &rotator.KeyReport{
		Mount: "transit", Name: w.key, MinDecryption: 1, Before: 1, After: 2, Target: 2, Rotated: true,
		RotateReason: "asked for in any case", Secrets: 66, Oldest: 2, Versions: map[int]int{2: entries}, Rewrapped: entries,
	}
	if diff := cmp.Diff(want, k); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if want := (rotator.Progress{Phase: "rewrap", Done: entries, Total: entries}); last != want {
		t.Errorf("progress ended with %+v, want %+v", last, want)
	}
	// A batch is full at 98 entries already if the next Secret has three.
	if got, most := requests.Load(), int64(entries/98+1); got > most {
		t.Errorf("%d rewrap requests for %d entries, want at most %d: batches should span Secrets", got, entries, most)
	}

	after := w.all()
	for id, was := range before {
		is := after[id]
		if plain[id] == nil {
			if is.ResourceVersion != was.ResourceVersion {
				t.Errorf("%s was written and is none of the run's business", id)
			}
			continue
		}
		// All that may differ is the ciphertext, the hint and the note.
		expect := was.DeepCopy()
		expect.Labels[ciphertext.LabelKeyVersion], expect.Annotations[ciphertext.AnnotationRewrapped] = "2", "2"
		expect.Data, expect.ResourceVersion, expect.ManagedFields = is.Data, is.ResourceVersion, is.ManagedFields
		if diff := cmp.Diff(expect, is); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
		if diff := cmp.Diff(plain[id], w.plain(was.Namespace, was.Name)); diff != "" {
			t.Errorf("%s decrypts to something else (-want +got):\n%s", id, diff)
		}
	}

	// A second run finds nothing to do and touches nothing.
	opts.Rotate = rotator.Auto
	report, err = rotator.Run(t.Context(), session, w.kube, opts)
	if err != nil {
		t.Fatal(err)
	}
	if k := only(t, report); k.Rewrapped != 0 || k.Current != entries || k.Rotated {
		t.Errorf("second run: %+v, want %d entries current and nothing done", k, entries)
	}
	for id, s := range w.all() {
		if s.ResourceVersion != after[id].ResourceVersion {
			t.Errorf("%s was written by a run that had nothing to do", id)
		}
	}
}

func TestRunOnlyRewrapsWhatIsBelow(t *testing.T) {
	w := newWorld(t)
	old := w.seal(w.ns, "mixed", map[string]string{"old": "1"})
	w.rotateKey()
	s := w.seal(w.ns, "mixed", map[string]string{"new": "2"})
	current := s.Data["new"]
	s.Data["old"] = old.Data["old"]
	s.Labels[ciphertext.LabelKeyVersion] = "1"
	w.store(s)
	report, err := rotator.Run(t.Context(), w.minimal(), w.kube, w.options())
	if err != nil {
		t.Fatal(err)
	}
	if k := only(t, report); k.Rewrapped != 1 || k.Current != 1 {
		t.Errorf("rewrapped %d, current %d, want 1 and 1", k.Rewrapped, k.Current)
	}
	got := w.get(w.ns, "mixed")
	if string(got.Data["new"]) != string(current) {
		t.Error("an entry at the target was written")
	}
	if got.Labels[ciphertext.LabelKeyVersion] != "2" {
		t.Errorf("the hint is %q, want 2", got.Labels[ciphertext.LabelKeyVersion])
	}
}

func TestRunNarrowed(t *testing.T) {
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
			w := newWorld(t)
			for n := range 3 {
				ns := fmt.Sprintf("%s-%d", w.ns, n)
				w.namespace(ns)
				for _, name := range []string{"a", "b"} {
					s := w.seal(ns, name, map[string]string{"e": "x"})
					s.Labels["name"] = name
					w.store(s)
				}
			}
			w.rotateKey()
			opts := w.options()
			test.change(&opts, w.ns)
			if opts.Mount == "" {
				if _, err := rotator.Run(t.Context(), w.minimal(), w.kube, opts); err != nil {
					t.Fatal(err)
				}
			} else if _, err := rotator.Run(t.Context(), w.root, w.kube, opts); !errors.Is(err, rotator.ErrIncomplete) {
				t.Fatalf("got %v, want the error of a mount that is not there", err)
			}
			var got []string
			all := w.all()
			for _, id := range slices.Sorted(maps.Keys(all)) {
				if versions(t, all[id])["e"] == 2 {
					got = append(got, strings.TrimPrefix(id, w.ns+"-"))
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("rewrapped (-want +got):\n%s", diff)
			}
		})
	}
}

// The log says how far a run is, but not more often than every ten seconds.
func TestProgressIsLogged(t *testing.T) {
	progress := regexp.MustCompile(`msg=progress run=\w+ phase=rewrap done=1 total=1`)
	for name, test := range map[string]struct {
		step time.Duration // of the clock, each time that it is read
		want bool
	}{"slow": {11 * time.Second, true}, "quick": {time.Microsecond, false}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
			w.rotateKey()
			var mu sync.Mutex
			now := time.Now()
			var log bytes.Buffer
			if _, err := rotator.Run(t.Context(), w.minimal(), w.kube, w.options(func(o *rotator.Options) {
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
	w := newWorld(t)
	s := w.seal(w.ns, "s", map[string]string{"e": "x"})
	_, err := w.minimal().Decrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: w.key},
		[]transit.Item{{Data: s.Data["e"], Context: ciphertext.Strict.Context(w.ns, "s", "e")}})
	if !errors.Is(err, transit.ErrDenied) {
		t.Errorf("the rotator's policy lets it decrypt: %v", err)
	}
}

func TestRunDryChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.store(w.seal(w.ns, "old", map[string]string{"a": "1", "b": "2"}))
	fixed := w.seal(w.ns, "fixed", map[string]string{"a": "1"})
	yes := true
	fixed.Immutable = &yes
	w.store(fixed)
	w.rotateKey()
	w.store(w.seal(w.ns, "new", map[string]string{"a": "1"}))
	before := w.all()
	report, err := rotator.Run(t.Context(), w.minimal(), w.kube, w.options(func(o *rotator.Options) {
		o.DryRun, o.Retire, o.Rotate = true, true, rotator.Always
	}))
	if !errors.Is(err, rotator.ErrIncomplete) {
		t.Errorf("got %v, want ErrIncomplete for the immutable Secret", err)
	}
	k := only(t, report)
	if k.Target != 3 || k.After != 2 || k.Rotated || k.Pending != 4 || k.Rewrapped != 0 || k.LeftCount != 1 ||
		k.Left[0].Name != "fixed" {
		t.Errorf("report: %+v", k)
	}
	if want := "would be rotated: asked for in any case"; k.RotateReason != want {
		t.Errorf("reason %q, want %q", k.RotateReason, want)
	}
	if k.Retire == nil || k.Retire.Done {
		t.Errorf("retire: %+v", k.Retire)
	}
	if diff := cmp.Diff(before, w.all()); diff != "" {
		t.Errorf("a dry run changed Secrets (-before +after):\n%s", diff)
	}
	if info := w.keyInfo(); info.Latest != 2 || info.MinDecryptionVersion != 1 {
		t.Errorf("a dry run changed the key: %+v", info)
	}
	maps, err := w.kube.CoreV1().ConfigMaps(w.ns).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(maps.Items) != 1 || len(maps.Items[0].Data) != 0 {
		t.Errorf("a dry run left the ConfigMaps %+v (%v)", maps.Items, err)
	}
	if l := w.lease(); l.Spec.HolderIdentity != nil {
		t.Errorf("a dry run holds the Lease: %+v", l.Spec)
	}
}

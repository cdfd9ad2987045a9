package rotator_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// TestConcurrentWriter has another writer change the Secret before each patch of the
// rotator.
func TestConcurrentWriter(t *testing.T) {
	// A write before the nth patch.
	type act func(f *testFixture, n int)
	once := func(change func(f *testFixture)) act {
		return func(f *testFixture, n int) {
			if n == 0 {
				change(f)
			}
		}
	}
	patch := func(f *testFixture, path string, value any) {
		f.T.Helper()
		text, err := json.Marshal([]map[string]any{{"op": "add", "path": path, "value": value}})
		if err != nil {
			f.T.Fatal(err)
		}
		if _, err := f.Kube.CoreV1().Secrets(f.Namespace).
			Patch(f.T.Context(), "s", types.JSONPatchType, text, metav1.PatchOptions{}); err != nil {
			f.T.Fatal(err)
		}
	}
	remove := func(f *testFixture) {
		if err := f.Kube.CoreV1().Secrets(f.Namespace).Delete(f.T.Context(), "s", metav1.DeleteOptions{}); err != nil {
			f.T.Fatal(err)
		}
	}
	// Ciphertext of an author who read the key before the rotation.
	oldText := func(f *testFixture, entry, value string) []byte {
		return f.encrypt(f.Namespace, "s", map[string]string{entry: value}).Data[entry]
	}

	tests := map[string]struct {
		before func(f *testFixture) act
		want   map[string]string // plaintext afterwards; nil: the Secret does not exist
		tries  int               // patches
		reason string            // part of the reason of an unresolved entry
		check  func(t *testing.T, s *corev1.Secret)
	}{
		"nobody": {
			before: func(f *testFixture) act { return func(*testFixture, int) {} },
			want:   map[string]string{"a": "1", "b": "2"}, tries: 1,
		},
		"edits the entry": {
			before: func(f *testFixture) act {
				text := oldText(f, "a", "theirs")
				return once(func(f *testFixture) { patch(f, "/data/a", text) })
			},
			want: map[string]string{"a": "theirs", "b": "2"}, tries: 2,
		},
		"adds an entry": {
			before: func(f *testFixture) act {
				text := oldText(f, "c", "3")
				return once(func(f *testFixture) { patch(f, "/data/c", text) })
			},
			// It does not conflict with the patch, and is below the target.
			want: map[string]string{"a": "1", "b": "2", "c": "3"}, tries: 1, reason: "run again",
		},
		"adds a label": {
			before: func(f *testFixture) act {
				return once(func(f *testFixture) { patch(f, "/metadata/labels/owner", "me") })
			},
			want: map[string]string{"a": "1", "b": "2"}, tries: 1,
			check: func(t *testing.T, s *corev1.Secret) {
				if s.Labels["owner"] != "me" {
					t.Error("the label of the other writer is missing")
				}
			},
		},
		"deletes it": {
			before: func(f *testFixture) act { return once(remove) },
			tries:  1,
		},
		"recreates it": {
			before: func(f *testFixture) act {
				return once(func(f *testFixture) {
					s := f.GetSecret(f.Namespace, "s")
					remove(f)
					s.ResourceVersion, s.UID = "", ""
					f.CreateSecret(s)
				})
			},
			want: map[string]string{"a": "1", "b": "2"}, tries: 2,
		},
		"is another rotator": {
			before: func(f *testFixture) act {
				return once(func(f *testFixture) {
					if _, err := rotator.Run(f.T.Context(), f.Root, f.Kube,
						f.options(func(o *rotator.Options) { o.StateNamespace = rotator.DefaultStateNamespace })); err != nil {
						f.T.Error(err)
					}
				})
			},
			want: map[string]string{"a": "1", "b": "2"}, tries: 1,
		},
		"makes it immutable": {
			before: func(f *testFixture) act {
				text := oldText(f, "a", "theirs")
				return once(func(f *testFixture) { patch(f, "/data/a", text); patch(f, "/immutable", true) })
			},
			want: map[string]string{"a": "theirs", "b": "2"}, tries: 1, reason: "immutable",
		},
		"writes each time": {
			before: func(f *testFixture) act {
				texts := [][]byte{}
				for range 9 {
					texts = append(texts, oldText(f, "a", "theirs"))
				}
				return func(f *testFixture, n int) { patch(f, "/data/a", texts[n%len(texts)]) }
			},
			want: map[string]string{"a": "theirs", "b": "2"}, tries: 5, reason: "kept changing before each of 5 attempts",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"a": "1", "b": "2"}))
			act := test.before(f)
			f.RotateKey()
			tries := 0
			kube := f.Client(fixture.BeforeEach(http.MethodPatch, func(n int) { act(f, n); tries++ }))
			report, err := rotator.Run(t.Context(), f.minimal(), kube,
				f.options(func(o *rotator.Options) { o.Namespaces = []string{f.Namespace} }))
			k := onlyKey(t, report)
			switch {
			case test.reason == "" && err != nil:
				t.Errorf("%v: %v", err, k.Unresolved.Items)
			case test.reason != "" && !errors.Is(err, rotator.ErrIncomplete):
				t.Errorf("got %v, want ErrIncomplete", err)
			case test.reason != "" && (len(k.Unresolved.Items) == 0 ||
				!strings.Contains(k.Unresolved.Items[0].Reason, test.reason)):
				t.Errorf("unresolved: %v, want a reason with %q", k.Unresolved.Items, test.reason)
			}
			if tries != test.tries {
				t.Errorf("%d patches, want %d", tries, test.tries)
			}
			if test.want == nil {
				_, err := f.Kube.CoreV1().Secrets(f.Namespace).Get(t.Context(), "s", metav1.GetOptions{})
				if !apierrors.IsNotFound(err) {
					t.Errorf("the deleted Secret exists: %v", err)
				}
				return
			}
			s := f.GetSecret(f.Namespace, "s")
			if diff := cmp.Diff(test.want, f.plain(f.Namespace, "s")); diff != "" {
				t.Errorf("plaintext (-want +got):\n%s", diff)
			}
			if test.reason == "" {
				for entry, v := range versions(t, s) {
					if v != 2 {
						t.Errorf("entry %s is at version %d", entry, v)
					}
				}
			}
			if test.check != nil {
				test.check(t, s)
			}
		})
	}
}

func TestBadEntryDoesNotStopOthers(t *testing.T) {
	f := newFixture(t)
	good := map[string]string{"good": "1", "fine": "2"}
	f.CreateSecret(f.encrypt(f.Namespace, "aaa", good))
	// Every cause why an entry cannot be rewrapped, each next to good entries.
	other := f.encrypt(f.Namespace, "other", map[string]string{"bad": "x"})
	s := f.encrypt(f.Namespace, "copied", good)
	s.Data["bad"] = other.Data["bad"]
	f.CreateSecret(s)
	s = f.encrypt(f.Namespace, "plaintext", good)
	s.Data["bad"] = []byte("hunter2")
	f.CreateSecret(s)
	s = f.encrypt(f.Namespace, "cut", good)
	s.Data["bad"] = []byte("vault:v1:AAAA")
	f.CreateSecret(s)
	s = f.encrypt(f.Namespace, "future", good)
	s.Data["bad"] = []byte("vault:v7:" + strings.TrimPrefix(string(other.Data["bad"]), "vault:v1:"))
	f.CreateSecret(s)
	// The key is derived, and this entry has no context, so it shares no request.
	s = f.encrypt(f.Namespace, "unbound", map[string]string{"bad": "x"})
	s.Annotations[ciphertext.AnnotationScope] = "none"
	f.CreateSecret(s)
	s = f.encrypt(f.Namespace, "fixed", map[string]string{"bad": "x"})
	yes := true
	s.Immutable = &yes
	f.CreateSecret(s)
	s = f.encrypt(f.Namespace, "noentries", good)
	s.Data = nil
	f.CreateSecret(s)
	s = f.encrypt(f.Namespace, "misspelled", good)
	s.Annotations[ciphertext.AnnotationScope] = "srtict"
	f.CreateSecret(s)
	f.CreateSecret(f.encrypt(f.Namespace, "zzz", good))
	f.RotateKey()

	report, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options())
	if !errors.Is(err, rotator.ErrIncomplete) {
		t.Errorf("got %v, want ErrIncomplete", err)
	}
	k := onlyKey(t, report)
	if k.Rewrapped != 12 {
		t.Errorf("%d entries rewrapped, want 12", k.Rewrapped)
	}
	for _, name := range []string{"aaa", "copied", "plaintext", "cut", "future", "zzz"} {
		if diff := cmp.Diff(good, f.plain(f.Namespace, name, "good", "fine")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		for _, entry := range []string{"good", "fine"} {
			if v, _ := ciphertext.Version(f.GetSecret(f.Namespace, name).Data[entry]); v != 2 {
				t.Errorf("%s/%s is at version %d", name, entry, v)
			}
		}
	}
	// The bad entry still has version 1.
	if hint := f.GetSecret(f.Namespace, "copied").Labels[ciphertext.LabelKeyVersion]; hint != "1" {
		t.Errorf("the hint is %q, want 1", hint)
	}
	want := []struct{ location, reason string }{
		{"copied/bad", "may have been copied from elsewhere"},
		{"cut/bad", "is truncated"},
		{"fixed/bad", "immutable: delete it and create it again"},
		{"future/bad", "has key version 7, and the newest of transit/keys/" + f.Key + " is 2"},
		{"noentries", "has no entries"},
		{"plaintext/bad", "may be plaintext"},
		{"unbound/bad", "missing 'context' for key derivation"},
	}
	if len(k.Unresolved.Items) != len(want) || k.Unresolved.Count != len(want) {
		t.Fatalf("%d unresolved: %v, want %d", k.Unresolved.Count, k.Unresolved.Items, len(want))
	}
	for i, x := range want {
		p := k.Unresolved.Items[i]
		location := strings.TrimSuffix(p.Name+"/"+p.Entry, "/")
		if location != x.location || !strings.Contains(p.Reason, x.reason) {
			t.Errorf("unresolved: %v, want %s with %q", p, x.location, x.reason)
		}
	}
	if report.Unassigned.Count != 1 || report.Unassigned.Items[0].Name != "misspelled" ||
		!strings.Contains(report.Unassigned.Items[0].Reason, `unknown scope "srtict"`) {
		t.Errorf("unassigned: %v, want misspelled", report.Unassigned.Items)
	}
	text, err := json.Marshal(report)
	if err != nil || strings.Contains(string(text), "hunter2") {
		t.Errorf("the report has plaintext (%v)", err)
	}
}

// Secrets are written in parallel, up to the number in Concurrency.
func TestWritesInParallel(t *testing.T) {
	f := newFixture(t)
	const concurrency, secrets = 3, 12
	for i := range secrets {
		f.CreateSecret(f.encrypt(f.Namespace, fmt.Sprintf("s%d", i), map[string]string{"e": "x"}))
	}
	f.RotateKey()
	var current, most, total atomic.Int32
	all := make(chan struct{})
	kube := f.Client(func(next http.RoundTripper) http.RoundTripper {
		return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodPatch {
				return next.RoundTrip(r)
			}
			n := current.Add(1)
			defer current.Add(-1)
			for m := most.Load(); n > m; m = most.Load() {
				most.CompareAndSwap(m, n)
			}
			if total.Add(1) == concurrency {
				close(all)
			}
			select {
			case <-all:
			case <-time.After(30 * time.Second):
				return nil, errors.New("the writes are not parallel")
			}
			return next.RoundTrip(r)
		})
	})
	report, err := rotator.Run(t.Context(), f.minimal(), kube,
		f.options(func(o *rotator.Options) { o.Concurrency = concurrency }))
	if err != nil || onlyKey(t, report).Rewrapped != secrets || most.Load() != concurrency {
		t.Errorf("%v, %+v, at most %d at a time", err, onlyKey(t, report), most.Load())
	}
}

// TestManyEntries rewraps a Secret whose entries do not fit into one patch: the API server accepts
// 10,000 operations.
func TestManyEntries(t *testing.T) {
	parallel(t)
	f := newFixture(t)
	plain := map[string]string{}
	for i := range 10_000 {
		plain[fmt.Sprint("e", i)] = fmt.Sprint(i)
	}
	f.CreateSecret(f.encrypt(f.Namespace, "s", plain))
	f.RotateKey()
	report, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(retiring(0)))
	if err != nil {
		t.Fatal(err)
	}
	if k := onlyKey(t, report); k.Rewrapped != len(plain) || k.Unresolved.Count != 0 || !k.Retire.Done {
		t.Errorf("%d rewrapped, %d unresolved, retire: %+v", k.Rewrapped, k.Unresolved.Count, k.Retire)
	}
	s := f.GetSecret(f.Namespace, "s")
	if got := f.plain(f.Namespace, "s"); len(got) != len(plain) || got["e9999"] != "9999" ||
		s.Labels[ciphertext.LabelKeyVersion] != "2" {
		t.Errorf("%d entries, version label %s", len(got), s.Labels[ciphertext.LabelKeyVersion])
	}
}

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
)

// TestConcurrentWriter lets somebody else write in the moment before each patch
// of the rotator.
func TestConcurrentWriter(t *testing.T) {
	// What the other writer does before the nth patch.
	type act func(w *world, n int)
	once := func(f func(w *world)) act {
		return func(w *world, n int) {
			if n == 0 {
				f(w)
			}
		}
	}
	patch := func(w *world, path string, value any) {
		w.t.Helper()
		text, err := json.Marshal([]map[string]any{{"op": "add", "path": path, "value": value}})
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.kube.CoreV1().Secrets(w.ns).
			Patch(w.t.Context(), "s", types.JSONPatchType, text, metav1.PatchOptions{}); err != nil {
			w.t.Fatal(err)
		}
	}
	remove := func(w *world) {
		if err := w.kube.CoreV1().Secrets(w.ns).Delete(w.t.Context(), "s", metav1.DeleteOptions{}); err != nil {
			w.t.Fatal(err)
		}
	}
	// A text of the old version, as an author makes who read the key before the rotation.
	oldText := func(w *world, entry, value string) []byte {
		return w.seal(w.ns, "s", map[string]string{entry: value}).Data[entry]
	}

	tests := map[string]struct {
		before func(w *world) act
		want   map[string]string // plaintext afterwards; nil: no such Secret
		tries  int               // patches
		left   string            // part of the reason, if something is left
		check  func(t *testing.T, s *corev1.Secret)
	}{
		"nobody": {
			before: func(w *world) act { return func(*world, int) {} },
			want:   map[string]string{"a": "1", "b": "2"}, tries: 1,
		},
		"edits the entry": {
			before: func(w *world) act {
				text := oldText(w, "a", "theirs")
				return once(func(w *world) { patch(w, "/data/a", text) })
			},
			want: map[string]string{"a": "theirs", "b": "2"}, tries: 2,
		},
		"adds an entry": {
			before: func(w *world) act {
				text := oldText(w, "c", "3")
				return once(func(w *world) { patch(w, "/data/c", text) })
			},
			// It does not get in the way of the patch, and is below the target.
			want: map[string]string{"a": "1", "b": "2", "c": "3"}, tries: 1, left: "run again",
		},
		"adds a label": {
			before: func(w *world) act {
				return once(func(w *world) { patch(w, "/metadata/labels/owner", "me") })
			},
			want: map[string]string{"a": "1", "b": "2"}, tries: 1,
			check: func(t *testing.T, s *corev1.Secret) {
				if s.Labels["owner"] != "me" {
					t.Error("their label is gone")
				}
			},
		},
		"deletes it": {
			before: func(w *world) act { return once(remove) },
			tries:  1,
		},
		"deletes it and puts the same back": {
			before: func(w *world) act {
				return once(func(w *world) {
					s := w.get(w.ns, "s")
					remove(w)
					s.ResourceVersion, s.UID = "", ""
					w.store(s)
				})
			},
			want: map[string]string{"a": "1", "b": "2"}, tries: 2,
		},
		"is another rotator": {
			before: func(w *world) act {
				return once(func(w *world) {
					if _, err := rotator.Run(w.t.Context(), w.root, w.kube,
						w.options(func(o *rotator.Options) { o.StateNamespace = rotator.DefaultStateNamespace })); err != nil {
						w.t.Error(err)
					}
				})
			},
			want: map[string]string{"a": "1", "b": "2"}, tries: 1,
		},
		"makes it immutable": {
			before: func(w *world) act {
				text := oldText(w, "a", "theirs")
				return once(func(w *world) { patch(w, "/data/a", text); patch(w, "/immutable", true) })
			},
			want: map[string]string{"a": "theirs", "b": "2"}, tries: 1, left: "immutable",
		},
		"writes each time": {
			before: func(w *world) act {
				texts := [][]byte{}
				for range 9 {
					texts = append(texts, oldText(w, "a", "theirs"))
				}
				return func(w *world, n int) { patch(w, "/data/a", texts[n%len(texts)]) }
			},
			want: map[string]string{"a": "theirs", "b": "2"}, tries: 5, left: "kept changing before each of 5 attempts",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store(w.seal(w.ns, "s", map[string]string{"a": "1", "b": "2"}))
			act := test.before(w)
			w.rotateKey()
			tries := 0
			kube := w.client(beforePatch(func(n int) { act(w, n); tries++ }))
			report, err := rotator.Run(t.Context(), w.minimal(), kube,
				w.options(func(o *rotator.Options) { o.Namespaces = []string{w.ns} }))
			k := only(t, report)
			switch {
			case test.left == "" && err != nil:
				t.Errorf("%v: %v", err, k.Left)
			case test.left != "" && !errors.Is(err, rotator.ErrIncomplete):
				t.Errorf("got %v, want ErrIncomplete", err)
			case test.left != "" && (len(k.Left) == 0 || !strings.Contains(k.Left[0].Reason, test.left)):
				t.Errorf("left: %v, want a reason with %q", k.Left, test.left)
			}
			if tries != test.tries {
				t.Errorf("%d patches, want %d", tries, test.tries)
			}
			if test.want == nil {
				if _, err := w.kube.CoreV1().Secrets(w.ns).Get(t.Context(), "s", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
					t.Errorf("the deleted Secret is back: %v", err)
				}
				return
			}
			s := w.get(w.ns, "s")
			if diff := cmp.Diff(test.want, w.plain(w.ns, "s")); diff != "" {
				t.Errorf("plaintext (-want +got):\n%s", diff)
			}
			if test.left == "" {
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

func TestOneBadEntryDoesNotStopTheOthers(t *testing.T) {
	w := newWorld(t)
	good := map[string]string{"good": "1", "fine": "2"}
	w.store(w.seal(w.ns, "aaa", good))
	// Every way in which an entry cannot be rewrapped, each beside good ones.
	other := w.seal(w.ns, "other", map[string]string{"bad": "x"})
	s := w.seal(w.ns, "copied", good)
	s.Data["bad"] = other.Data["bad"]
	w.store(s)
	s = w.seal(w.ns, "plaintext", good)
	s.Data["bad"] = []byte("hunter2")
	w.store(s)
	s = w.seal(w.ns, "cut", good)
	s.Data["bad"] = []byte("vault:v1:AAAA")
	w.store(s)
	s = w.seal(w.ns, "future", good)
	s.Data["bad"] = []byte("vault:v7:" + strings.TrimPrefix(string(other.Data["bad"]), "vault:v1:"))
	w.store(s)
	// The key is derived, so this one has no context and may share no request.
	s = w.seal(w.ns, "unbound", map[string]string{"bad": "x"})
	s.Annotations[ciphertext.AnnotationScope] = "none"
	w.store(s)
	s = w.seal(w.ns, "fixed", map[string]string{"bad": "x"})
	yes := true
	s.Immutable = &yes
	w.store(s)
	s = w.seal(w.ns, "hollow", good)
	s.Data = nil
	w.store(s)
	s = w.seal(w.ns, "misspelt", good)
	s.Annotations[ciphertext.AnnotationScope] = "srtict"
	w.store(s)
	w.store(w.seal(w.ns, "zzz", good))
	w.rotateKey()

	report, err := rotator.Run(t.Context(), w.minimal(), w.kube, w.options())
	if !errors.Is(err, rotator.ErrIncomplete) {
		t.Errorf("got %v, want ErrIncomplete", err)
	}
	k := only(t, report)
	if k.Rewrapped != 12 {
		t.Errorf("%d entries rewrapped, want 12", k.Rewrapped)
	}
	for _, name := range []string{"aaa", "copied", "plaintext", "cut", "future", "zzz"} {
		if diff := cmp.Diff(good, w.plain(w.ns, name, "good", "fine")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		for _, entry := range []string{"good", "fine"} {
			if v, _ := ciphertext.Version(w.get(w.ns, name).Data[entry]); v != 2 {
				t.Errorf("%s/%s is at version %d", name, entry, v)
			}
		}
	}
	// Version 1 is still in there.
	if hint := w.get(w.ns, "copied").Labels[ciphertext.LabelKeyVersion]; hint != "1" {
		t.Errorf("the hint is %q, want 1", hint)
	}
	want := []struct{ place, reason string }{
		{"copied/bad", "may have been copied from elsewhere"},
		{"cut/bad", "is truncated"},
		{"fixed/bad", "immutable: delete it and create it again"},
		{"future/bad", "has key version 7, and the newest of transit/keys/" + w.key + " is 2"},
		{"hollow", "has no entries"},
		{"plaintext/bad", "may be plaintext"},
		{"unbound/bad", "missing 'context' for key derivation"},
	}
	if len(k.Left) != len(want) || k.LeftCount != len(want) {
		t.Fatalf("left %d: %v, want %d", k.LeftCount, k.Left, len(want))
	}
	for i, x := range want {
		l := k.Left[i]
		if place := strings.TrimSuffix(l.Name+"/"+l.Entry, "/"); place != x.place || !strings.Contains(l.Reason, x.reason) {
			t.Errorf("left %v, want %s with %q", l, x.place, x.reason)
		}
	}
	if report.LeftCount != 1 || report.Left[0].Name != "misspelt" ||
		!strings.Contains(report.Left[0].Reason, `unknown scope "srtict"`) {
		t.Errorf("strays: %v, want misspelt", report.Left)
	}
	text, err := json.Marshal(report)
	if err != nil || strings.Contains(string(text), "hunter2") {
		t.Errorf("the report repeats plaintext (%v)", err)
	}
}

// Secrets are written in parallel, and no more at a time than asked for.
func TestWritesInParallel(t *testing.T) {
	w := newWorld(t)
	const together, secrets = 3, 12
	for i := range secrets {
		w.store(w.seal(w.ns, fmt.Sprintf("s%d", i), map[string]string{"e": "x"}))
	}
	w.rotateKey()
	var now, most, come atomic.Int32
	all := make(chan struct{})
	kube := w.client(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodPatch {
				return next.RoundTrip(r)
			}
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			if come.Add(1) == together {
				close(all)
			}
			select {
			case <-all:
			case <-time.After(30 * time.Second):
				return nil, errors.New("the others never come")
			}
			return next.RoundTrip(r)
		})
	})
	report, err := rotator.Run(t.Context(), w.minimal(), kube,
		w.options(func(o *rotator.Options) { o.Concurrency = together }))
	if err != nil || only(t, report).Rewrapped != secrets || most.Load() != together {
		t.Errorf("%v, %+v, at most %d at a time", err, only(t, report), most.Load())
	}
}

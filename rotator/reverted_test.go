package rotator_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// Ways in which a manifest is applied again.
var appliers = map[string]func(w *world, manifest *corev1.Secret){
	// Flux, and Argo CD if told to.
	"server-side": func(w *world, manifest *corev1.Secret) {
		w.t.Helper()
		s := manifest.DeepCopy()
		s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
		force := true
		w.patch(s, types.ApplyPatchType, metav1.PatchOptions{FieldManager: "gitops", Force: &force})
	},
	// kubectl apply, and so Argo CD: what the manifest has, and nothing else.
	"by merging": func(w *world, manifest *corev1.Secret) {
		w.t.Helper()
		_, err := w.kube.CoreV1().Secrets(manifest.Namespace).Create(w.t.Context(), manifest, metav1.CreateOptions{})
		if err != nil {
			w.patch(manifest, types.StrategicMergePatchType, metav1.PatchOptions{})
		}
	},
}

func (w *world) patch(s *corev1.Secret, how types.PatchType, opts metav1.PatchOptions) {
	w.t.Helper()
	body, err := json.Marshal(s)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.kube.CoreV1().Secrets(s.Namespace).Patch(w.t.Context(), s.Name, how, body, opts); err != nil {
		w.t.Fatal(err)
	}
}

// After a rotation somebody applies the manifest of before: the next run says so,
// rewraps it, and retires nothing.
func TestOldManifestIsAppliedAgain(t *testing.T) {
	for name, apply := range appliers {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			manifest := w.seal(w.ns, "s", map[string]string{"a": "x", "b": "y"})
			run := func(change ...func(*rotator.Options)) *rotator.KeyReport {
				t.Helper()
				report, err := rotator.Run(t.Context(), w.retirer(), w.kube,
					w.options(append([]func(*rotator.Options){retiring(0)}, change...)...))
				if err != nil {
					t.Fatal(err)
				}
				return only(t, report)
			}
			apply(w, manifest)
			w.rotateKey()
			later := func(o *rotator.Options) { o.RetireAfter = time.Hour }
			if k := run(later); k.BackCount != 0 || k.Rewrapped != 2 {
				t.Errorf("at first: %+v", k)
			}
			apply(w, manifest)
			if got := versions(t, w.get(w.ns, "s")); got["a"] != 1 || got["b"] != 1 {
				t.Fatalf("the old manifest is not back: %v", got)
			}
			if k := run(func(o *rotator.Options) { o.DryRun = true }); k.BackCount != 2 {
				t.Errorf("dry run: %+v", k)
			}
			k := run()
			want := []string{w.ns + "/s/a", w.ns + "/s/b"}
			var got []string
			for _, l := range k.Back {
				place, reason, _ := strings.Cut(l.String(), ": ")
				got = append(got, place)
				if !strings.HasPrefix(reason, "is back at key version 1 after it was rewrapped to 2") {
					t.Errorf("reason %q", reason)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" || k.BackCount != 2 {
				t.Errorf("%d are back (-want +got):\n%s", k.BackCount, diff)
			}
			if k.Rewrapped != 2 || k.LeftCount != 0 {
				t.Errorf("rewrapped %d, left %v", k.Rewrapped, k.Left)
			}
			if r := k.Retire; r.Done || !strings.Contains(r.Reason, "2 entries came back from somewhere") ||
				!cmp.Equal(r.WouldBreak, k.Back) {
				t.Errorf("retire: %+v", r)
			}
			if got := w.plain(w.ns, "s"); got["a"] != "x" || got["b"] != "y" {
				t.Errorf("entries %v", got)
			}
			if summary := w.state().Data["transit__"+w.key]; !strings.Contains(summary, `"backCount": 2`) ||
				!strings.Contains(summary, "wouldBreak") {
				t.Errorf("the summary is %s", summary)
			}
			// Once it stays away, all is as ever.
			if k := run(); k.BackCount != 0 || !k.Retire.Done {
				t.Errorf("at last: %+v, %+v", k, k.Retire)
			}
		})
	}
}

func (w *world) state() *corev1.ConfigMap {
	w.t.Helper()
	m, err := w.kube.CoreV1().ConfigMaps(w.ns).Get(w.t.Context(), rotator.StateName, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// What a run finds old and rewraps was not gone before that: the time until it is
// retired begins anew, also if somebody else writes the state meanwhile.
func TestRetireWaitsForWhatWasRewrapped(t *testing.T) {
	const week = 7 * 24 * time.Hour
	for name, conflict := range map[string]bool{"alone": false, "with a conflict": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			old := w.seal(w.ns, "late", map[string]string{"e": "x"})
			w.rotateKey()
			w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
			// The first time that the state is written, another run is faster.
			faster := func() {
				m := w.state()
				m.Annotations = map[string]string{"by": "another"}
				if _, err := w.kube.CoreV1().ConfigMaps(w.ns).Update(t.Context(), m, metav1.UpdateOptions{}); err != nil {
					t.Error(err)
				}
			}
			contested := w.client(func(next http.RoundTripper) http.RoundTripper {
				return roundTrip(func(r *http.Request) (*http.Response, error) {
					if r.Method == http.MethodPut && faster != nil {
						faster()
						faster = nil
					}
					return next.RoundTrip(r)
				})
			})
			run := func(later time.Duration, kube kubernetes.Interface) *rotator.KeyReport {
				t.Helper()
				report, err := rotator.Run(t.Context(), w.retirer(), kube, w.options(retiring(week), at(later)))
				if err != nil {
					t.Fatal(err)
				}
				return only(t, report)
			}
			run(0, w.kube)
			w.store(old)
			second := w.kube
			if conflict {
				second = contested
			}
			if k := run(week+time.Hour, second); k.Rewrapped != 1 || k.Retire.Done {
				t.Errorf("retired in the run that found it: %+v, %+v", k, k.Retire)
			}
			if k := run(week+2*time.Hour, w.kube); k.Retire.Done {
				t.Errorf("retired an hour after: %+v", k.Retire)
			}
			if k := run(2*week+3*time.Hour, w.kube); !k.Retire.Done {
				t.Errorf("not retired a week after: %+v", k.Retire)
			}
			if conflict && faster != nil {
				t.Error("there was no conflict")
			}
		})
	}
}

// A Secret without annotations gets the first without losing what others add at
// the same time.
func TestRewrapNotesItself(t *testing.T) {
	w := newWorld(t)
	s := w.seal(w.ns, "bare", map[string]string{"e": "x"})
	s.Annotations = nil
	w.store(s)
	w.rotateKey()
	kube := w.client(beforePatch(func(n int) {
		if n > 0 {
			return
		}
		w.patch(
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "bare",
				Annotations: map[string]string{"note": "keep me"}}},
			types.StrategicMergePatchType, metav1.PatchOptions{})
	}))
	if _, err := rotator.Run(t.Context(), w.minimal(), kube, w.options()); err != nil {
		t.Fatal(err)
	}
	now := w.get(w.ns, "bare")
	want := map[string]string{"note": "keep me", ciphertext.AnnotationRewrapped: "2"}
	if diff := cmp.Diff(want, now.Annotations); diff != "" || versions(t, now)["e"] != 2 {
		t.Errorf("versions %v, annotations (-want +got):\n%s", versions(t, now), diff)
	}
}

// Old ciphertext that cannot be rewrapped any more is named as what it is.
func TestOldManifestAfterRetirement(t *testing.T) {
	w := newWorld(t)
	manifest := w.seal(w.ns, "s", map[string]string{"e": "x"})
	appliers["server-side"](w, manifest)
	w.rotateKey()
	if _, err := rotator.Run(t.Context(), w.retirer(), w.kube, w.options(retiring(0))); err != nil {
		t.Fatal(err)
	}
	appliers["server-side"](w, manifest)
	w.rotateKey()
	report, err := rotator.Run(t.Context(), w.retirer(), w.kube, w.options(retiring(0)))
	k := only(t, report)
	if !errors.Is(err, rotator.ErrIncomplete) || k.BackCount != 1 || k.LeftCount != 1 ||
		!strings.Contains(k.Left[0].Reason, "comes from before the last retirement") {
		t.Errorf("%v: back %v, left %v", err, k.Back, k.Left)
	}
	if r := k.Retire; r.Done || !cmp.Equal(r.WouldBreak, k.Left) {
		t.Errorf("retire: %+v", r)
	}
}

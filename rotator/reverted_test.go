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
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// appliers apply a manifest in different ways.
var appliers = map[string]func(f *testFixture, manifest *corev1.Secret){
	// As kubectl apply --server-side; what other field managers apply is not rewrapped.
	"server-side": func(f *testFixture, manifest *corev1.Secret) {
		f.T.Helper()
		s := manifest.DeepCopy()
		s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
		force := true
		f.patch(s, types.ApplyPatchType, metav1.PatchOptions{FieldManager: "kubectl", Force: &force})
	},
	// As kubectl apply and Argo CD.
	"client-side": func(f *testFixture, manifest *corev1.Secret) {
		f.T.Helper()
		_, err := f.Kube.CoreV1().Secrets(manifest.Namespace).Create(f.T.Context(), manifest, metav1.CreateOptions{})
		if err != nil {
			f.patch(manifest, types.StrategicMergePatchType, metav1.PatchOptions{})
		}
	},
}

func (f *testFixture) patch(s *corev1.Secret, patchType types.PatchType, opts metav1.PatchOptions) {
	f.T.Helper()
	body, err := json.Marshal(s)
	if err != nil {
		f.T.Fatal(err)
	}
	if _, err := f.Kube.CoreV1().Secrets(s.Namespace).Patch(f.T.Context(), s.Name, patchType, body, opts); err != nil {
		f.T.Fatal(err)
	}
}

// After a rotation somebody applies an old manifest. The next run reports and rewraps its
// entries, and retires nothing.
func TestOldManifestReapplied(t *testing.T) {
	for name, apply := range appliers {
		t.Run(name, func(t *testing.T) {
			f := newServerFixture(t)
			manifest := f.encrypt(f.Namespace, "s", map[string]string{"a": "x", "b": "y"})
			run := func(change ...func(*rotator.Options)) *rotator.KeyReport {
				t.Helper()
				report, err := rotator.Run(t.Context(), f.retirer(), f.Kube,
					f.options(append([]func(*rotator.Options){retiring(time.Hour)}, change...)...))
				if err != nil {
					t.Fatal(err)
				}
				return onlyKey(t, report)
			}
			apply(f, manifest)
			f.RotateKey()
			if k := run(); k.Reverted.Count != 0 || k.Rewrapped != 2 {
				t.Errorf("first run: %+v", k)
			}
			apply(f, manifest)
			if got := versions(t, f.GetSecret(f.Namespace, "s")); got["a"] != 1 || got["b"] != 1 {
				t.Fatalf("the old manifest is not applied: %v", got)
			}
			if k := run(func(o *rotator.Options) { o.DryRun = true }); k.Reverted.Count != 2 {
				t.Errorf("dry run: %+v", k)
			}
			k := run()
			want := []string{f.Namespace + "/s/a", f.Namespace + "/s/b"}
			var got []string
			for _, p := range k.Reverted.Items {
				location, reason, _ := strings.Cut(p.String(), ": ")
				got = append(got, location)
				if !strings.HasPrefix(reason, "SecretReverted: is back at key version 1 after it was rewrapped to 2") {
					t.Errorf("reason %q", reason)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" || k.Reverted.Count != 2 {
				t.Errorf("%d reverted (-want +got):\n%s", k.Reverted.Count, diff)
			}
			if k.Rewrapped != 2 || k.Unresolved.Count != 0 {
				t.Errorf("rewrapped %d, unresolved: %v", k.Rewrapped, k.Unresolved.Items)
			}
			if r := k.Retire; r.Done || !strings.Contains(r.Reason, "no entry below version 2 has been seen since") {
				t.Errorf("retire: %+v", r)
			}
			if got := f.plain(f.Namespace, "s"); got["a"] != "x" || got["b"] != "y" {
				t.Errorf("entries %v", got)
			}
			if stored := f.summary().Keys[0]; stored.Reverted.Count != 2 || len(stored.Reverted.Items) != 2 {
				t.Errorf("the summary is %+v", stored)
			}
			// When it is not applied again, the version is retired.
			if k := run(func(o *rotator.Options) { o.RetireAfter = 0 }); k.Reverted.Count != 0 || !k.Retire.Done {
				t.Errorf("last run: %+v, %+v", k, k.Retire)
			}
		})
	}
}

// After a run rewraps an old entry, the wait for retirement restarts, even if somebody else
// writes the state at the same time.
func TestRetireWaitsAfterRewrap(t *testing.T) {
	const week = 7 * 24 * time.Hour
	for name, conflict := range map[string]bool{"without a conflict": false, "with a conflict": true} {
		t.Run(name, func(t *testing.T) {
			f := newServerFixture(t)
			old := f.encrypt(f.Namespace, "late", map[string]string{"e": "x"})
			f.RotateKey()
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
			// Another run writes the state before the first write.
			writeFirst := func() {
				m := f.stateOf()
				m.Annotations = map[string]string{"by": "another"}
				if _, err := f.Kube.CoreV1().ConfigMaps(f.Namespace).Update(t.Context(), m, metav1.UpdateOptions{}); err != nil {
					t.Error(err)
				}
			}
			conflicting := f.Client(func(next http.RoundTripper) http.RoundTripper {
				return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
					if r.Method == http.MethodPut && writeFirst != nil {
						writeFirst()
						writeFirst = nil
					}
					return next.RoundTrip(r)
				})
			})
			run := func(later time.Duration, kube kubernetes.Interface) *rotator.KeyReport {
				t.Helper()
				report, err := rotator.Run(t.Context(), f.retirer(), kube, f.options(retiring(week), at(later)))
				if err != nil {
					t.Fatal(err)
				}
				return onlyKey(t, report)
			}
			run(0, f.Kube)
			f.CreateSecret(old)
			second := f.Kube
			if conflict {
				second = conflicting
			}
			if k := run(week+time.Hour, second); k.Rewrapped != 1 || k.Retire.Done {
				t.Errorf("retired in the run that rewrapped it: %+v, %+v", k, k.Retire)
			}
			if k := run(week+2*time.Hour, f.Kube); k.Retire.Done {
				t.Errorf("retired an hour after: %+v", k.Retire)
			}
			if k := run(2*week+3*time.Hour, f.Kube); !k.Retire.Done {
				t.Errorf("not retired a week after: %+v", k.Retire)
			}
			if conflict && writeFirst != nil {
				t.Error("there was no conflict")
			}
		})
	}
}

// A Secret without annotations gets its first one, and keeps one that somebody else adds at
// the same time.
func TestRewrapSetsAnnotation(t *testing.T) {
	f := newServerFixture(t)
	s := f.encrypt(f.Namespace, "bare", map[string]string{"e": "x"})
	s.Annotations = nil
	f.CreateSecret(s)
	f.RotateKey()
	kube := f.Client(fixture.BeforeEach(http.MethodPatch, func(n int) {
		if n > 0 {
			return
		}
		f.patch(
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "bare",
				Annotations: map[string]string{"note": "keep me"}}},
			types.StrategicMergePatchType, metav1.PatchOptions{})
	}))
	if _, err := rotator.Run(t.Context(), f.minimal(), kube, f.options()); err != nil {
		t.Fatal(err)
	}
	current := f.GetSecret(f.Namespace, "bare")
	want := map[string]string{"note": "keep me", ciphertext.AnnotationRewrapped: "2"}
	if diff := cmp.Diff(want, current.Annotations); diff != "" || versions(t, current)["e"] != 2 {
		t.Errorf("versions %v, annotations (-want +got):\n%s", versions(t, current), diff)
	}
}

// An old manifest whose version is retired is reported as reverted and unresolved.
func TestOldManifestAfterRetirement(t *testing.T) {
	f := newServerFixture(t)
	manifest := f.encrypt(f.Namespace, "s", map[string]string{"e": "x"})
	appliers["server-side"](f, manifest)
	f.RotateKey()
	if _, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(retiring(0))); err != nil {
		t.Fatal(err)
	}
	appliers["server-side"](f, manifest)
	f.RotateKey()
	report, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(retiring(0)))
	k := onlyKey(t, report)
	if !errors.Is(err, rotator.ErrIncomplete) || k.Reverted.Count != 1 || k.Unresolved.Count != 1 ||
		!strings.Contains(k.Unresolved.Items[0].Reason, "comes from before the last retirement") {
		t.Errorf("%v, reverted: %v, unresolved: %v", err, k.Reverted.Items, k.Unresolved.Items)
	}
	if r := k.Retire; r.Done || r.Blocked != rotator.BlockerMissing {
		t.Errorf("retire: %+v", r)
	}
}

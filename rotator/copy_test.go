package rotator_test

import (
	"errors"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// TestCopiesAreRewrapped checks the table in docs/rotation.md: which stolen copies a
// run rewraps, so that they outlive the versions that are retired.
func TestCopiesAreRewrapped(t *testing.T) {
	const old, rewrapped = 1, 2
	for scope, want := range map[ciphertext.Scope]map[string]int{
		ciphertext.Strict:    {"original": rewrapped, "same namespace": old, "other namespace": old},
		ciphertext.Namespace: {"original": rewrapped, "same namespace": rewrapped, "other namespace": old},
		ciphertext.Cluster:   {"original": rewrapped, "same namespace": rewrapped, "other namespace": rewrapped},
		ciphertext.None:      {"original": rewrapped, "same namespace": rewrapped, "other namespace": rewrapped},
	} {
		t.Run(string(scope), func(t *testing.T) {
			w := newWorld(t)
			if scope == ciphertext.None {
				w.key += "-underived"
				w.newKey(w.key, false)
			}
			other := w.ns + "-thief"
			w.namespace(other)
			original := w.seal(w.ns, "original", map[string]string{"e": "x"}, scoped(scope))
			places := map[string][2]string{
				"original": {w.ns, "original"}, "same namespace": {w.ns, "copy"}, "other namespace": {other, "original"},
			}
			for _, place := range places {
				s := original.DeepCopy()
				s.Namespace, s.Name = place[0], place[1]
				w.store(s)
			}
			w.rotateKey()

			refused := 0
			for version := range maps.Values(want) {
				if version == old {
					refused++
				}
			}
			report, err := rotator.Run(t.Context(), w.minimal(), w.kube, w.options())
			if (refused > 0) != errors.Is(err, rotator.ErrIncomplete) || refused == 0 && err != nil {
				t.Errorf("%d copies to refuse, and the run says: %v", refused, err)
			}
			if k := only(t, report); k.LeftCount != refused {
				t.Errorf("%d entries are reported, want %d: %v", k.LeftCount, refused, k.Left)
			}
			got := map[string]int{}
			for name, place := range places {
				got[name] = versions(t, w.get(place[0], place[1]))["e"]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("versions, -want +got:\n%s", diff)
			}
		})
	}
}

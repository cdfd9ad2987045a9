package rotator_test

import (
	"errors"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// TestCopiesAreRewrapped checks the table in docs/rotation.md: which stolen copies a run
// rewraps, so that they still decrypt after retirement.
func TestCopiesAreRewrapped(t *testing.T) {
	const old, rewrapped = 1, 2
	for scope, want := range map[ciphertext.Scope]map[string]int{
		ciphertext.Strict:    {"original": rewrapped, "same namespace": old, "other namespace": old},
		ciphertext.Namespace: {"original": rewrapped, "same namespace": rewrapped, "other namespace": old},
		ciphertext.Cluster:   {"original": rewrapped, "same namespace": rewrapped, "other namespace": rewrapped},
		ciphertext.None:      {"original": rewrapped, "same namespace": rewrapped, "other namespace": rewrapped},
	} {
		t.Run(string(scope), func(t *testing.T) {
			f := newServerFixture(t)
			if scope == ciphertext.None {
				f.Key += "-underived"
				f.CreateKey(f.Key, false)
			}
			other := f.Namespace + "-thief"
			f.CreateNamespace(other)
			original := f.encrypt(f.Namespace, "original", map[string]string{"e": "x"}, scoped(scope))
			locations := map[string][2]string{
				"original": {f.Namespace, "original"}, "same namespace": {f.Namespace, "copy"},
				"other namespace": {other, "original"},
			}
			for _, location := range locations {
				s := original.DeepCopy()
				s.Namespace, s.Name = location[0], location[1]
				f.CreateSecret(s)
			}
			f.RotateKey()

			refused := 0
			for version := range maps.Values(want) {
				if version == old {
					refused++
				}
			}
			report, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options())
			if (refused > 0) != errors.Is(err, rotator.ErrIncomplete) || refused == 0 && err != nil {
				t.Errorf("%d copies cannot be rewrapped, error: %v", refused, err)
			}
			if k := onlyKey(t, report); k.Unresolved.Count != refused {
				t.Errorf("%d entries are unresolved, want %d: %v", k.Unresolved.Count, refused, k.Unresolved.Items)
			}
			got := map[string]int{}
			for name, location := range locations {
				got[name] = versions(t, f.GetSecret(location[0], location[1]))["e"]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("versions, -want +got:\n%s", diff)
			}
		})
	}
}

package rotator_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// TestRestoredKeyIsLeftAlone makes the key another one than earlier runs saw. Every run after
// that does nothing to it, whatever it lists, until the operator acknowledges the key.
func TestRestoredKeyIsLeftAlone(t *testing.T) {
	for name, change := range map[string]func(f *testFixture, backup any){
		"restored": func(f *testFixture, backup any) { f.restore(backup) },
		"restored and rotated again": func(f *testFixture, backup any) {
			f.restore(backup)
			f.RotateKey()
			f.RotateKey()
		},
		"created again": func(f *testFixture, _ any) {
			f.deleteKey()
			f.CreateKey(f.Key, true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			other := f.Namespace + "-other"
			f.CreateNamespace(other)
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
			backup := f.backup()
			run := func(change ...func(*rotator.Options)) (*rotator.KeyReport, error) {
				t.Helper()
				change = append([]func(*rotator.Options){retiring(0), func(o *rotator.Options) {
					o.Rotate, o.Namespaces = rotator.Always, []string{other}
				}}, change...)
				report, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(change...))
				return onlyKey(t, report), err
			}
			cluster := func(o *rotator.Options) { o.Namespaces = nil }
			// Creation times have whole seconds, and the version that is lost must be another one.
			f.nextSecond()
			if k, err := run(); err != nil || !k.Rotated { // lists no Secret
				t.Fatalf("%v: %+v", err, k)
			}
			f.nextSecond()
			change(f, backup)
			before := f.KeyInfo()

			for scope, change := range map[string]func(*rotator.Options){"namespaced": func(*rotator.Options) {},
				"cluster": cluster} {
				k, err := run(change)
				after := f.KeyInfo()
				if err == nil || !strings.HasPrefix(k.Error, failure.KeyRestored.String()+": ") || k.Rotated || k.Rewrapped > 0 ||
					k.Retire.Done || after.Latest != before.Latest || after.MinDecryptionVersion != before.MinDecryptionVersion {
					t.Errorf("%s: %v: %+v", scope, err, k)
				}
				if want := fmt.Sprintf("--acknowledge=transit/%s@%d", f.Key, before.Latest); !strings.Contains(k.Error, want) {
					t.Errorf("%s: no %s in %s", scope, want, k.Error)
				}
			}
			acknowledge := func(version int) func(*rotator.Options) {
				return func(o *rotator.Options) { o.Acknowledge = []string{fmt.Sprintf("transit/%s@%d", f.Key, version)} }
			}
			if k, err := run(acknowledge(before.Latest + 1)); err == nil || k.Rotated {
				t.Errorf("another version was acknowledged: %v, rotated %v", err, k.Rotated)
			}
			if k, err := run(acknowledge(before.Latest)); err != nil || !k.Rotated {
				t.Errorf("acknowledged: %v, rotated %v", err, k.Rotated)
			}
			if k, err := run(); err != nil || !k.Rotated { // once is enough
				t.Errorf("after the acknowledgment: %v, rotated %v", err, k.Rotated)
			}
		})
	}
}

func TestAcknowledgeSyntax(t *testing.T) {
	for text, valid := range map[string]bool{
		"transit/app@3": true, "team/transit/app@12": true,
		"": false, "transit/app": false, "app@3": false, "transit/app@0": false, "transit/app@x": false,
		"../sys/app@1": false,
	} {
		if err := (rotator.Options{Keys: []string{"app"}, Acknowledge: []string{text}}).Validate(); (err == nil) != valid {
			t.Errorf("%q: %v", text, err)
		}
	}
}

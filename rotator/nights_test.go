package rotator_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// TestRestoreOfEachNight rotates ten times and restores the key, after each run, from every
// backup that is not older than the settle time: every ciphertext still decrypts.
func TestRestoreOfEachNight(t *testing.T) {
	parallel(t)
	const secrets, settle, night = 200, 2500 * time.Millisecond, 1100 * time.Millisecond
	for name, config := range map[string]struct {
		setUp func(f *testFixture)
		auto  bool // Vault rotates the key, at a shorter interval than the runs
	}{
		"new key":             {setUp: func(*testFixture) {}},
		"versions on day one": {setUp: func(f *testFixture) { f.RotateKey(); f.RotateKey() }},
		"Vault rotates it":    {setUp: func(*testFixture) {}, auto: true},
		"min_encryption_version": {setUp: func(f *testFixture) {
			f.RotateKey()
			f.Write("transit/keys/"+f.Key+"/config", map[string]any{"min_encryption_version": 2})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newServerFixture(t)
			config.setUp(f)
			for i := range secrets {
				f.CreateSecret(f.encrypt(f.Namespace, fmt.Sprintf("s%d", i), map[string]string{"e": fmt.Sprint(i)}))
			}
			type backup struct {
				taken time.Time
				data  any
			}
			var backups []backup
			rewrapped := 0
			for n := range 10 {
				began := time.Now()
				f.encryptTonight(n, settle)
				backups = append(backups, backup{began, f.backup()})
				report, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options(func(o *rotator.Options) {
					o.Rotate, o.Settle = rotator.Always, settle
					if config.auto {
						o.Rotate = rotator.Auto
					}
				}))
				if err != nil {
					t.Fatal(err)
				}
				k := onlyKey(t, report)
				rewrapped += k.Rewrapped
				if age := f.KeyInfo().Created[k.Target]; k.Unsettled == nil && time.Since(age) < settle {
					t.Errorf("version %d is reported as settled", k.Target)
				}
				now := f.backup()
				for _, b := range backups {
					if time.Since(b.taken) > settle {
						continue
					}
					f.restore(b.data)
					f.checkAllDecrypt()
				}
				f.restore(now)
				if config.auto { // Vault accepts no auto_rotate_period below an hour
					f.RotateKey()
				}
				time.Sleep(time.Until(began.Add(night))) // the test depends on the age of versions
			}
			if rewrapped < 2*secrets {
				t.Errorf("%d entries were rewrapped in ten nights", rewrapped)
			}
		})
	}
}

// encryptTonight stores a new Secret and changes an entry of another, as encrypt and edit do.
func (f *testFixture) encryptTonight(night int, settle time.Duration) {
	f.T.Helper()
	settled := func(s *secretmanager.Spec) { s.Settle = settle }
	f.CreateSecret(f.encrypt(f.Namespace, fmt.Sprintf("new%d", night), map[string]string{"e": "new"}, settled))
	changed := f.encrypt(f.Namespace, "s0", map[string]string{"e": "changed"}, settled)
	f.mergeEntry("s0", changed.Data["e"])
}

// checkAllDecrypt verifies that every entry of the namespace decrypts at its location.
func (f *testFixture) checkAllDecrypt() {
	f.T.Helper()
	list, err := f.Kube.CoreV1().Secrets(f.Namespace).List(f.T.Context(), metav1.ListOptions{})
	if err != nil {
		f.T.Fatal(err)
	}
	v := secretmanager.NewVerifier(f.Root, func(r secretmanager.VerifyResult) {
		if r.Err != nil || len(r.Failed) > 0 {
			f.T.Errorf("%s does not decrypt: %v %v", r.Secret.Name, r.Err, r.Failed)
		}
	})
	for i := range list.Items {
		if err := v.Add(f.T.Context(), &list.Items[i]); err != nil {
			f.T.Fatal(err)
		}
	}
	if err := v.Flush(f.T.Context()); err != nil {
		f.T.Fatal(err)
	}
}

// TestRotateInterval runs twice within minutes, as the retry of a Job does.
func TestRotateInterval(t *testing.T) {
	f := newServerFixture(t)
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	for run, rotated := range []bool{true, false} {
		report, err := rotator.RunInside(t.Context(), f.minimal(), f.Kube, f.options(func(o *rotator.Options) {
			o.Rotate = rotator.Always
		}), rotator.Inside{RotateInterval: 10 * time.Minute})
		k := onlyKey(t, report)
		if err != nil || k.Rotated != rotated || !rotated && !strings.Contains(k.RotateReason, "at most once in 10m0s") {
			t.Errorf("run %d: %v, rotated %v: %s", run, err, k.Rotated, k.RotateReason)
		}
	}
}

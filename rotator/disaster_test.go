package rotator_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

// These tests cover the section "Disaster recovery" of docs/rotation.md.

// backup returns Vault's backup of the fixture's key.
func (f *testFixture) backup() any {
	f.T.Helper()
	if f.memory != nil {
		return f.KeyInfo()
	}
	f.Write("transit/keys/"+f.Key+"/config", map[string]any{"exportable": true, "allow_plaintext_backup": true,
		"deletion_allowed": true})
	data, err := f.Vault.Read(f.T.Context(), "transit/backup/"+f.Key)
	if err != nil {
		f.T.Fatal(err)
	}
	return data["backup"]
}

// restore replaces the fixture's key by a backup.
func (f *testFixture) restore(backup any) {
	f.T.Helper()
	if f.memory != nil {
		f.memory.SetKey(f.key(), backup.(transit.KeyInfo))
		return
	}
	f.Write("transit/restore/"+f.Key, map[string]any{"backup": backup, "force": true})
}

// deleteKey deletes the fixture's key.
func (f *testFixture) deleteKey() {
	f.T.Helper()
	if f.memory != nil {
		f.memory.DeleteKey(f.key())
		return
	}
	_, err := f.Vault.Do(f.T.Context(), http.MethodDelete, "transit/keys/"+f.Key, f.Vault.RootToken, nil)
	f.Must(err)
}

// nextSecond returns when the clock of Vault shows another second.
func (f *testFixture) nextSecond() {
	f.T.Helper()
	if f.memory != nil {
		later := f.memory.Clock().Add(time.Second)
		f.memory.Now = func() time.Time { return later }
		return
	}
	began := f.KeyInfo().ReadAt
	f.wait(func() bool { return !f.KeyInfo().ReadAt.Equal(began) })
}

// A Vault restored from a backup has lost newer versions. The report names their entries.
// The key is not rotated, because the new version would have the number of a lost one,
// and the entries of the lost one would look current.
func TestVaultRestoredFromOlderBackup(t *testing.T) {
	for name, mode := range map[string]rotator.Mode{"auto": rotator.Auto,
		"always": rotator.Always} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			backup := f.backup()
			f.CreateSecret(f.encrypt(f.Namespace, "old", map[string]string{"e": "x"}))
			f.RotateKey()
			f.CreateSecret(f.encrypt(f.Namespace, "new", map[string]string{"e": "y"}))
			due := func(o *rotator.Options) {
				o.Rotate, o.MaxKeyAge = mode, time.Hour
				at(2 * time.Hour)(o)
			}
			f.restore(backup)

			report, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(due, retiring(0)))
			k := onlyKey(t, report)
			if !errors.Is(err, rotator.ErrIncomplete) || k.Unresolved.Count != 1 ||
				!strings.Contains(k.Unresolved.Items[0].String(),
					f.Namespace+"/new/e: KeyVersionNotFound: has key version 2, and the newest of transit/keys/"+f.Key+" is 1") ||
				!strings.Contains(k.Unresolved.Items[0].Reason, "restored from an older backup") {
				t.Errorf("%v, unresolved: %v", err, k.Unresolved.Items)
			}
			if k.Rotated || f.KeyInfo().Latest != 1 ||
				!strings.Contains(k.RotateReason, "1 entries have versions that the key does not have") {
				t.Errorf("the key has %d versions: %s", f.KeyInfo().Latest, k.RotateReason)
			}
			if k.Retire.Done {
				t.Errorf("retire: %+v", k.Retire)
			}
			// Entries of the restored version decrypt.
			if got := f.plain(f.Namespace, "old")["e"]; got != "x" {
				t.Errorf("the entry is %q", got)
			}
			// After the lost entry is encrypted again, the key is rotated.
			again := f.encrypt(f.Namespace, "new", map[string]string{"e": "z"})
			again.ResourceVersion = f.GetSecret(f.Namespace, "new").ResourceVersion
			if _, err := f.Kube.CoreV1().Secrets(f.Namespace).Update(t.Context(), again, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			report, err = rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(due))
			if k := onlyKey(t, report); err != nil || !k.Rotated || k.Rewrapped != 2 {
				t.Errorf("%v: %+v", err, k)
			}
			if got := f.plain(f.Namespace, "new")["e"]; got != "z" {
				t.Errorf("the entry is %q", got)
			}
		})
	}
}

// Without its key a run changes nothing. After the key is restored, it rewraps.
func TestKeyDeleted(t *testing.T) {
	f := newFixture(t)
	before := f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	f.RotateKey()
	backup := f.backup()
	f.deleteKey()
	report, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(retiring(0)))
	k := onlyKey(t, report)
	if !errors.Is(err, rotator.ErrIncomplete) || !strings.Contains(k.Error, "not found") ||
		!strings.Contains(k.Error, "transit/keys/"+f.Key) || k.Retire.Done {
		t.Errorf("%v: %+v", err, k)
	}
	if current := f.GetSecret(f.Namespace, "s"); current.ResourceVersion != before.ResourceVersion {
		t.Error("the Secret was written")
	}
	f.restore(backup)
	report, err = rotator.Run(t.Context(), f.minimal(), f.Kube, f.options())
	if k := onlyKey(t, report); err != nil || k.Rewrapped != 1 {
		t.Errorf("%v: %+v", err, k)
	}
	if got := f.plain(f.Namespace, "s")["e"]; got != "x" {
		t.Errorf("the entry is %q", got)
	}
}

// A cluster restored from a backup has old ciphertext, and an old ConfigMap. If its version
// is not retired, it is rewrapped, and the wait for retirement restarts. Otherwise
// lowering min_decryption_version makes it readable again.
func TestClusterRestoredFromOlderBackup(t *testing.T) {
	const week = 7 * 24 * time.Hour
	f := newFixture(t)
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	f.RotateKey()
	run := func(later time.Duration) (*rotator.KeyReport, error) {
		t.Helper()
		report, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(retiring(week), at(later)))
		return onlyKey(t, report), err
	}
	restore := func(s *corev1.Secret, m *corev1.ConfigMap) {
		t.Helper()
		s, m = s.DeepCopy(), m.DeepCopy()
		s.ResourceVersion, s.UID, m.ResourceVersion, m.UID = "", "", "", ""
		ctx := t.Context()
		err1 := f.Kube.CoreV1().Secrets(f.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{})
		err2 := f.Kube.CoreV1().ConfigMaps(f.Namespace).Delete(ctx, m.Name, metav1.DeleteOptions{})
		_, err3 := f.Kube.CoreV1().Secrets(f.Namespace).Create(ctx, s, metav1.CreateOptions{})
		_, err4 := f.Kube.CoreV1().ConfigMaps(f.Namespace).Create(ctx, m, metav1.CreateOptions{})
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			t.Fatal(err)
		}
	}
	old := f.GetSecret(f.Namespace, "s")
	if _, err := run(0); err != nil {
		t.Fatal(err)
	}
	oldState := f.stateOf()

	restore(old, oldState)
	if k, err := run(week + time.Hour); err != nil || k.Rewrapped != 1 || k.Retire.Done {
		t.Errorf("%v: %+v, retire %+v", err, k, k.Retire)
	}
	if k, err := run(2*week + 2*time.Hour); err != nil || !k.Retire.Done {
		t.Fatalf("%v: %+v", err, k.Retire)
	}

	restore(old, oldState)
	k, err := run(3 * week)
	if !errors.Is(err, rotator.ErrIncomplete) || k.Unresolved.Count != 1 ||
		!strings.Contains(k.Unresolved.Items[0].Reason,
			"lower min_decryption_version of transit/keys/"+f.Key+" to rescue it") {
		t.Errorf("%v, unresolved: %v", err, k.Unresolved.Items)
	}
	f.configure(func(k *transit.KeyInfo) { k.MinDecryptionVersion = 1 })
	k, err = run(3 * week)
	if err != nil || k.Rewrapped != 1 || k.Retire.Done {
		t.Errorf("%v: %+v, retire %+v", err, k, k.Retire)
	}
	if got := f.plain(f.Namespace, "s")["e"]; got != "x" {
		t.Errorf("the entry is %q", got)
	}
}

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
)

// What docs/rotation.md says under "Disaster recovery".

// backup returns the world's key as Vault backs it up.
func (w *world) backup() any {
	w.t.Helper()
	w.write("transit/keys/"+w.key+"/config", map[string]any{"exportable": true, "allow_plaintext_backup": true,
		"deletion_allowed": true})
	data, err := w.vault.Read(w.t.Context(), "transit/backup/"+w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return data["backup"]
}

// restore puts it back, over what there is.
func (w *world) restore(backup any) {
	w.t.Helper()
	w.write("transit/restore/"+w.key, map[string]any{"backup": backup, "force": true})
}

// A Vault restored from a backup has lost the versions made since. What was made
// with them is named. The key is not rotated, as the new version would have the
// number of a lost one, and what is lost would look as if it were current.
func TestVaultRestoredFromOlderBackup(t *testing.T) {
	for name, mode := range map[string]rotator.Mode{"when it is due": rotator.Auto,
		"when it is asked for": rotator.Always} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			backup := w.backup()
			w.store(w.seal(w.ns, "old", map[string]string{"e": "x"}))
			w.rotateKey()
			w.store(w.seal(w.ns, "new", map[string]string{"e": "y"}))
			due := func(o *rotator.Options) {
				o.Rotate, o.MaxKeyAge = mode, time.Hour
				at(2 * time.Hour)(o)
			}
			w.restore(backup)

			report, err := rotator.Run(t.Context(), w.retirer(), w.kube, w.options(due, retiring(0)))
			k := only(t, report)
			if !errors.Is(err, rotator.ErrIncomplete) || k.LeftCount != 1 ||
				!strings.Contains(k.Left[0].String(),
					w.ns+"/new/e: has key version 2, and the newest of transit/keys/"+w.key+" is 1") ||
				!strings.Contains(k.Left[0].Reason, "restored from an older backup") {
				t.Errorf("%v: left %v", err, k.Left)
			}
			if k.Rotated || w.keyInfo().Latest != 1 ||
				!strings.Contains(k.RotateReason, "1 entries are of versions that the key does not have") {
				t.Errorf("the key has %d versions: %s", w.keyInfo().Latest, k.RotateReason)
			}
			if k.Retire.Done || len(k.Retire.WouldBreak) != 1 {
				t.Errorf("retire: %+v", k.Retire)
			}
			// What the backup is old enough for opens.
			if got := w.plain(w.ns, "old")["e"]; got != "x" {
				t.Errorf("the entry holds %q", got)
			}
			// Encrypted anew, it is as ever.
			again := w.seal(w.ns, "new", map[string]string{"e": "z"})
			again.ResourceVersion = w.get(w.ns, "new").ResourceVersion
			if _, err := w.kube.CoreV1().Secrets(w.ns).Update(t.Context(), again, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			report, err = rotator.Run(t.Context(), w.retirer(), w.kube, w.options(due))
			if k := only(t, report); err != nil || !k.Rotated || k.Rewrapped != 2 {
				t.Errorf("%v: %+v", err, k)
			}
			if got := w.plain(w.ns, "new")["e"]; got != "z" {
				t.Errorf("the entry holds %q", got)
			}
		})
	}
}

// Without its key nothing opens and nothing is done; with it restored all is as ever.
func TestKeyDeleted(t *testing.T) {
	w := newWorld(t)
	before := w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	w.rotateKey()
	backup := w.backup()
	if _, err := w.vault.Do(t.Context(), http.MethodDelete, "transit/keys/"+w.key, w.vault.RootToken, nil); err != nil {
		t.Fatal(err)
	}
	report, err := rotator.Run(t.Context(), w.retirer(), w.kube, w.options(retiring(0)))
	k := only(t, report)
	if !errors.Is(err, rotator.ErrIncomplete) || !strings.Contains(k.Error, "not found") ||
		!strings.Contains(k.Error, "transit/keys/"+w.key) || k.Retire.Done {
		t.Errorf("%v: %+v", err, k)
	}
	if now := w.get(w.ns, "s"); now.ResourceVersion != before.ResourceVersion {
		t.Error("the Secret was written")
	}
	w.restore(backup)
	report, err = rotator.Run(t.Context(), w.minimal(), w.kube, w.options())
	if k := only(t, report); err != nil || k.Rewrapped != 1 {
		t.Errorf("%v: %+v", err, k)
	}
	if got := w.plain(w.ns, "s")["e"]; got != "x" {
		t.Errorf("the entry holds %q", got)
	}
}

// A cluster restored from a backup has old ciphertext, and an old ConfigMap that
// knows of none. Before its version is retired it is rewrapped, and the time until
// then begins anew. After, it is rescued by lowering min_decryption_version.
func TestClusterRestoredFromOlderBackup(t *testing.T) {
	const week = 7 * 24 * time.Hour
	w := newWorld(t)
	w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	w.rotateKey()
	run := func(later time.Duration) (*rotator.KeyReport, error) {
		t.Helper()
		report, err := rotator.Run(t.Context(), w.retirer(), w.kube, w.options(retiring(week), at(later)))
		return only(t, report), err
	}
	restore := func(s *corev1.Secret, m *corev1.ConfigMap) {
		t.Helper()
		s, m = s.DeepCopy(), m.DeepCopy()
		s.ResourceVersion, s.UID, m.ResourceVersion, m.UID = "", "", "", ""
		ctx := t.Context()
		err1 := w.kube.CoreV1().Secrets(w.ns).Delete(ctx, s.Name, metav1.DeleteOptions{})
		err2 := w.kube.CoreV1().ConfigMaps(w.ns).Delete(ctx, m.Name, metav1.DeleteOptions{})
		_, err3 := w.kube.CoreV1().Secrets(w.ns).Create(ctx, s, metav1.CreateOptions{})
		_, err4 := w.kube.CoreV1().ConfigMaps(w.ns).Create(ctx, m, metav1.CreateOptions{})
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			t.Fatal(err)
		}
	}
	old := w.get(w.ns, "s")
	if _, err := run(0); err != nil {
		t.Fatal(err)
	}
	knows := w.state()

	restore(old, knows)
	if k, err := run(week + time.Hour); err != nil || k.Rewrapped != 1 || k.Retire.Done {
		t.Errorf("%v: %+v, retire %+v", err, k, k.Retire)
	}
	if k, err := run(2*week + 2*time.Hour); err != nil || !k.Retire.Done {
		t.Fatalf("%v: %+v", err, k.Retire)
	}

	restore(old, knows)
	k, err := run(3 * week)
	if !errors.Is(err, rotator.ErrIncomplete) || k.LeftCount != 1 ||
		!strings.Contains(k.Left[0].Reason, "lower min_decryption_version of transit/keys/"+w.key+" to rescue it") {
		t.Errorf("%v: left %v", err, k.Left)
	}
	w.write("transit/keys/"+w.key+"/config", map[string]any{"min_decryption_version": 1})
	k, err = run(3 * week)
	if err != nil || k.Rewrapped != 1 || k.Retire.Done {
		t.Errorf("%v: %+v, retire %+v", err, k, k.Retire)
	}
	if got := w.plain(w.ns, "s")["e"]; got != "x" {
		t.Errorf("the entry holds %q", got)
	}
}

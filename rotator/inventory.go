package rotator

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// inventory is what one listing found.
type inventory struct {
	keys       map[ciphertext.Key]*keyCount
	unassigned Remainder // Secrets whose settings do not say what key they belong to
	unread     []Left
	seen       int
}

// keyCount is the part of one key.
type keyCount struct {
	secrets  int
	versions map[int]int // entries by key version
	pending  int         // entries below the target
	left     Remainder
	passed   int // of those left, the ones that are kept in Git
	PutBack
}

// oldest returns the oldest version among the entries, or none if there are no
// entries.
func (t *keyCount) oldest(none int) int {
	oldest := 0
	for v := range t.versions {
		if oldest == 0 || v < oldest {
			oldest = v
		}
	}
	if oldest == 0 {
		return none
	}
	return oldest
}

func (t *keyCount) entries() (n int) {
	for _, count := range t.versions {
		n += count
	}
	return n
}

// of returns the keyCount of a key, which may have no Secrets.
func (s *inventory) of(k ciphertext.Key) *keyCount {
	t := s.keys[k]
	if t == nil {
		t = &keyCount{versions: map[int]int{}}
		s.keys[k] = t
	}
	return t
}

// takeInventory lists the area and counts. Malformed Secrets and entries are left.
// Once targets are known (see judge), so is what cannot get to them.
func (r *run) takeInventory(ctx context.Context, phase string, a area) *inventory {
	s := &inventory{keys: map[ciphertext.Key]*keyCount{}}
	total := r.secrets
	s.unread = r.each(ctx, a, func(secret *corev1.Secret) {
		s.seen++
		if s.seen%100 == 0 {
			r.progress(Progress{Phase: phase, Done: s.seen, Total: max(total, s.seen)})
		}
		r.count(ctx, s, secret)
	})
	r.progress(Progress{Phase: phase, Done: s.seen, Total: s.seen})
	return s
}

func (r *run) count(ctx context.Context, s *inventory, secret *corev1.Secret) {
	whole := entryRef{secret.Namespace, secret.Name, ""}
	set, err := ciphertext.SettingsOf(secret)
	if err != nil {
		s.unassigned.leave(whole.left(fmt.Sprintf("is not a well-formed ciphertext Secret: %s", err)))
		return
	}
	if r.Mount != "" && set.Key.Mount != r.Mount {
		return
	}
	key := set.Key
	t := s.of(key)
	t.secrets++
	if len(secret.Data) == 0 {
		t.left.leave(whole.left("has no entries: remove the Secret, or its label " + ciphertext.LabelTransitKey))
	}
	for _, entry := range ciphertext.Entries(secret.Data) {
		ref := entryRef{secret.Namespace, secret.Name, entry}
		version, err := ciphertext.Version(secret.Data[entry])
		if err != nil {
			t.left.leave(ref.left(fmt.Sprintf("%s: encrypt the value again", err)))
			continue
		}
		t.versions[version]++
		t.note(secret, ref, version)
		if k := r.keys[key]; k != nil && k.Target > 0 {
			r.judge(ctx, k, t, secret, ref, version)
		}
	}
}

// judge finds out whether a well-formed entry is where it should be, and if it
// is not, why.
func (r *run) judge(ctx context.Context, k *KeyReport, t *keyCount, secret *corev1.Secret, ref entryRef, version int) {
	if version > k.After {
		if newest := r.newest(ctx, k, version); version > newest {
			t.left.leave(
				ref.left(
					fmt.Sprintf("has key version %d, and the newest of %s is %d: it comes from another Vault, or "+
						"this one was restored from an older backup", version, k.key(), newest)))
			return
		}
	}
	if version >= k.Target {
		return
	}
	t.pending++
	if reason := r.whyBelow(k, secret, ref); reason != "" {
		if r.passedOver(secret) && !immutable(secret) {
			t.passed++
		}
		t.left.leave(ref.left(fmt.Sprintf("has key version %d instead of %d: %s", version, k.Target, reason)))
	}
}

// whyBelow returns why an entry is still below the target; in a dry run the
// empty text for one that a real run would bring there.
func (r *run) whyBelow(k *KeyReport, secret *corev1.Secret, ref entryRef) string {
	r.mu.Lock()
	reason := r.reasons[ref]
	r.mu.Unlock()
	switch {
	case reason != "":
		return reason
	case immutable(secret):
		return reasonImmutable
	case r.passedOver(secret):
		return fmt.Sprintf("it is kept by %s, which would put the old value back: run secretmanager rewrap on the "+
			"manifest in Git, or give --include-managed", ciphertext.ManagedBy(secret))
	case r.DryRun:
		return ""
	case k.Error != "":
		return k.Error
	}
	return "it was written during the run: run again"
}

// newest returns the newest version of a key, asked anew when an entry is
// beyond what is known: somebody else may have rotated it meanwhile.
func (r *run) newest(ctx context.Context, k *KeyReport, version int) int {
	ask := keyVersion{k.key(), version}
	if !r.asking[ask] {
		r.asking[ask] = true
		if info, err := r.vault.Key(ctx, k.key()); err == nil {
			k.After = max(k.After, info.Latest)
		}
	}
	return k.After
}

type keyVersion struct {
	key     ciphertext.Key
	version int
}

func immutable(s *corev1.Secret) bool { return s.Immutable != nil && *s.Immutable }

// passedOver is whether the run does not write a Secret because it is kept in Git.
func (r *run) passedOver(s *corev1.Secret) bool {
	return !r.IncludeManaged && ciphertext.ManagedBy(s) != ""
}

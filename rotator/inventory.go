package rotator

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// inventory is the result of listing an area.
type inventory struct {
	keys       map[ciphertext.Key]*keyCount
	unassigned Problems  // Secrets whose settings do not name a key
	unlisted   []Problem // namespaces, or the cluster
	secrets    int
}

// keyCount is the part of an inventory about one key.
type keyCount struct {
	secrets    int
	versions   map[int]int // entries by key version
	pending    int         // entries below the target
	unresolved Problems
	skipped    int // unresolved entries that others manage
	reverted   Problems
}

// oldest returns the oldest version of an entry, or none if there are no entries.
func (c *keyCount) oldest(none int) int {
	oldest := 0
	for v := range c.versions {
		if oldest == 0 || v < oldest {
			oldest = v
		}
	}
	if oldest == 0 {
		return none
	}
	return oldest
}

func (c *keyCount) entries() (n int) {
	for _, count := range c.versions {
		n += count
	}
	return n
}

// below counts the entries with a version below the target.
func (c *keyCount) below(target int) (n int) {
	for v, count := range c.versions {
		if v < target {
			n += count
		}
	}
	return n
}

// between counts the entries with a version from first to last.
func (c *keyCount) between(first, last int) (n int) {
	for v, count := range c.versions {
		if v >= first && v <= last {
			n += count
		}
	}
	return n
}

// count returns the count of a key. It is empty for a key without Secrets.
func (inv *inventory) count(k ciphertext.Key) *keyCount {
	c := inv.keys[k]
	if c == nil {
		c = &keyCount{versions: map[int]int{}}
		inv.keys[k] = c
	}
	return c
}

// takeInventory lists the area and counts Secrets, entries and versions. Once
// targets are known, it also finds the entries that cannot reach theirs.
func (r *run) takeInventory(ctx context.Context, phase string, a area) *inventory {
	inv := &inventory{keys: map[ciphertext.Key]*keyCount{}}
	total := r.secrets
	inv.unlisted = r.eachSecret(ctx, a, func(secret *corev1.Secret) {
		inv.secrets++
		if inv.secrets%100 == 0 {
			r.progress(Progress{Phase: phase, Done: inv.secrets, Total: max(total, inv.secrets)})
		}
		r.countSecret(ctx, inv, secret)
	})
	r.progress(Progress{Phase: phase, Done: inv.secrets, Total: inv.secrets})
	return inv
}

func (r *run) countSecret(ctx context.Context, inv *inventory, secret *corev1.Secret) {
	location := Location{Namespace: secret.Namespace, Name: secret.Name}
	set, err := ciphertext.SettingsOf(secret)
	if err != nil {
		inv.unassigned.add(location.problem(failure.SecretMalformed, "is not a well-formed ciphertext Secret: %s", err))
		return
	}
	if r.Mount != "" && set.Key.Mount != r.Mount {
		return
	}
	c := inv.count(set.Key)
	c.secrets++
	if len(secret.Data) == 0 {
		c.unresolved.add(location.problem(failure.SecretEmpty, "has no entries: remove the Secret, or its label %s",
			ciphertext.LabelTransitKey))
	}
	skippedFor := sync.OnceValue(func() string { return r.skippedFor(secret) })
	for _, entry := range ciphertext.Entries(secret.Data) {
		location.Entry = entry
		version, err := ciphertext.Version(secret.Data[entry])
		if err != nil {
			c.unresolved.add(location.problem(failure.InvalidCiphertext, "%s: encrypt the value again", err))
			continue
		}
		c.versions[version]++
		c.checkReverted(secret, location, version)
		if k := r.keys[set.Key]; k != nil && k.Target > 0 {
			r.checkEntry(ctx, k, c, secret, location, version, skippedFor)
		}
	}
}

// checkReverted records an entry that is older than what the rotator wrote.
func (c *keyCount) checkReverted(secret *corev1.Secret, location Location, version int) {
	written, err := strconv.Atoi(secret.Annotations[ciphertext.AnnotationRewrapped])
	if err != nil || version >= written {
		return
	}
	c.reverted.add(location.problem(failure.SecretReverted,
		"is back at key version %d after it was rewrapped to %d: an old manifest was "+
			"applied or a backup restored: rewrap it at its source (secretmanager rewrap FILE)", version, written))
}

// checkEntry records a well-formed entry that is not at the target version, and why.
func (r *run) checkEntry(ctx context.Context, k *KeyReport, c *keyCount, secret *corev1.Secret, location Location,
	version int, skippedFor func() string) {
	if version > k.After {
		if newest := r.newestVersion(ctx, k, version); version > newest {
			c.unresolved.add(location.problem(failure.KeyVersionNotFound,
				"has key version %d, and the newest of %s is %d: it comes from another "+
					"Vault, or this one was restored from an older backup", version, k.key(), newest))
			return
		}
	}
	if version >= k.Target {
		return
	}
	c.pending++
	if reason := r.reasonBelow(k, secret, location, skippedFor()); reason != "" {
		if skippedFor() != "" && !immutable(secret) {
			c.skipped++
		}
		reason, text, _ := strings.Cut(reason, ": ")
		c.unresolved.add(Problem{location, fmt.Sprintf("%s: has key version %d instead of %d: %s", reason, version, k.Target,
			text)})
	}
}

// reasonBelow returns why an entry is below the target, beginning with the reason, or
// "" in a dry run if a run would rewrap it.
func (r *run) reasonBelow(k *KeyReport, secret *corev1.Secret, location Location, skippedFor string) string {
	r.mu.Lock()
	reason := r.reasons[location]
	r.mu.Unlock()
	switch {
	case reason != "":
		return reason
	case immutable(secret):
		return reasonImmutable
	case skippedFor != "":
		return reasonText(failure.SecretManaged,
			"it is managed by %s, which would revert the change: "+managedHint, skippedFor)
	case r.DryRun:
		return ""
	case k.Error != "":
		return k.Error
	}
	return reasonText(failure.SecretModified, "it was written during the run: run again")
}

// newestVersion returns the newest version of a key. It reads the key again for an
// entry with a higher version: somebody else may have rotated the key meanwhile.
func (r *run) newestVersion(ctx context.Context, k *KeyReport, version int) int {
	query := keyVersion{k.key(), version}
	if !r.queried[query] {
		r.queried[query] = true
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

// skippedFor returns the manager because of which the run does not write a Secret, or "".
func (r *run) skippedFor(s *corev1.Secret) string {
	if m := ciphertext.ManagedBy(s); m.Reverts && !r.IncludeManaged {
		return m.Name
	}
	return ""
}

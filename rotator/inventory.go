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
	keys        map[ciphertext.Key]*keyCount
	unassigned  Problems  // Secrets whose settings do not name a key
	notSelected Problems  // Secrets whose key is not selected, or not for their namespace
	unlisted    []Problem // namespaces, or the cluster
	secrets     int
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

// oldest returns the oldest version of an entry, or 0 if there are no entries.
func (c *keyCount) oldest() (oldest int) {
	for v := range c.versions {
		if oldest == 0 || v < oldest {
			oldest = v
		}
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

// above counts the entries with a version above another one.
func (c *keyCount) above(version int) (n int) {
	for v, count := range c.versions {
		if v > version {
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
// targets are known, it also finds the entries that cannot reach theirs, and verifies them if
// rest is not nil.
func (r *run) takeInventory(ctx context.Context, phase string, a area, rest *remainder) *inventory {
	inv := &inventory{keys: map[ciphertext.Key]*keyCount{}}
	total := r.secrets
	inv.unlisted = r.eachSecret(ctx, a, func(secret *corev1.Secret) {
		inv.secrets++
		if inv.secrets%100 == 0 {
			r.progress(Progress{Phase: phase, Done: inv.secrets, Total: max(total, inv.secrets)})
		}
		r.countSecret(ctx, inv, secret)
		if rest != nil {
			rest.add(ctx, secret)
		}
	})
	if rest != nil {
		rest.flush(ctx)
	}
	r.progress(Progress{Phase: phase, Done: inv.secrets, Total: inv.secrets})
	return inv
}

func (r *run) countSecret(ctx context.Context, inv *inventory, secret *corev1.Secret) {
	location := Location{Namespace: secret.Namespace, Name: secret.Name}
	set, err := ciphertext.SettingsOf(secret)
	if err != nil && r.selectsName(secret.Labels[ciphertext.LabelTransitKey]) {
		inv.unassigned.add(location.problem(failure.SecretMalformed, "is not a well-formed ciphertext Secret: %s", err))
		return
	}
	if err == nil {
		err = r.checkSelected(secret, set.Key)
	}
	if err != nil {
		inv.notSelected.add(location.problem(failure.KeyNotSelected, "%s", err))
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

// selectsName reports whether the options select a key of this name, in any transit engine.
func (r *run) selectsName(name string) bool {
	for key := range r.selected {
		if key.Name == name {
			return true
		}
	}
	return false
}

// checkSelected returns an error if the options do not select the key of a Secret, or not for
// its namespace.
func (r *run) checkSelected(secret *corev1.Secret, key ciphertext.Key) error {
	rule := r.selected[key]
	switch {
	case rule == nil:
		return fmt.Errorf("uses %s, which no --transit-key selects, or which does not exist: it is not rewrapped", key)
	case !rule.allows(secret.Namespace):
		return fmt.Errorf("uses %s, which --transit-key allows in %s only: it is not rewrapped", key,
			strings.Join(rule.namespaces, ", "))
	}
	return nil
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
func (r *run) checkEntry(ctx context.Context, k *keyRun, c *keyCount, secret *corev1.Secret, location Location,
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
func (r *run) reasonBelow(k *keyRun, secret *corev1.Secret, location Location, skippedFor string) string {
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
func (r *run) newestVersion(ctx context.Context, k *keyRun, version int) int {
	query := keyVersion{k.key(), version}
	if !r.queried[query] {
		r.queried[query] = true
		if info, err := r.readKey(ctx, k.key()); err == nil {
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

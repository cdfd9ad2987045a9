package rotator

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/batch"
	"github.com/secretmanager-io/secretmanager/transit"
)

// A remainder verifies the entries that a run leaves below the target: those that decrypt are
// still in use, and the others count for nothing.
type remainder struct {
	run     *run
	batches batch.Batcher[part]
}

func (r *run) newRemainder() *remainder {
	m := &remainder{run: r}
	m.batches.Send = m.verify
	return m
}

// add adds the entries of a Secret that are below the target.
func (m *remainder) add(ctx context.Context, s *corev1.Secret) {
	set, err := ciphertext.SettingsOf(s)
	if err != nil || m.run.checkSelected(s, set.Key) != nil {
		return
	}
	k := m.run.keys[set.Key]
	if k == nil || k.Target == 0 || k.Error != "" {
		return
	}
	entries, _ := below(s, k.Target)
	if len(entries) == 0 {
		return
	}
	s.ManagedFields = nil // often most of the object
	_ = m.batches.Add(ctx, batch.GroupOf(set), part{s, set, entries}, len(entries), sizeOf(s, entries))
}

// verify asks Vault about the entries. It returns no error: the keys have what is unknown.
func (m *remainder) verify(ctx context.Context, g batch.Group, parts []part) error {
	k := m.run.keys[g.Key]
	var items []transit.Item
	for _, p := range parts {
		items = append(items, p.items()...)
	}
	versions := make([]int, len(items))
	for i := range items {
		versions[i], _ = ciphertext.Version(items[i].Data) // below has parsed it
	}
	var errs []error
	err := m.run.outage()
	if err == nil {
		errs, err = transit.Decryptable(ctx, m.run.vault, g.Key, items)
		m.run.noteOutage(err)
	}
	if err != nil {
		k.unverified = true
		m.run.Log.Warn("entries cannot be verified", "key", g.Key.String(), "error", err)
		return nil
	}
	for i, err := range errs {
		switch {
		case versions[i] < k.MinDecryption: // does not decrypt, whatever Vault answers
		case err == nil:
			k.facts.hold(versions[i])
		case !transit.IsUndecryptable(err):
			k.unverified = true
		}
	}
	return nil
}

// hold records a text of the version that decrypts and stays.
func (f *facts) hold(version int) {
	if f.held == 0 || version < f.held {
		f.held = version
	}
}

// flush verifies what is left.
func (m *remainder) flush(ctx context.Context) { _ = m.batches.Flush(ctx) }

func sizeOf(s *corev1.Secret, entries []string) (n int) {
	for _, entry := range entries {
		n += len(s.Data[entry])
	}
	return n
}

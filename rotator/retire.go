package rotator

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/secretlist"
	"github.com/secretmanager-io/secretmanager/transit"
)

// retire raises min_decryption_version of every key that is ready. The last inventory
// must be of the whole cluster.
func (r *run) retire(ctx context.Context) {
	cluster := r.clusterBlock(ctx)
	for _, k := range r.report.Keys {
		k.Retire = r.retireKey(ctx, k, cluster)
		r.Log.Info("retire", "key", k.key().String(), "done", k.Retire.Done, "from", k.Retire.From, "to",
			k.Retire.To, "reason", k.Retire.Reason)
		for _, p := range k.Retire.WouldBreak {
			r.Log.Warn("would break", "key", k.key().String(), "location", p.Location.String(), "reason", p.Reason)
		}
	}
}

// block is what prevents the retirement of a version.
type block struct {
	kind     Blocker // empty: nothing
	reason   string
	problems []Problem // what would break
}

func blockf(kind Blocker, problems []Problem, format string, args ...any) block {
	return block{kind, fmt.Sprintf(format, args...), problems}
}

// clusterBlock returns why part of the cluster's ciphertext may be unknown.
func (r *run) clusterBlock(ctx context.Context) block {
	if unlisted := r.inventory.unlisted; len(unlisted) > 0 {
		return blockf(BlockerUnlisted, unlisted, "not everything can be listed: %s", unlisted[0])
	}
	if unassigned := r.inventory.unassigned; unassigned.Count > 0 {
		return blockf(BlockerUnassigned, unassigned.Items, "%d Secrets do not name their key, for example %s",
			unassigned.Count, unassigned.Items[0])
	}
	// No listing by label has a ciphertext Secret that lost its label.
	var unlabeled Problems
	unlisted := r.eachSecret(ctx, area{selection: secretlist.ByType()}, func(s *corev1.Secret) {
		location := Location{Namespace: s.Namespace, Name: s.Name}
		unlabeled.add(location.problem(failure.SecretUnlabeled, "has no label %s", ciphertext.LabelTransitKey))
	})
	if len(unlisted) > 0 {
		return blockf(BlockerUnlisted, unlisted, "not everything can be listed: %s", unlisted[0])
	}
	if unlabeled.Count > 0 {
		return blockf(BlockerUnassigned, unlabeled.Items, "%d ciphertext Secrets do not name their key, for example %s",
			unlabeled.Count, unlabeled.Items[0])
	}
	return block{}
}

// keyBlock returns why entries may still need old versions of a key.
func (r *run) keyBlock(k *KeyReport, cluster block) block {
	c := r.inventory.count(k.key())
	switch {
	case k.Error != "":
		return blockf(BlockerError, nil, "the run failed: %s", k.Error)
	case cluster.kind != "":
		return cluster
	case c.unresolved.Count > 0:
		return blockf(BlockerUnresolved, c.unresolved.Items,
			"%d entries are unresolved and could never be decrypted again, for example %s",
			c.unresolved.Count, c.unresolved.Items[0])
	case c.pending > 0:
		return blockf(BlockerPending, nil, "%d entries are still below version %d", c.pending, k.Target)
	case k.Reverted.Count > 0:
		return blockf(BlockerReverted, k.Reverted.Items,
			"%d entries were reverted to an older version, and could be again once it does not decrypt, for example %s",
			k.Reverted.Count, k.Reverted.Items[0])
	}
	return block{}
}

func (r *run) retireKey(ctx context.Context, k *KeyReport, cluster block) *RetireReport {
	// Read immediately before the change, which therefore never lowers it.
	info, err := r.vault.Key(ctx, k.key())
	if err != nil {
		return &RetireReport{Reason: "the key cannot be read: " + err.Error(), Blocked: BlockerError}
	}
	from := info.MinDecryptionVersion
	unchanged := func(format string, args ...any) *RetireReport {
		return &RetireReport{From: from, To: from, Reason: fmt.Sprintf(format, args...)}
	}
	if b := r.keyBlock(k, cluster); b.kind != "" {
		return &RetireReport{From: from, To: from, Reason: b.reason, Blocked: b.kind, WouldBreak: b.problems}
	}
	history := r.state.history(k.key())
	target := min(k.Target, info.Latest)
	if from >= target {
		return unchanged("every version below %d is retired already", target)
	}
	to := history.CleanSince.ready(target, r.Now().Add(-r.RetireAfter))
	if to <= from {
		next := max(from, 1) + 1
		since, ok := history.CleanSince[next]
		if !ok {
			return unchanged("it is not known yet since when no entry is below version %d", next)
		}
		return unchanged("no entry below version %d has been seen since %s, and %s must pass: it may be retired from %s on",
			next, since.UTC().Format(time.RFC3339), r.RetireAfter, since.Add(r.RetireAfter).UTC().Format(time.RFC3339))
	}
	if r.DryRun {
		return unchanged("would be raised from %d to %d", from, to)
	}
	err = r.vault.SetMinDecryptionVersion(ctx, k.key(), info, to)
	if err != nil {
		err = transit.WithHint(err, "retiring needs update on "+k.key().String()+
			"/config, which a rotator otherwise does not have")
		k.fail(err)
		return &RetireReport{From: from, To: from, Reason: err.Error(), Blocked: BlockerError}
	}
	return &RetireReport{From: from, To: to, Done: true,
		Reason: fmt.Sprintf("no entry below version %d has been seen since %s",
			to, history.CleanSince[to].UTC().Format(time.RFC3339))}
}

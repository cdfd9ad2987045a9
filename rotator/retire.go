package rotator

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/secretlist"
	"github.com/secretmanager-io/secretmanager/transit"
)

// retire raises min_decryption_version of every key that is ready for it, and
// deletes what may be trimmed. The inventory is of the whole cluster, or there is none.
func (r *run) retire(ctx context.Context, found *inventory) {
	blocked := r.canSeeAll(ctx, found)
	for _, k := range r.report.Keys {
		if r.Retire {
			k.Retire = r.retireKey(ctx, k, found, blocked)
			r.Log.Info("retire", "key", k.key().String(), "done", k.Retire.Done, "from", k.Retire.From, "to",
				k.Retire.To, "reason", k.Retire.Reason)
			for _, l := range k.Retire.WouldBreak {
				r.Log.Warn("would break", "key", k.key().String(), "place",
					entryRef{l.Namespace, l.Name, l.Entry}.String(), "reason", l.Reason)
			}
		}
		if r.Trim {
			k.Trim = r.trimKey(ctx, k, found, blocked)
			r.Log.Info("trim", "key", k.key().String(), "done", k.Trim.Done, "from", k.Trim.From, "to", k.Trim.To,
				"reason", k.Trim.Reason)
		}
	}
}

// obstacle is why a key stays as it is, and what would break otherwise.
type obstacle struct {
	kind   Obstacle // empty: nothing is in the way
	reason string
	such   []Left
}

func obstaclef(kind Obstacle, such []Left, format string, args ...any) obstacle {
	return obstacle{kind, fmt.Sprintf(format, args...), such}
}

// canSeeAll returns why not all ciphertext of the cluster can be accounted for.
func (r *run) canSeeAll(ctx context.Context, found *inventory) obstacle {
	if len(found.unread) > 0 {
		return obstaclef(ObstacleUnread, found.unread, "not everything can be seen: %s", found.unread[0])
	}
	if found.unassigned.LeftCount > 0 {
		return obstaclef(ObstacleUnlabelled, found.unassigned.Left,
			"%d Secrets do not say what key they belong to, such as %s", found.unassigned.LeftCount, found.unassigned.Left[0])
	}
	// A ciphertext Secret that lost its label is one that no listing by label has.
	var lost Remainder
	unread := r.each(ctx, area{selection: secretlist.ByType()}, func(s *corev1.Secret) {
		lost.leave(entryRef{s.Namespace, s.Name, ""}.left("has no label " + ciphertext.LabelTransitKey))
	})
	if len(unread) > 0 {
		return obstaclef(ObstacleUnread, unread, "not everything can be seen: %s", unread[0])
	}
	if lost.LeftCount > 0 {
		return obstaclef(ObstacleUnlabelled, lost.Left,
			"%d ciphertext Secrets do not say what key they belong to, such as %s", lost.LeftCount, lost.Left[0])
	}
	return obstacle{}
}

// unfinished returns why old versions of a key may still be needed.
func (r *run) unfinished(k *KeyReport, t *keyCount, blocked obstacle) obstacle {
	switch {
	case k.Error != "":
		return obstaclef(ObstacleError, nil, "the run failed: %s", k.Error)
	case blocked.kind != "":
		return blocked
	case t.left.LeftCount > 0:
		return obstaclef(ObstacleLeft, t.left.Left, "%d entries are left and would never open again, such as %s",
			t.left.LeftCount, t.left.Left[0])
	case t.pending > 0:
		return obstaclef(ObstaclePending, nil, "%d entries are still below version %d", t.pending, k.Target)
	case k.BackCount > 0:
		return obstaclef(ObstacleBack, k.Back,
			"%d entries came back from somewhere, and would again when they do not open any more, such as %s",
			k.BackCount, k.Back[0])
	}
	return obstacle{}
}

func (r *run) retireKey(ctx context.Context, k *KeyReport, found *inventory, blocked obstacle) *RetireReport {
	// Read right before, so that it is never lowered.
	info, err := r.vault.Key(ctx, k.key())
	if err != nil {
		return &RetireReport{Reason: "the key cannot be read: " + err.Error(), Blocked: ObstacleError}
	}
	from := info.MinDecryptionVersion
	not := func(format string, args ...any) *RetireReport {
		return &RetireReport{From: from, To: from, Reason: fmt.Sprintf(format, args...)}
	}
	if o := r.unfinished(k, found.of(k.key()), blocked); o.kind != "" {
		return &RetireReport{From: from, To: from, Reason: o.reason, Blocked: o.kind, WouldBreak: o.such}
	}
	cleanSince := r.state.of(k.key()).CleanSince
	target := min(k.Target, info.Latest)
	if from >= target {
		return not("every version below %d is retired already", target)
	}
	to := cleanSince.ready(target, r.Now().Add(-r.RetireAfter))
	if to <= from {
		next := max(from, 1) + 1
		since, ok := cleanSince[next]
		if !ok {
			return not("since when no entry is below version %d is not known yet", next)
		}
		return not("no entry below version %d has been seen since %s, and %s must pass: it may be retired from %s on",
			next, since.UTC().Format(time.RFC3339), r.RetireAfter, since.Add(r.RetireAfter).UTC().Format(time.RFC3339))
	}
	if r.DryRun {
		return not("would be raised from %d to %d", from, to)
	}
	err = r.vault.SetMinDecryptionVersion(ctx, k.key(), info, to)
	if err != nil {
		err = transit.WithHint(err, "retiring needs update on "+k.key().String()+
			"/config, which a rotator otherwise does not have")
		k.fail(err)
		return &RetireReport{From: from, To: from, Reason: err.Error(), Blocked: ObstacleError}
	}
	info.MinDecryptionVersion = to
	r.state.of(k.key()).Refused.observeRefused(info, r.Now().UTC())
	return &RetireReport{From: from, To: to, Done: true,
		Reason: fmt.Sprintf("no entry below version %d has been seen since %s",
			to, cleanSince[to].UTC().Format(time.RFC3339))}
}

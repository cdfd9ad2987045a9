package rotator

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/transit"
)

// errClocks is wrapped by the error of a time that cannot be trusted.
var errClocks = errors.New("the time is not known")

// now returns the time of Vault, if it is that of the API server too. The clock of this
// machine does not count: it differs from node to node.
func (r *run) now(ctx context.Context) (time.Time, error) {
	for _, k := range r.all {
		if k.Target == 0 {
			continue
		}
		info, err := r.readKey(ctx, k.key())
		if err == nil {
			return r.checkTime(ctx, info)
		}
	}
	return time.Time{}, fmt.Errorf("%w: no key can be read", errClocks)
}

// checkTime returns the time of Vault when it sent the state of a key.
func (r *run) checkTime(ctx context.Context, info transit.KeyInfo) (time.Time, error) {
	now := r.timeOf(info)
	if now.IsZero() {
		return now, fmt.Errorf("%w: the response of Vault has no Date", errClocks)
	}
	kube, err := r.apiServerTime(ctx)
	if err != nil {
		return now, fmt.Errorf(
			"%w: that of the API server cannot be read: %w: check that this identity may create events in "+
				"namespace %s",
			errClocks,
			err,
			r.StateNamespace,
		)
	}
	if difference := now.Sub(kube).Abs(); difference > maxClockDifference {
		return now, fmt.Errorf("%w: Vault says %s and the API server %s: check the clocks of their machines", errClocks,
			now.UTC().Format(time.RFC3339), kube.UTC().Format(time.RFC3339))
	}
	return now.UTC().Truncate(time.Second), nil
}

// apiServerTime returns the time of the API server: the creation time of an object that it does
// not store.
func (r *run) apiServerTime(ctx context.Context) (now time.Time, err error) {
	if r.kubeClock != nil {
		return r.kubeClock(), nil
	}
	event := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: r.StateNamespace, Name: StateName + "-clock"},
		InvolvedObject: corev1.ObjectReference{Kind: "ConfigMap", Namespace: r.StateNamespace, Name: StateName},
		Type:           corev1.EventTypeNormal, Reason: "Clock", Message: "reads the clock",
	}
	err = r.retry.Write(ctx, func() error {
		created, err := r.kube.CoreV1().Events(r.StateNamespace).Create(ctx, event, metav1.CreateOptions{
			DryRun: []string{metav1.DryRunAll},
		})
		if err == nil {
			now = created.CreationTimestamp.Time
		}
		return err
	})
	if err == nil && now.IsZero() {
		err = errors.New("the object has no creation time")
	}
	if err != nil {
		return now, withReason(err, failure.APIServerUnavailable)
	}
	return now, nil
}

// observe adds the last listing to what is known about each key, if it had all its Secrets.
func (r *run) observe(ctx context.Context) {
	now, err := r.now(ctx)
	if err != nil {
		r.clockProblem = err
		r.Log.Warn("the time does not count for retirement", "error", err)
	}
	for _, k := range r.all {
		k.facts.target, k.facts.minimum, k.facts.rewrapped = k.Target, k.MinDecryption, k.Rewrapped
		if err == nil {
			k.facts.at = now
		}
		k.facts.complete = k.Target > 0 && k.Error == "" && !k.unverified && r.complete(k)
	}
}

// complete reports whether the last listing had all Secrets of a key.
func (r *run) complete(k *keyRun) bool {
	return len(r.inventory.unlisted) == 0 && r.Selector == "" && (len(r.Namespaces) == 0 || k.rule.within(r.Namespaces))
}

package rotator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// ErrRunning is what the error of [Run] wraps when another run has the Lease
// [StateName]: nothing was done.
var ErrRunning = errors.New("another run holds the lease")

// leaseDuration is how long the Lease of a run that died keeps others away.
// A holder gives up before, after as long without the API server as it waits for
// that in all it does, and the time from one renewal to the next.
const leaseDuration = 2 * time.Minute

// lease keeps two runs apart. A holder counts as dead when its Lease was seen
// unchanged for as long as that says it lasts; the times in it are for people,
// as the clocks of two machines need not agree.
//
// client-go's leaderelection works alike, but it waits until the holder is gone,
// and does not tell one that is alive from one that died. A run has to end with
// an error in the first case, and to take over in the second.
type lease struct {
	kube      kubernetes.Interface
	namespace string
	holder    string
	duration  time.Duration
	held      *coordinationv1.Lease // as last written
	stop      func()                // ends the renewing, and waits for that
}

func (l *lease) renewEvery() time.Duration { return max(l.duration/6, time.Millisecond) }

// newHolder names this run. Two on one host are two.
func newHolder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return host + "_" + strings.ToLower(rand.Text()[:8])
}

// acquire takes the Lease and keeps it until release. The context that it returns
// ends, with the reason as its cause, when the Lease is lost.
func (l *lease) acquire(ctx context.Context) (context.Context, error) {
	var seen *coordinationv1.Lease
	var since time.Time // when what was seen first looked as it does
	for {
		now, err := l.get(ctx)
		switch {
		case err != nil:
		case holderOf(now) == "" || seen != nil && same(seen, now) && time.Since(since) >= lasts(now):
			// Somebody who is as fast makes this a conflict.
			l.held, err = l.update(ctx, l.fresh(now))
		case seen != nil && holderOf(seen) == holderOf(now) && !same(seen, now):
			return nil,
				fmt.Errorf("%w: Lease %s/%s is held by %s, which renewed it just now: wait until that run has ended, or stop it",
					ErrRunning, l.namespace, StateName, holderOf(now))
		default:
			if seen == nil || !same(seen, now) {
				seen, since = now, time.Now()
			}
			// Renewed or run out, one of both will show.
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("waiting whether %s, who holds Lease %s/%s, is alive: %w", holderOf(now),
					l.namespace, StateName, context.Cause(ctx))
			case <-time.After(min(l.renewEvery(), lasts(now))):
			}
			continue
		}
		if apierrors.IsConflict(err) {
			continue
		}
		if err != nil {
			return nil, stateError("taking Lease", l.namespace, err)
		}
		return l.keep(ctx), nil
	}
}

// keep renews the Lease from time to time.
func (l *lease) keep(ctx context.Context) context.Context {
	ctx, lose := context.WithCancelCause(ctx)
	done, ended := make(chan struct{}), make(chan struct{})
	l.stop = func() {
		close(done)
		lose(context.Canceled)
		<-ended
	}
	go func() {
		defer close(ended)
		ticker := time.NewTicker(l.renewEvery())
		defer ticker.Stop()
		renewed := time.Now()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			began := time.Now()
			// A quarter is for what is under way when the run is told to stop.
			end := renewed.Add(l.duration * 3 / 4)
			renewing, cancel := context.WithDeadline(context.WithoutCancel(ctx), end)
			err := l.renew(renewing)
			cancel()
			switch {
			case err == nil:
				renewed = began
			case errors.Is(err, errTaken) || !time.Now().Before(end):
				lose(fmt.Errorf("losing Lease %s/%s: %w", l.namespace, StateName, err))
				return
			}
		}
	}()
	return ctx
}

var errTaken = errors.New("somebody else has taken it")

func (l *lease) renew(ctx context.Context) error {
	held, err := l.update(ctx, l.renewal(l.held))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		// Written by somebody, or by a request of ours whose answer was lost.
		now, readErr := l.get(ctx)
		switch {
		case apierrors.IsNotFound(readErr):
			return fmt.Errorf("%w: it was deleted", errTaken)
		case readErr != nil:
			return readErr
		case holderOf(now) != l.holder:
			return fmt.Errorf("%w: it is held by %q", errTaken, holderOf(now))
		}
		held, err = l.update(ctx, l.renewal(now))
	}
	if err == nil {
		l.held = held
	}
	return err
}

// release lets the next run begin at once.
func (l *lease) release(ctx context.Context) error {
	l.stop()
	free := l.held.DeepCopy()
	free.Spec.HolderIdentity, free.Spec.AcquireTime, free.Spec.RenewTime = nil, nil, nil
	_, err := l.update(ctx, free)
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) { // those: it is not ours any more
		return fmt.Errorf("releasing Lease %s/%s, which the next run will take when it has run out: %w", l.namespace,
			StateName, err)
	}
	return nil
}

func (l *lease) get(ctx context.Context) (*coordinationv1.Lease, error) {
	return l.kube.CoordinationV1().Leases(l.namespace).Get(ctx, StateName, metav1.GetOptions{})
}

func (l *lease) update(ctx context.Context, to *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	return l.kube.CoordinationV1().Leases(l.namespace).Update(ctx, to, metav1.UpdateOptions{})
}

// fresh makes the Lease that of this run.
func (l *lease) fresh(of *coordinationv1.Lease) *coordinationv1.Lease {
	to := l.renewal(of)
	seconds := max(int32(l.duration/time.Second), 1)
	to.Spec.HolderIdentity, to.Spec.AcquireTime, to.Spec.LeaseDurationSeconds = &l.holder, to.Spec.RenewTime, &seconds
	return to
}

func (l *lease) renewal(of *coordinationv1.Lease) *coordinationv1.Lease {
	to, now := of.DeepCopy(), metav1.NowMicro()
	to.Spec.RenewTime = &now
	return to
}

func holderOf(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// lasts is how long the holder said that it may be silent.
func lasts(l *coordinationv1.Lease) time.Duration {
	if l.Spec.LeaseDurationSeconds == nil {
		return leaseDuration
	}
	return time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second
}

// same is whether nobody wrote the Lease in between.
func same(a, b *coordinationv1.Lease) bool {
	return a.UID == b.UID && a.ResourceVersion == b.ResourceVersion
}

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

	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// ErrRunning is wrapped by the error of [Run] when another run holds the Lease
// [StateName]. The run then changes nothing.
var ErrRunning = failure.AlreadyRunning.Wrap(errors.New("another run holds the lease"))

// leaseDuration is the time after which the Lease of a dead run expires. A holder
// that cannot reach the API server gives up earlier, after [retryKube] and one
// renewal interval.
const leaseDuration = 2 * time.Minute

// lease prevents two runs at a time. A holder counts as dead when its Lease has not
// changed for the duration that the Lease has. The times in the Lease are not
// compared, because the clocks of two machines may differ.
//
// client-go's leaderelection waits until the Lease is free, whether its holder is
// alive or dead. A run must return an error in the first case, and take the Lease
// over in the second.
type lease struct {
	kube      kubernetes.Interface
	namespace string
	holder    string
	duration  time.Duration
	waiting   func(what string) (done func()) // Options.Waiting; may be nil
	held      *coordinationv1.Lease           // as last written
	stop      func()                          // stops renewing and waits until that has stopped
}

func (l *lease) renewEvery() time.Duration { return max(l.duration/6, time.Millisecond) }

// newHolder returns a unique name of this run.
func newHolder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return host + "_" + strings.ToLower(rand.Text()[:8])
}

// acquire takes the Lease and renews it until release. When the Lease is lost, the
// returned context is canceled with the reason as its cause.
func (l *lease) acquire(ctx context.Context) (context.Context, error) {
	var last *coordinationv1.Lease
	var since time.Time // when last was first read
	for {
		current, err := l.get(ctx)
		switch {
		case err != nil:
		case holderOf(current) == "" || last != nil && unchanged(last, current) && time.Since(since) >= durationOf(current):
			// If somebody else takes it at the same time, this is a conflict.
			l.held, err = l.update(ctx, l.taken(current))
		case last != nil && holderOf(last) == holderOf(current) && !unchanged(last, current):
			return nil,
				fmt.Errorf("%w: Lease %s/%s is held by %s, which renewed it just now: wait until that run has ended, or stop it",
					ErrRunning, l.namespace, StateName, holderOf(current))
		default:
			if last == nil {
				defer l.reportWaiting(current)()
			}
			if last == nil || !unchanged(last, current) {
				last, since = current, time.Now()
			}
			// The holder renews it, or it expires.
			select {
			case <-ctx.Done():
				return nil, failure.Stopped.Wrap(fmt.Errorf("waiting for %s to renew Lease %s/%s: %w", holderOf(current),
					l.namespace, StateName, context.Cause(ctx)))
			case <-time.After(min(l.renewEvery(), durationOf(current))):
			}
			continue
		}
		if apierrors.IsConflict(err) {
			continue
		}
		if err != nil {
			return nil, stateError("taking Lease", l.namespace, StateName, err)
		}
		return l.startRenewal(ctx), nil
	}
}

// reportWaiting says that the run waits for the holder of the Lease, until done is called.
func (l *lease) reportWaiting(current *coordinationv1.Lease) (done func()) {
	if l.waiting == nil {
		return func() {}
	}
	return l.waiting(fmt.Sprintf("Lease %s/%s: %s holds it and may have died", l.namespace, StateName, holderOf(current)))
}

// startRenewal starts to renew the Lease. It returns the context of [lease.acquire].
func (l *lease) startRenewal(ctx context.Context) context.Context {
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
			// The last quarter is for requests in flight when the run stops.
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

var errTaken = errors.New("another run has taken it")

func (l *lease) renew(ctx context.Context) error {
	held, err := l.update(ctx, l.renewal(l.held))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		// Somebody else wrote it, or the response to an earlier request was lost.
		current, readErr := l.get(ctx)
		switch {
		case apierrors.IsNotFound(readErr):
			return fmt.Errorf("%w: it was deleted", errTaken)
		case readErr != nil:
			return readErr
		case holderOf(current) != l.holder:
			return fmt.Errorf("%w: it is held by %q", errTaken, holderOf(current))
		}
		held, err = l.update(ctx, l.renewal(current))
	}
	if err == nil {
		l.held = held
	}
	return err
}

// release stops renewing and frees the Lease for the next run.
func (l *lease) release(ctx context.Context) error {
	l.stop()
	free := l.held.DeepCopy()
	free.Spec.HolderIdentity, free.Spec.AcquireTime, free.Spec.RenewTime = nil, nil, nil
	_, err := l.update(ctx, free)
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) { // in these cases it is lost already
		return fmt.Errorf("releasing Lease %s/%s, which the next run takes when it has expired: %w", l.namespace,
			StateName, err)
	}
	return nil
}

func (l *lease) get(ctx context.Context) (*coordinationv1.Lease, error) {
	return l.kube.CoordinationV1().Leases(l.namespace).Get(ctx, StateName, metav1.GetOptions{})
}

func (l *lease) update(ctx context.Context, desired *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	return l.kube.CoordinationV1().Leases(l.namespace).Update(ctx, desired, metav1.UpdateOptions{})
}

// taken returns a copy of a Lease that this run holds.
func (l *lease) taken(current *coordinationv1.Lease) *coordinationv1.Lease {
	desired := l.renewal(current)
	spec, seconds := &desired.Spec, max(int32(l.duration/time.Second), 1)
	spec.HolderIdentity, spec.AcquireTime, spec.LeaseDurationSeconds = &l.holder, spec.RenewTime, &seconds
	return desired
}

// renewal returns a copy of a Lease that is renewed.
func (l *lease) renewal(current *coordinationv1.Lease) *coordinationv1.Lease {
	desired, now := current.DeepCopy(), metav1.NowMicro()
	desired.Spec.RenewTime = &now
	return desired
}

func holderOf(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// durationOf returns the time without renewal after which a Lease expires.
func durationOf(l *coordinationv1.Lease) time.Duration {
	if l.Spec.LeaseDurationSeconds == nil {
		return leaseDuration
	}
	return time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second
}

// unchanged reports whether nobody wrote the Lease between two reads.
func unchanged(a, b *coordinationv1.Lease) bool {
	return a.UID == b.UID && a.ResourceVersion == b.ResourceVersion
}

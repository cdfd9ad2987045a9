package rotator

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// retryKube is how long a request is repeated that the API server cannot answer
// for now: a restart of it should not end the night's run, an outage should.
const retryKube = time.Minute

// patience repeats requests to the API server that failed for a reason that may
// pass. It is shared by all who ask, so that an outage costs its time once and
// not for every Secret.
type patience struct {
	limit time.Duration

	mu      sync.Mutex
	failing time.Time // since when nothing was answered; zero: something was
}

// try does something until it is done, fails for good, or has failed for longer
// than the limit. Its error is the last one.
func (p *patience) try(ctx context.Context, transient func(error) bool, do func() error) error {
	wait := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond),
		backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(p.limit),
	)
	for {
		err := do()
		if err == nil || ctx.Err() != nil || !transient(err) {
			p.note(true)
			return err
		}
		pause := wait.NextBackOff()
		if p.note(false) > p.limit || pause == backoff.Stop {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

// note takes in whether a request was answered, and returns for how long none was.
func (p *patience) note(answered bool) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case answered:
		p.failing = time.Time{}
	case p.failing.IsZero():
		p.failing = time.Now()
	default:
		return time.Since(p.failing)
	}
	return 0
}

// transientRead is whether a request that only reads may be answered later: there
// was no answer, or one of 429 or 5xx.
func transientRead(err error) bool {
	if errors.Is(err, errPageTooLong) || errors.Is(err, errNoList) {
		return false
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true
	}
	code := status.Status().Code
	return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError
}

// transientWrite is the same for a write, but for 500: that is also the answer
// of a webhook that does not work, for each Secret of a namespace, all night.
func transientWrite(err error) bool {
	return transientRead(err) && !apierrors.IsInternalError(err)
}

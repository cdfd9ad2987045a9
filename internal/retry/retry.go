// Package retry retries after transient failures, with jittered exponential backoff.
package retry

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// ErrGivenUp is matched by the error of a request after which no attempt at any request would help, because the server
// has not responded for too long.
var ErrGivenUp = errors.New("the server has not responded for too long")

// Failure is an attempt that failed.
type Failure struct {
	Err   error
	Final bool          // another attempt would not help
	After time.Duration // wait at least this long before the next attempt, if the limit allows it
}

// maxAfter bounds Failure.After where there is no limit: a server may ask for hours.
const maxAfter = time.Minute

// Do calls attempt until it returns nil, fails finally, or has failed for longer than
// limit; 0 means no limit. Do waits from 100 milliseconds to 5 seconds between two
// attempts, or as long as the attempt asks for. It returns the last error of attempt rather
// than that of the context, and does not wait if the wait would outlast the limit or the
// context's deadline. If the context ends during an attempt that is not the first one, Do
// returns the error of the attempt before: that one is the cause of the retry.
func Do(ctx context.Context, limit time.Duration, attempt func() *Failure) error {
	policy := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond),
		backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(limit),
	)
	began := time.Now()
	var previous *Failure
	for {
		failure := attempt()
		if failure == nil {
			return nil
		}
		failure.Final = failure.Final || errors.Is(failure.Err, ErrGivenUp)
		if ctx.Err() != nil && !failure.Final && previous != nil {
			return previous.Err
		}
		if failure.Final || ctx.Err() != nil {
			return failure.Err
		}
		previous = failure
		wait := policy.NextBackOff()
		if wait == backoff.Stop {
			return failure.Err
		}
		if limit == 0 {
			failure.After = min(failure.After, maxAfter)
		}
		wait = max(wait, failure.After)
		if limit > 0 && time.Since(began)+wait > limit {
			return failure.Err
		}
		if end, ok := ctx.Deadline(); ok && time.Until(end) <= wait {
			return failure.Err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return failure.Err
		case <-timer.C:
		}
	}
}

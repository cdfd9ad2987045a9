// Package retry repeats what failed for a reason that may pass, with jittered
// exponential backoff.
package retry

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Failure is an attempt that failed.
type Failure struct {
	Err   error
	Final bool          // another attempt would not help
	After time.Duration // wait at least this long before the next attempt
}

// Do calls attempt until it returns nil, fails finally, or has failed for longer than
// limit; 0 means no limit. Do waits from 100 milliseconds to 5 seconds between two
// attempts. It returns the last error of attempt rather than that of the context, and
// does not wait if the wait would outlast the context's deadline.
func Do(ctx context.Context, limit time.Duration, attempt func() *Failure) error {
	policy := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond),
		backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(limit),
	)
	for {
		failure := attempt()
		if failure == nil {
			return nil
		}
		if failure.Final || ctx.Err() != nil {
			return failure.Err
		}
		wait := policy.NextBackOff()
		if wait == backoff.Stop {
			return failure.Err
		}
		wait = max(wait, failure.After)
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

package retry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/retry"
)

var errFailed = errors.New("failed")

func TestDo(t *testing.T) {
	for name, test := range map[string]struct {
		deadline, limit time.Duration
		failures        int
		failure         retry.Failure
		attempts        int // at least
		failed          bool
		atLeast, atMost time.Duration
	}{
		"succeeds at once":     {attempts: 1},
		"succeeds after three": {failures: 3, failure: retry.Failure{Err: errFailed}, attempts: 4, atMost: 2 * time.Second},
		"fails finally":        {failures: 1, failure: retry.Failure{Err: errFailed, Final: true}, attempts: 1, failed: true},
		"reaches the limit": {limit: time.Minute, failures: 1 << 20, failure: retry.Failure{Err: errFailed},
			attempts: 10, failed: true, atLeast: 50 * time.Second, atMost: time.Minute},
		"waits as the failure asks": {limit: 2 * time.Hour, failures: 1,
			failure:  retry.Failure{Err: errFailed, After: time.Hour},
			attempts: 2, atLeast: time.Hour, atMost: time.Hour + time.Second},
		"waits a minute at most without a limit": {failures: 1, failure: retry.Failure{Err: errFailed, After: time.Hour},
			attempts: 2, atLeast: time.Minute, atMost: time.Minute + time.Second},
		"ends after an error that no attempt can change": {failures: 1,
			failure:  retry.Failure{Err: fmt.Errorf("%w: %w", errFailed, retry.ErrGivenUp)},
			attempts: 1, failed: true, atMost: 0},
		"does not wait beyond the limit": {limit: time.Minute, failures: 1,
			failure:  retry.Failure{Err: errFailed, After: time.Hour},
			attempts: 1, failed: true, atMost: time.Second},
		"does not wait for a deadline": {deadline: time.Minute, failures: 1,
			failure:  retry.Failure{Err: errFailed, After: time.Hour},
			attempts: 1, failed: true, atMost: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.deadline != 0 {
					limited, cancel := context.WithTimeout(ctx, test.deadline)
					defer cancel()
					ctx = limited
				}
				attempts, began := 0, time.Now()
				err := retry.Do(ctx, test.limit, func() *retry.Failure {
					if attempts++; attempts > test.failures {
						return nil
					}
					return &test.failure
				})
				took := time.Since(began)
				if attempts < test.attempts || (err != nil) != test.failed || err != nil && !errors.Is(err, errFailed) {
					t.Errorf("%d attempts, %v", attempts, err)
				}
				if took < test.atLeast || test.atMost != 0 && took > test.atMost {
					t.Errorf("took %s", took)
				}
			})
		})
	}
}

// If the context ends while Do waits, Do returns the last error, not that of the context.
func TestDoWhileTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := retry.Do(ctx, 0, func() *retry.Failure { return &retry.Failure{Err: errFailed} }); !errors.Is(err,
			errFailed) {
			t.Errorf("got %v", err)
		}
	})
}

// If the context ends during an attempt, Do returns why the attempt before failed.
func TestDoWhileTheContextEndsInAnAttempt(t *testing.T) {
	for name, test := range map[string]struct {
		complete int // attempts before the one that the context interrupts
		final    bool
		want     error
	}{
		"first":        {0, false, context.DeadlineExceeded},
		"second":       {1, false, errFailed},
		"fourth":       {3, false, errFailed},
		"fourth final": {3, true, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				attempts := 0
				err := retry.Do(ctx, 0, func() *retry.Failure {
					if attempts++; attempts <= test.complete {
						return &retry.Failure{Err: errFailed}
					}
					<-ctx.Done()
					return &retry.Failure{Err: ctx.Err(), Final: test.final}
				})
				if !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
			})
		})
	}
}

// Package kuberetry repeats requests to the API server that failed for a reason that
// may pass.
package kuberetry

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/secretmanager-io/secretmanager/internal/retry"
)

// A Retrier is shared by all who ask one API server, so that an outage costs its time
// once and not for every request. A nil Retrier repeats nothing.
type Retrier struct {
	limit time.Duration

	mu           sync.Mutex
	failingSince time.Time // since when nothing was answered; zero if something was
}

// New returns a Retrier that gives up when nothing was answered for longer than limit.
func New(limit time.Duration) *Retrier { return &Retrier{limit: limit} }

// Read makes a request that only reads. It is repeated if there was no answer, or one of
// 429 or 5xx.
func (r *Retrier) Read(ctx context.Context, request func() error) error {
	return r.repeat(ctx, transient, request)
}

// Write makes a request that writes and may be sent twice. Unlike Read, it does not
// repeat a 500: that is also the answer of a webhook that does not work, for every
// object of a namespace, all night.
func (r *Retrier) Write(ctx context.Context, request func() error) error {
	return r.repeat(ctx, func(err error) bool { return transient(err) && !apierrors.IsInternalError(err) }, request)
}

func (r *Retrier) repeat(ctx context.Context, transient func(error) bool, request func() error) error {
	if r == nil {
		return request()
	}
	return retry.Do(ctx, r.limit, func() *retry.Failure {
		err := request()
		if err == nil || ctx.Err() != nil || !transient(err) {
			r.note(true)
			if err == nil {
				return nil
			}
			return &retry.Failure{Err: err, Final: true}
		}
		return &retry.Failure{Err: err, Final: r.note(false) > r.limit}
	})
}

// note records whether a request was answered, and returns for how long none was.
func (r *Retrier) note(answered bool) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case answered:
		r.failingSince = time.Time{}
	case r.failingSince.IsZero():
		r.failingSince = time.Now()
	default:
		return time.Since(r.failingSince)
	}
	return 0
}

func transient(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true
	}
	code := status.Status().Code
	return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError
}

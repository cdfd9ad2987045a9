// Package kuberetry retries requests to the API server after transient failures.
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

// A Retrier retries requests to one API server. Share it among all requests of a program, so that an outage delays the
// program once and not for every request. A nil Retrier does not retry.
type Retrier struct {
	limit time.Duration

	mu           sync.Mutex
	failingSince time.Time // time since which no request got a response; zero if the last one did
}

// New returns a Retrier that gives up when no request got a response for longer than limit.
func New(limit time.Duration) *Retrier { return &Retrier{limit: limit} }

// Read makes a request that only reads. It retries if there was no response, or a response with status 429 or 5xx.
func (r *Retrier) Read(ctx context.Context, request func() error) error {
	return r.repeat(ctx, transient, request)
}

// Write makes a request that writes and may be sent twice. Unlike Read, it does not retry after status 500: a broken
// webhook causes that status for every object of a namespace, and does so until somebody fixes it.
func (r *Retrier) Write(ctx context.Context, request func() error) error {
	return r.repeat(ctx, func(err error) bool { return transient(err) && !apierrors.IsInternalError(err) }, request)
}

func (r *Retrier) repeat(ctx context.Context, transient func(error) bool, request func() error) error {
	if r == nil {
		return request()
	}
	return retry.Do(ctx, r.limit, func() *retry.Failure {
		err := request()
		if err != nil && ctx.Err() != nil {
			return &retry.Failure{Err: err} // says nothing about the API server
		}
		if err == nil || !transient(err) {
			r.note(true)
			if err == nil {
				return nil
			}
			return &retry.Failure{Err: err, Final: true}
		}
		return &retry.Failure{Err: err, Final: r.note(false) > r.limit}
	})
}

// note records whether a request got a response, and returns for how long none did.
func (r *Retrier) note(responded bool) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case responded:
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

package httpserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

var errBusy = errors.New("too many requests are waiting for the same result: try again later")

// Cache caches the result of an expensive function, so that any number of requests cause only limited work. It is safe
// for concurrent use.
type Cache[T any] struct {
	compute    func(context.Context) T
	limit      *rate.Limiter
	maxWaiting int

	mu      sync.Mutex
	last    *T
	pending chan struct{} // closed when the call in progress ends; nil without one
	waiting int
}

// NewCache returns a cache of the result of compute. One call may begin each second, or burst calls after a pause, and
// calls never overlap. Other requests get the last result, so a result is used for at most a second. With a burst, an
// occasional client always gets a new result. At most maxWaiting requests wait for a call to end. The end of a request
// does not cancel the call.
func NewCache[T any](burst, maxWaiting int, compute func(context.Context) T) *Cache[T] {
	return &Cache[T]{compute: compute, limit: rate.NewLimiter(rate.Every(time.Second), burst), maxWaiting: maxWaiting}
}

// Get returns a result, or an error if it cannot wait for one.
func (c *Cache[T]) Get(ctx context.Context) (result T, err error) {
	c.mu.Lock()
	if c.pending == nil {
		if !c.limit.Allow() {
			defer c.mu.Unlock()
			return *c.last, nil
		}
		c.pending = make(chan struct{})
		go c.refresh(context.WithoutCancel(ctx), c.pending)
	}
	if c.waiting >= c.maxWaiting {
		defer c.mu.Unlock()
		return result, errBusy
	}
	pending := c.pending
	c.waiting++
	c.mu.Unlock()

	select {
	case <-pending:
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting--
	if err != nil {
		return result, err
	}
	return *c.last, nil
}

func (c *Cache[T]) refresh(ctx context.Context, done chan struct{}) {
	result := c.compute(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.pending = &result, nil
	close(done)
}

// current returns the last result, if Get would return it without waiting.
func (c *Cache[T]) current() (result T, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending != nil || c.last == nil || c.limit.Tokens() >= 1 {
		return result, false
	}
	return *c.last, true
}

// healthy is the response to a probe whose check passes.
const healthy = "ok\n"

// Health serves a health probe: 200 if check returns nil, otherwise 503 with the error. It uses each result for a
// second.
func Health(check func(context.Context) error) http.Handler {
	return &health{NewCache(1, maxConns, check)}
}

type health struct{ results *Cache[error] }

func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	result, err := h.results.Get(r.Context())
	if err = errors.Join(result, err); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprint(w, healthy)
}

// hasPassed reports whether the check has passed within the last second.
func (h *health) hasPassed() bool {
	err, ok := h.results.current()
	return ok && err == nil
}

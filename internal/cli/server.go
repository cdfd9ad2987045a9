package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/retry"
	"github.com/secretmanager-io/secretmanager/transit"
)

// vaultName is the name of Vault in messages.
const vaultName = "Vault"

const (
	// requestTimeout is the default of --request-timeout.
	requestTimeout = 10 * time.Second
	// silenceTimeout bounds how long a command goes on without a successful response of a server.
	silenceTimeout = 30 * time.Second
	// After a failed request, a command that sends another one within pauseTimeout is still waiting for the server.
	// The pause between two attempts is shorter. A person who answers a question takes longer.
	pauseTimeout = 6 * time.Second
)

// server bounds and shows how long a command waits for Vault or for the API server, over all its requests and
// connections. A long run may take any time as long as the server responds.
type server struct {
	name             string
	timeout, silence time.Duration // of a request, and without a response; 0: none
	line             *waitLine

	mu      sync.Mutex
	address string
	pending int       // number of requests without a response
	failing bool      // the last request failed
	last    string    // why
	ended   time.Time // when the last request ended
	quiet   time.Time // since when there are requests and no successful response
}

// noResponseError is the error of a request that the server did not respond to in time.
type noResponseError struct {
	server, address string
	waited          time.Duration
	last            string // why the last request failed, if no more are sent
}

func (e *noResponseError) Error() string {
	if e.last == "" {
		return fmt.Sprintf("no response from %s at %s within %s", e.server, e.address, e.waited)
	}
	return fmt.Sprintf("no response from %s at %s for %s, and no further attempt (last error: %s)", e.server, e.address,
		e.waited, e.last)
}

// Timeout implements [net.Error].
func (e *noResponseError) Timeout() bool { return true }

// Temporary implements [net.Error].
func (e *noResponseError) Temporary() bool { return false }

// Is reports whether another attempt would not help, and which server did not respond.
func (e *noResponseError) Is(target error) bool {
	return target == retry.ErrGivenUp && e.last != "" || target == transit.ErrTimeout && e.server == vaultName
}

// begin records a request, and returns how long it may take, and the error if it takes longer; 0: without limit. It
// returns another error if the request must not be sent.
func (s *server) begin(address string) (limit time.Duration, late *noResponseError, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.address = address
	if s.pending == 0 && (!s.failing || now.Sub(s.ended) > pauseTimeout) {
		s.failing, s.quiet = false, now
	}
	limit, late = s.timeout, &noResponseError{s.name, address, s.timeout, ""}
	if s.failing && s.silence > 0 {
		if remaining := s.quiet.Add(s.silence).Sub(now); remaining < limit {
			limit, late = remaining, &noResponseError{s.name, address, s.silence, s.last}
		}
		if limit <= 0 {
			s.ended = now
			return 0, nil, late
		}
	}
	s.pending++
	return limit, late, nil
}

// end records the result of a request: an empty text if the server responded successfully, or at least without an
// error of its own. Requests that the caller canceled say nothing about the server.
func (s *server) end(failure string, canceled bool) {
	s.mu.Lock()
	now := time.Now()
	s.pending--
	s.ended = now
	switch {
	case canceled:
	case failure == "":
		s.failing, s.quiet = false, now
	default:
		s.failing, s.last = true, failure
	}
	s.mu.Unlock()
	s.line.update()
}

// since implements wait.
func (s *server) since(now time.Time) (string, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending > 0 || s.failing && now.Sub(s.ended) < pauseTimeout {
		return s.name + " at " + s.address, s.quiet
	}
	return "", time.Time{}
}

// wrap returns a transport whose requests are bounded and shown.
func (s *server) wrap(next http.RoundTripper) http.RoundTripper {
	s.line.add(s)
	return &boundedTransport{s, next}
}

type boundedTransport struct {
	*server
	next http.RoundTripper
}

// WrappedRoundTripper lets client-go find the transport.
func (t *boundedTransport) WrappedRoundTripper() http.RoundTripper { return t.next }

// RoundTrip implements [http.RoundTripper].
func (t *boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	address := (&url.URL{Scheme: r.URL.Scheme, Host: r.URL.Host}).String()
	limit, late, err := t.begin(address)
	if err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	c := &call{server: t.server, caller: r.Context(), ctx: ctx, cancel: cancel}
	if limit > 0 {
		c.timer = time.AfterFunc(limit, func() { cancel(late) })
	}
	resp, err := t.next.RoundTrip(r.WithContext(ctx))
	switch {
	case err != nil:
		return nil, c.fail(err)
	case r.URL.Query().Get("watch") == "true": // lasts as long as its context
		c.end("")
		return resp, nil
	}
	if resp.StatusCode >= http.StatusInternalServerError {
		c.status = resp.Status
	}
	resp.Body = &callBody{resp.Body, c}
	return resp, nil
}

// call is a request until its response is complete.
type call struct {
	server *server
	caller context.Context
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	status string // of a response that is an error of the server
	once   sync.Once
}

// fail ends the call, and returns the error to report.
func (c *call) fail(err error) error {
	failure := err.Error()
	if cause := (*noResponseError)(nil); errors.As(context.Cause(c.ctx), &cause) && c.caller.Err() == nil {
		err, failure = cause, "timeout"
	}
	c.end(failure)
	return err
}

func (c *call) end(failure string) {
	c.once.Do(func() {
		if c.timer != nil {
			c.timer.Stop()
		}
		c.server.end(failure, failure != "" && c.caller.Err() != nil)
	})
}

type callBody struct {
	io.ReadCloser
	*call
}

func (b *callBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.end(b.status)
	case err != nil:
		err = b.fail(err)
	}
	return n, err
}

func (b *callBody) Close() error {
	b.end(b.status)
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}

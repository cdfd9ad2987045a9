package kuberetry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/internal/retry"
)

// requestTimeout bounds a request, so that an API server that accepts connections and sends
// nothing stops nobody for longer.
const requestTimeout = time.Minute

// Bound bounds the duration of each request of clients of the configuration, except watches.
// waiting is called every five seconds while there is no response; it may be nil, and is called
// from many goroutines.
func Bound(config *rest.Config, waiting func(doing string, waited time.Duration)) {
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &bounded{next: next, waiting: waiting, timeout: requestTimeout, every: retry.ReportEvery}
	})
}

type bounded struct {
	next           http.RoundTripper
	waiting        func(string, time.Duration)
	timeout, every time.Duration
}

// RoundTrip implements [http.RoundTripper].
func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Query().Get("watch") == "true" {
		return b.next.RoundTrip(r)
	}
	if b.waiting != nil {
		doing := fmt.Sprintf("%s %s", r.Method, r.URL.Path)
		defer retry.Report(b.every, func(waited time.Duration) { b.waiting(doing, waited) })()
	}
	ctx, cancel := context.WithTimeout(r.Context(), b.timeout)
	resp, err := b.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = &body{resp.Body, cancel}
	return resp, nil
}

// WrappedRoundTripper lets client-go find the transport.
func (b *bounded) WrappedRoundTripper() http.RoundTripper { return b.next }

// body ends the timeout when it is closed.
type body struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *body) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

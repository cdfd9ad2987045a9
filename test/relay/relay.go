// Package relay stands between a client and a real server, for tests that count
// requests, or answer some of them in the server's place.
//
// It is httputil.ReverseProxy without the failure that this one makes up by
// itself, some times in ten thousand requests on a loaded machine: the server
// answers when it has the last byte of a request, while the proxy may not have
// seen yet that there is none after it. As soon as the proxy passes the answer
// on, the request's body is closed behind its back, which it takes for a failure
// and gives up the connection, in the middle of the answer. A relay therefore
// reads each request to its end before it passes it on.
package relay

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// New returns a relay to the server at an address such as http://127.0.0.1:8200.
// Without a transport it has one of its own: http.DefaultTransport loses its
// connections whenever an httptest.Server closes, in whatever test.
//
// Request bodies are kept in memory. Answers are not, so watches work.
func New(address string, transport http.RoundTripper) (*httputil.ReverseProxy, error) {
	target, err := url.Parse(address)
	if err != nil || target.Host == "" {
		return nil, fmt.Errorf("%q is not the address of a server", address)
	}
	if transport == nil {
		transport = &http.Transport{}
	}
	return &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: bufferedTransport{transport},
	}, nil
}

// bufferedTransport sends requests whose bodies have been read completely.
type bufferedTransport struct{ next http.RoundTripper }

func (w bufferedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return w.next.RoundTrip(r)
}

// CloseIdleConnections closes those of the transport.
func (w bufferedTransport) CloseIdleConnections() {
	if c, ok := w.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

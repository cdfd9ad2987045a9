// Package relay is a proxy between a client and a real server, for tests that count requests, or respond to some of
// them instead of the server. It is httputil.ReverseProxy without a failure that the latter causes a few times in ten
// thousand requests on a loaded machine. A server may respond as soon as it has the last byte of a request, before the
// proxy has seen the end of the request. When the proxy forwards the response, the server side closes the body of the
// request. The proxy treats that as a failure and closes the connection in the middle of the response. A relay
// therefore reads each request completely before it forwards it.
package relay

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// New returns a relay to the server at an address such as http://127.0.0.1:8200. Without a transport it creates one:
// http.DefaultTransport closes its connections whenever an httptest.Server closes, in any test. Request bodies are kept
// in memory. Responses are not, so watches work.
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

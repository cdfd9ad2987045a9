package httpserver

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"time"
)

// early responds to health probes in the goroutine that accepts connections, without the cost of net/http, so that a
// flood of probes does not delay other work. It responds only if it does not have to wait: the whole request has
// arrived, and the check has passed within the last second. All other requests go to net/http.
type early struct {
	mux *http.ServeMux

	// Buffers of the goroutine that accepts.
	received [maxEarlyBytes]byte
	reader   *bufio.Reader
	response []byte
}

// maxEarlyBytes bounds the request. The probes of the kubelet have about 120 bytes.
const maxEarlyBytes = 1024

// newEarly returns nil, which responds to no request, for a handler that is not a mux.
func newEarly(handler http.Handler) *early {
	mux, ok := handler.(*http.ServeMux)
	if !ok {
		return nil
	}
	return &early{mux: mux, reader: bufio.NewReader(nil)}
}

// respond reports whether it responded to the request. Otherwise it has read nothing from the connection.
func (e *early) respond(c *net.TCPConn) bool {
	if e == nil {
		return false
	}
	n := peek(c, e.received[:])
	if !e.passes(e.received[:n]) {
		return false
	}
	// The response fits in the socket's buffer, so that writing does not block.
	if _, err := c.Read(e.received[:n]); err == nil {
		e.response = fmt.Appendf(e.response[:0], "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"+
			"Date: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
			time.Now().UTC().Format(http.TimeFormat), len(healthy), healthy)
		_, _ = c.Write(e.response) // fails if the client has closed the connection
	}
	_ = c.Close()
	return true
}

// passes reports whether the bytes are exactly one request for a check that has passed.
func (e *early) passes(received []byte) bool {
	if len(received) == 0 {
		return false
	}
	unread := bytes.NewReader(received)
	e.reader.Reset(unread)
	r, err := http.ReadRequest(e.reader)
	if err != nil || r.Method != http.MethodGet || r.Host == "" || r.ContentLength != 0 ||
		e.reader.Buffered() > 0 || unread.Len() > 0 {
		return false
	}
	handler, _ := e.mux.Handler(r)
	h, ok := handler.(*health)
	return ok && h.hasPassed()
}

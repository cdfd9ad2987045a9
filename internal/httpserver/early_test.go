package httpserver

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestEarlyResponse verifies that a probe of a passed check gets its response when it is accepted,
// and that everything else reaches net/http unread.
func TestEarlyResponse(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("on other systems net/http sends every response")
	}
	result := func(err error) *health {
		h := &health{NewCache(1, 1, func(context.Context) error { return err })}
		_, _ = h.results.Get(t.Context())
		return h
	}
	expired := result(nil)
	expired.results.limit.SetLimit(1e9)
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", result(nil))
	mux.Handle("GET /failed", result(errors.New("failed")))
	mux.Handle("GET /expired", expired)
	mux.Handle("GET /first", &health{NewCache(1, 1, func(context.Context) error { return nil })})
	mux.Handle("GET /metrics", http.NotFoundHandler())

	l, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.early = newEarly(mux)
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	const rest = " HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"
	for _, tt := range []struct {
		name, request string
		early         bool
	}{
		{"the kubelet's probe", "GET /healthz" + rest +
			"User-Agent: kube-probe/1.34\r\nAccept: */*\r\nConnection: close\r\n\r\n", true},
		{"query", "GET /healthz?verbose" + rest + "\r\n", true},
		{"HTTP/1.0", "GET /healthz HTTP/1.0\r\nHost: x\r\n\r\n", true},
		{"failed check", "GET /failed" + rest + "\r\n", false},
		{"result too old", "GET /expired" + rest + "\r\n", false},
		{"no result yet", "GET /first" + rest + "\r\n", false},
		{"other handler", "GET /metrics" + rest + "\r\n", false},
		{"unknown path", "GET /" + rest + "\r\n", false},
		{"path to clean", "GET //healthz" + rest + "\r\n", false},
		{"HEAD", "HEAD /healthz" + rest + "\r\n", false},
		{"POST", "POST /healthz" + rest + "\r\n", false},
		{"no host", "GET /healthz HTTP/1.1\r\n\r\n", false},
		{"body", "GET /healthz" + rest + "Content-Length: 1\r\n\r\nx", false},
		{"body to come", "GET /healthz" + rest + "Content-Length: 1\r\n\r\n", false},
		{"chunked", "GET /healthz" + rest + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
		{"two requests", strings.Repeat("GET /healthz"+rest+"\r\n", 2), false},
		{"half a request", "GET /healthz" + rest, false},
		{"too long", "GET /healthz" + rest + "X: " + strings.Repeat("x", maxEarlyBytes) + "\r\n\r\n", false},
		{"not HTTP", "\x16\x03\x01\r\n\r\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, tt.request); err != nil {
				t.Fatal(err)
			}
			answered := make(chan *http.Response, 1)
			go func() {
				r, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil && tt.early {
					t.Error(err)
				}
				answered <- r
			}()
			select {
			case r := <-answered:
				if !tt.early {
					t.Fatal("got an early response")
				}
				if r == nil {
					return
				}
				body, err := io.ReadAll(r.Body)
				if r.StatusCode != http.StatusOK || string(body) != "ok\n" || err != nil || !r.Close || r.Header.Get("Date") == "" {
					t.Errorf("HTTP %d %q, %v, %v", r.StatusCode, body, r.Header, err)
				}
				if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
					t.Errorf("after the response: %d bytes, %v", n, err)
				}
			case server := <-accepted:
				defer func() { server.Close(); <-answered }()
				if tt.early {
					t.Error("left to net/http")
				}
				received := make([]byte, len(tt.request))
				_ = server.SetDeadline(time.Now().Add(time.Minute))
				if _, err := io.ReadFull(server, received); err != nil || string(received) != tt.request {
					t.Errorf("net/http gets %q, %v", received, err)
				}
			}
		})
	}
	if newEarly(http.NotFoundHandler()).respond(nil) {
		t.Error("responds for a handler without health checks")
	}
}

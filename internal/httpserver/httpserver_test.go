package httpserver

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// serve starts a server and returns its address.
func serve(t *testing.T, at timeouts, handler http.HandlerFunc) string {
	t.Helper()
	s, err := listenWith(at, "127.0.0.1:0", handler, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-served); err != nil {
			t.Errorf("stopping the server: %v", err)
		}
	})
	return s.Addr().String()
}

// tryDial connects from 127.0.0.N.
func tryDial(t *testing.T, address string, n int) (net.Conn, error) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8")
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(n))}}
	c, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return c, c.SetDeadline(time.Now().Add(time.Minute))
}

func dial(t *testing.T, address string, n int) net.Conn {
	t.Helper()
	c, err := tryDial(t, address, n)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func send(t *testing.T, c net.Conn, path string) {
	t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
}

// status returns the status of the response, or 0 if the server closed the connection.
func status(t *testing.T, c net.Conn) int {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("neither a response nor the end of the connection")
	}
	if err != nil {
		return 0
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return 0
	}
	return r.StatusCode
}

// get returns the status of a response, or 0 if the server closed the connection, which a
// client may notice immediately.
func get(t *testing.T, address string, from int, path string) int {
	t.Helper()
	c, err := tryDial(t, address, from)
	if err == nil {
		_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
	}
	switch {
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return 0
	case err != nil:
		t.Fatal(err)
	}
	return status(t, c)
}

// held is a handler that blocks requests for /hold until it is released.
type held struct {
	reached chan struct{}
	release chan struct{}
}

func (h *held) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/hold" {
		h.reached <- struct{}{}
		<-h.release
	}
	fmt.Fprintln(w, "ok")
}

func newHeld(t *testing.T) (*held, string) {
	h := &held{make(chan struct{}), make(chan struct{})}
	address := serve(t, defaultTimeouts, h.ServeHTTP)
	t.Cleanup(sync.OnceFunc(func() {
		select {
		case <-h.release:
		default:
			close(h.release)
		}
	}))
	return h, address
}

// hold sends n requests from the address, which the handler blocks.
func (h *held) hold(t *testing.T, address string, from, n int) (conns []net.Conn) {
	t.Helper()
	for range n {
		c := dial(t, address, from)
		send(t, c, "/hold")
		<-h.reached
		conns = append(conns, c)
	}
	return conns
}

func TestConnectionsInUse(t *testing.T) {
	h, address := newHeld(t)
	conns := h.hold(t, address, 2, maxConnsOfAddress)
	if got := get(t, address, 2, "/"); got != 0 {
		t.Errorf("beyond the share of an address: HTTP %d", got)
	}
	if got := get(t, address, 3, "/"); got != http.StatusOK {
		t.Errorf("from another address: HTTP %d", got)
	}
	for from := 3; len(conns) < maxConns; from++ {
		conns = append(conns, h.hold(t, address, from, maxConnsOfAddress)...)
	}
	if got := get(t, address, 200, "/"); got != 0 {
		t.Errorf("beyond all connections: HTTP %d", got)
	}
	close(h.release)
	for i, c := range conns {
		if got := status(t, c); got != http.StatusOK {
			t.Errorf("connection %d, always in use: HTTP %d", i, got)
		}
	}
	for _, from := range []int{2, 200} {
		if got := get(t, address, from, "/"); got != http.StatusOK {
			t.Errorf("afterwards, from %d: HTTP %d", from, got)
		}
	}
}

// TestIdleConnectionsMakeRoom verifies that the connections that are idle for longest are closed:
// of an address at its limit, or of all addresses.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	for name, test := range map[string]struct {
		limit int
		from  func(n int) int
	}{
		"of an address": {maxConnsOfAddress, func(int) int { return 2 }},
		"of all":        {maxConns, func(n int) int { return 2 + n }},
	} {
		t.Run(name, func(t *testing.T) {
			h, address := newHeld(t)
			inUse := h.hold(t, address, test.from(0), 1)[0]
			var idle []net.Conn
			for n := 1; n < test.limit; n++ {
				// A connection that sends nothing would not be accepted.
				c := dial(t, address, test.from(n))
				fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: ")
				idle = append(idle, c)
			}
			const more = 3
			for n := range more {
				// Connections are accepted in order, so each response means that the earlier ones have been.
				if got := get(t, address, test.from(test.limit+n), "/"); got != http.StatusOK {
					t.Fatalf("request %d: HTTP %d", n, got)
				}
			}
			// The first request replaced the first idle connection and then ended.
			if got := status(t, idle[0]); got != 0 {
				t.Errorf("the connection that was idle for longest: HTTP %d", got)
			}
			for n := more; n < len(idle); n++ {
				fmt.Fprint(idle[n], "x\r\n\r\n")
				if got := status(t, idle[n]); got != http.StatusOK {
					t.Errorf("idle connection %d: HTTP %d", n, got)
				}
			}
			close(h.release)
			if got := status(t, inUse); got != http.StatusOK {
				t.Errorf("the connection in use, which is the oldest: HTTP %d", got)
			}
		})
	}
}

// TestClientThatDoesNotRead verifies that a response that its client does not read blocks no other client.
func TestClientThatDoesNotRead(t *testing.T) {
	writing := make(chan struct{}, maxConns)
	address := serve(t, defaultTimeouts, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			chunk := make([]byte, 1<<20)
			for range 64 { // more than the kernel buffers for a client
				writing <- struct{}{}
				if _, err := w.Write(chunk); err != nil {
					return
				}
				<-writing
			}
		}
	})
	for n := range maxConns {
		send(t, dial(t, address, 2+n), "/large")
	}
	for len(writing) < maxConns {
		runtime.Gosched() // until all are writing
	}
	for range maxConns {
		if got := get(t, address, 200, "/"); got != http.StatusOK {
			t.Fatalf("HTTP %d", got)
		}
	}
}

// TestHeaderLimit sends requests of an exact size.
func TestHeaderLimit(t *testing.T) {
	address := serve(t, defaultTimeouts, func(http.ResponseWriter, *http.Request) {})
	const head, tail = "GET / HTTP/1.1\r\nHost: x\r\nX: ", "\r\n\r\n"
	for size, want := range map[int]int{4096: 200, 4098: 431, 5000: 431, 1 << 20: 431} {
		c := dial(t, address, 1)
		// An error means that the server stopped reading.
		_, _ = io.WriteString(c, head+strings.Repeat("x", size-len(head)-len(tail))+tail)
		if got := status(t, c); got != want && (want == 200 || got != 0) {
			t.Errorf("a header of %d bytes: HTTP %d, want %d", size, got, want)
		}
	}
}

func TestOneRequestPerConnection(t *testing.T) {
	address := serve(t, defaultTimeouts, func(http.ResponseWriter, *http.Request) {})
	c := dial(t, address, 1)
	send(t, c, "/")
	send(t, c, "/")
	text, err := io.ReadAll(c)
	if n := strings.Count(string(text), "HTTP/1.1"); n != 1 || !strings.Contains(string(text), "Connection: close\r\n") {
		t.Errorf("%d responses, then %v:\n%s", n, err, text)
	}
}

// TestLimit verifies that requests of an address beyond its share are not even read, and that
// another address is not affected.
func TestLimit(t *testing.T) {
	var handled atomic.Int32
	s, err := Listen("127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { handled.Add(1) }),
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.Limit()
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	get := func(from string) error {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}}
		resp, err := client.Get("http://" + s.Addr().String())
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	refused := 0
	began := time.Now()
	const n = 5 * connsBurst
	for i := range n {
		if err := get("127.0.0.2"); err != nil {
			refused++
			if i < connsBurst {
				t.Errorf("request %d: %v", i, err)
			}
		}
	}
	most := connsBurst + int(time.Since(began).Seconds()*connsOfAddress) + 1
	if answered := n - refused; answered > most || int(handled.Load()) != answered {
		t.Errorf("%d of %d requests got a response and %d were handled, want at most %d", answered, n, handled.Load(), most)
	}
	if err := get("127.0.0.3"); err != nil {
		t.Errorf("another address: %v", err)
	}
}

func TestTimeouts(t *testing.T) {
	short := timeouts{read: 50 * time.Millisecond, write: time.Minute, idle: 50 * time.Millisecond}
	discard := func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			t.Error("a missing body was read")
		}
	}
	for name, text := range map[string]string{
		"nothing":        "",
		"half a header":  "GET / HTTP/1.1\r\nHost: ",
		"half a body":    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
		"half an upload": "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha",
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, serve(t, short, discard), 1)
			if _, err := io.WriteString(c, text); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("the connection was not closed: %v", err)
			}
		})
	}
	t.Run("a response that nobody reads", func(t *testing.T) {
		ended := make(chan error)
		address := serve(t, timeouts{read: time.Minute, write: 50 * time.Millisecond, idle: time.Minute},
			func(w http.ResponseWriter, _ *http.Request) {
				chunk := make([]byte, 1<<20)
				for {
					if _, err := w.Write(chunk); err != nil {
						ended <- err
						return
					}
				}
			})
		send(t, dial(t, address, 1), "/")
		if err := <-ended; err == nil {
			t.Error("no error")
		}
	})
	if d := defaultTimeouts; d.read <= 0 || d.write <= 0 || d.idle <= 0 || d.write > time.Minute {
		t.Errorf("%+v", d)
	}
}

// TestCloseBeforeServe: a program may fail before it calls Serve.
func TestCloseBeforeServe(t *testing.T) {
	s, err := Listen("127.0.0.1:0", http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("the server still listens")
	}
	if err := s.Serve(); err != nil {
		t.Error(err)
	}
	if _, err := Listen("256.0.0.1:0", nil, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("no error for an invalid address")
	}
}

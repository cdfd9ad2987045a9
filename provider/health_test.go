package provider

import (
	"bufio"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestHealthUnderFlood verifies that probes share a Version call, because each call needs a connection.
func TestHealthUnderFlood(t *testing.T) {
	var connections atomic.Int32
	endpoint := filepath.Join(t.TempDir(), "p.sock")
	server := newServer(t, endpoint)
	l := &countingListener{Listener: server.socket, connections: &connections}
	go server.grpc.Serve(l)
	defer server.grpc.Stop()
	h := Health(endpoint, server.Ready)
	began := time.Now()
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() {
			for range 50 {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", nil))
				if w.Code != http.StatusOK {
					t.Errorf("HTTP %d: %s", w.Code, w.Body)
				}
			}
		})
	}
	clients.Wait()
	if n, most := connections.Load(), int32(time.Since(began)/time.Second)+1; n < 1 || n > most {
		t.Errorf("%d connections for a thousand probes, want at most %d", n, most)
	}
}

type countingListener struct {
	net.Listener
	connections *atomic.Int32
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.connections.Add(1)
	}
	return c, err
}

func TestHealth(t *testing.T) {
	get := func(t *testing.T, h http.Handler, path string) (int, string) {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: h}
		go server.Serve(l)
		defer server.Close()
		// The kubelet has a timeout too.
		client := &http.Client{Timeout: 20 * time.Second}
		resp, err := client.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		line, _ := bufio.NewReader(resp.Body).ReadString('\n')
		return resp.StatusCode, strings.TrimSpace(line)
	}
	s := serve(t, "http://127.0.0.1:1")
	stuck := filepath.Join(t.TempDir(), "stuck.sock")
	l, err := net.Listen("unix", stuck) // accepts connections and never responds
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	gone := newServer(t, filepath.Join(t.TempDir(), "gone.sock"))
	run(t, gone)()

	for _, test := range []struct {
		name   string
		h      http.Handler
		path   string
		status int
		text   string
	}{
		{"served", Health(s.endpoint, s.server.Ready), "/healthz", 200, "ok"},
		{"served and ready", Health(s.endpoint, s.server.Ready), "/readyz", 200, "ok"},
		{"stuck", health(stuck, s.server.Ready, 100*time.Millisecond), "/healthz", 503, "calling Version on " + stuck},
		{"gone", Health(gone.socket.Path(), gone.Ready), "/healthz", 503, "calling Version"},
		{"gone and not ready", Health(gone.socket.Path(), gone.Ready), "/readyz", 503, "does not serve the socket"},
		{"elsewhere", Health(s.endpoint, s.server.Ready), "/", 404, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, text := get(t, test.h, test.path)
			if code != test.status || !strings.Contains(text, test.text) {
				t.Errorf("%d %q", code, text)
			}
		})
	}
}

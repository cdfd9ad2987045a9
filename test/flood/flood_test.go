package flood

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// TestLoopbackOnly checks that only loopback addresses are attacked.
func TestLoopbackOnly(t *testing.T) {
	for _, target := range []Target{
		{Address: "192.0.2.1:80", Sources: 1}, {Address: "[2001:db8::1]:80", Sources: 1},
		{Address: "localhost:80", Sources: 1},
		{Address: ":80", Sources: 1}, {Address: "", Sources: 1}, {Address: "127.0.0.1:80"},
	} {
		if _, err := Idle(t.Context(), target, 1); err == nil {
			t.Errorf("%+v is left idle", target)
		}
		if _, err := Run(t.Context(), target, 1); err == nil {
			t.Errorf("%+v is flooded", target)
		}
	}
}

// TestFlood checks that a server gets the counted number of requests, from all of the requested addresses.
func TestFlood(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8")
	}
	var mu sync.Mutex
	sources := map[string]int{}
	var requests atomic.Int64
	const enough, addresses = 500, 300
	reached := make(chan struct{})
	var once sync.Once
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		mu.Lock()
		sources[host]++
		from := len(sources)
		mu.Unlock()
		n := requests.Add(1)
		// A busy machine skips requests, so some addresses may come first in a later turn.
		if n >= enough && from >= addresses {
			once.Do(func() { close(reached) })
		}
		if n%2 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-reached
		cancel()
	}()
	r, err := Run(ctx, Target{Address: server.Listener.Addr().String(), Path: "/", Sources: addresses}, 5000)
	if err != nil {
		t.Fatal(err)
	}
	if n := requests.Load(); r.Made < n || r.OK+r.Other > n || r.OK+r.Other < enough/2 || r.OK+r.Other+r.Closed != r.Made {
		t.Errorf("%s; the server saw %d requests", r, n)
	}
	if len(sources) != addresses || sources["127.0.0.1"] > 0 {
		t.Errorf("from %d addresses", len(sources))
	}
}

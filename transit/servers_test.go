package transit

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/test/async"
)

// States of a member.
const (
	up     = iota
	down   // closes each connection before TLS
	silent // accepts connections and sends nothing
	sealed
	noLeader
	broken // reads the request and closes the connection
)

// A member is a server of a cluster behind a listener that can fail.
type member struct {
	net.Listener
	address string

	mu          sync.Mutex
	state       int
	connections int
	requests    []string // paths; health checks are not among them
	accepted    func()   // called for each connection; may be nil
	held        []net.Conn
}

func (m *member) set(state int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = state
}

func (m *member) counts() (connections, requests int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.connections, len(m.requests)
}

// Accept returns the next connection that may reach the server.
func (m *member) Accept() (net.Conn, error) {
	for {
		conn, err := m.Listener.Accept()
		if err != nil {
			return nil, err
		}
		m.mu.Lock()
		m.connections++
		state, accepted := m.state, m.accepted
		if state == silent {
			m.held = append(m.held, conn)
		}
		m.mu.Unlock()
		if accepted != nil {
			accepted()
		}
		switch state {
		case down:
			conn.Close()
		case silent:
		default:
			return conn, nil
		}
	}
}

func (m *member) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	m.mu.Lock()
	state := m.state
	if r.URL.Path != "/v1/sys/health" {
		m.requests = append(m.requests, r.URL.Path)
	}
	m.mu.Unlock()
	switch state {
	case down, broken:
		panic(http.ErrAbortHandler)
	case sealed:
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"errors":["Vault is sealed"]}`)
	case noLeader:
		if r.URL.Path == "/v1/sys/health" {
			w.WriteHeader(http.StatusTooManyRequests) // as a standby does
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `{"errors":["local node not active but active cluster node not found"]}`)
	default:
		_, _ = io.WriteString(w, `{"data":{"latest_version":1,"keys":{"1":1}}}`)
	}
}

// A cluster is a session with some members, which counts its attempts, and has a clock that stands still.
type cluster struct {
	*Session
	members  []*member
	attempts []int // the status of each
	avoided  []string

	mu  sync.Mutex
	now time.Time
}

func newCluster(t *testing.T, size int, http2 bool, config Config) *cluster {
	t.Helper()
	c := &cluster{now: time.Now()}
	var ca []byte
	var addresses []string
	for range size {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		m := &member{Listener: listener, address: "https://" + listener.Addr().String()}
		server := &httptest.Server{Listener: m, Config: &http.Server{Handler: m}, EnableHTTP2: http2}
		server.StartTLS()
		t.Cleanup(func() {
			m.mu.Lock()
			for _, conn := range m.held {
				conn.Close()
			}
			m.mu.Unlock()
			server.Close()
		})
		ca = append(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})...)
		c.members, addresses = append(c.members, m), append(addresses, m.address)
	}
	config.CACert = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(config.CACert, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	config.Address = strings.Join(addresses, ", ")
	config.Observe = func(_ Operation, status int, _ time.Duration) { c.attempts = append(c.attempts, status) }
	config.Avoided = func(address string, _ error) { c.avoided = append(c.avoided, address) }
	c.Session = newSession(t, config)
	c.client.servers.now = func() time.Time {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.now
	}
	return c
}

func (c *cluster) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// ask makes a request and returns the statuses of its attempts.
func (c *cluster) ask(t *testing.T) (attempts []int) {
	t.Helper()
	c.attempts = nil
	if _, err := c.Key(t.Context(), fakeKey); err != nil {
		t.Fatal(err)
	}
	return c.attempts
}

func (c *cluster) wantRequests(t *testing.T, want ...int) {
	t.Helper()
	for i, m := range c.members {
		if _, requests := m.counts(); requests != want[i] {
			t.Errorf("server %d has received %d requests, want %d", i, requests, want[i])
		}
	}
}

var oneAttempt = []int{200}

// TestServerDown has the first server of three fail before TLS. That costs no attempt, and the server is not connected
// to again until a health check, which costs nothing either. When it is healthy again, it is used.
func TestServerDown(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", http2), func(t *testing.T) {
			c := newCluster(t, 3, http2, Config{RetryFor: -1})
			first := c.members[0]
			first.set(down)
			for range 3 {
				if got := c.ask(t); !slices.Equal(got, oneAttempt) {
					t.Errorf("attempts: %v", got)
				}
			}
			c.wantRequests(t, 0, 3, 0)
			if connections, _ := first.counts(); connections != 1 {
				t.Errorf("%d connections to a server that is down", connections)
			}
			if !slices.Equal(c.avoided, []string{first.address}) {
				t.Errorf("avoided: %v", c.avoided)
			}

			c.advance(minCheck)
			c.ask(t)
			async.Wait(t, "the check of the server", func() bool { connections, _ := first.counts(); return connections == 2 })
			async.Wait(t, "the check to fail", func() bool { return c.failures(0) == 2 })
			c.advance(minCheck)
			c.ask(t)
			if connections, _ := first.counts(); connections != 2 {
				t.Errorf("%d connections after two seconds, want no second check so early", connections)
			}

			first.set(up)
			c.advance(minCheck)
			c.ask(t)
			async.Wait(t, "the server to be used again",
				func() bool { return c.client.servers.order()[0].address == first.address })
			c.wantRequests(t, 0, 6, 0)
			c.ask(t)
			c.wantRequests(t, 1, 6, 0)
			if c.failures(0) != 0 {
				t.Error("a request that succeeded did not end the history of failures")
			}
		})
	}
}

func (c *cluster) failures(i int) int {
	c.client.servers.mu.Lock()
	defer c.client.servers.mu.Unlock()
	return c.client.servers.all[i].failures
}

// TestServerUnusable has the first server respond, but not as one that can process requests. That costs one attempt.
func TestServerUnusable(t *testing.T) {
	for name, test := range map[string]struct{ state, status int }{
		"sealed":              {sealed, 503},
		"standby, no leader":  {noLeader, 500},
		"closes a connection": {broken, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 2, false, Config{})
			c.members[0].set(test.state)
			if got := c.ask(t); !slices.Equal(got, []int{test.status, 200}) {
				t.Errorf("attempts: %v", got)
			}
			if got := c.ask(t); !slices.Equal(got, oneAttempt) {
				t.Errorf("later attempts: %v", got)
			}
			c.wantRequests(t, 1, 2)
		})
	}
}

// TestServerFlapping has a server that passes each health check and fails each request. It costs an attempt less and
// less often.
func TestServerFlapping(t *testing.T) {
	c := newCluster(t, 2, false, Config{})
	c.members[0].set(noLeader)
	for _, pause := range []time.Duration{minCheck, 2 * minCheck, 4 * minCheck} {
		if got := c.ask(t); len(got) != 2 {
			t.Fatalf("attempts: %v", got)
		}
		c.advance(pause - time.Millisecond)
		if c.client.servers.order(); c.checking(0) {
			t.Fatalf("checked before %s", pause)
		}
		c.advance(time.Millisecond)
		c.ask(t)
		async.Wait(t, "the server passes", func() bool { return c.client.servers.order()[0] == c.client.servers.all[0] })
	}
}

func (c *cluster) checking(i int) bool {
	c.client.servers.mu.Lock()
	defer c.client.servers.mu.Unlock()
	return c.client.servers.all[i].checking
}

// TestServerSilent has the first server accept connections and send nothing. A request goes on to the next one after
// connectTimeout.
func TestServerSilent(t *testing.T) {
	c := newCluster(t, 2, true, Config{RetryFor: -1})
	c.members[0].set(silent)
	began := time.Now()
	for range 3 {
		if got := c.ask(t); !slices.Equal(got, oneAttempt) {
			t.Errorf("attempts: %v", got)
		}
	}
	if took := time.Since(began); took < connectTimeout {
		t.Errorf("went on after %s", took)
	}
	c.wantRequests(t, 0, 3)
	if connections, _ := c.members[0].counts(); connections != 1 {
		t.Errorf("%d connections to a silent server", connections)
	}
}

// TestAllServersSlow has no server that completes a connection in time. The most preferred one gets more time.
func TestAllServersSlow(t *testing.T) {
	c := newCluster(t, 2, false, Config{RetryFor: -1})
	first, second := c.members[0], c.members[1]
	first.set(silent)
	second.set(silent)
	// The first server completes connections only after the second one was tried.
	second.mu.Lock()
	second.accepted = func() { first.set(up) }
	second.mu.Unlock()
	if got := c.ask(t); !slices.Equal(got, oneAttempt) {
		t.Errorf("attempts: %v", got)
	}
	c.wantRequests(t, 1, 0)
	if connections, _ := second.counts(); connections != 1 {
		t.Errorf("%d connections to the second server", connections)
	}
}

// TestAllServersDown returns the errors of all servers, and uses the first one that is up again without a health check.
func TestAllServersDown(t *testing.T) {
	c := newCluster(t, 2, false, Config{RetryFor: -1})
	for _, m := range c.members {
		m.set(down)
	}
	_, err := c.Key(t.Context(), fakeKey)
	var e *Error
	if !errors.Is(err, ErrUnreachable) || !errors.As(err, &e) || !e.Transient || e.Address != c.Address() {
		t.Fatalf("error: %v", err)
	}
	for _, m := range c.members {
		if !strings.Contains(err.Error(), "(at "+m.address+")") {
			t.Errorf("%v does not name %s", err, m.address)
		}
	}
	c.members[1].set(up)
	c.ask(t)
	c.ask(t)
	if connections, _ := c.members[0].counts(); connections != 2 {
		t.Errorf("%d connections to the first server, want none after the second one succeeded", connections)
	}
}

// TestServersSendOnce makes a request that must not be sent twice. It goes to the next server if it was not sent.
func TestServersSendOnce(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		for state, want := range map[int][]int{down: {0, 1}, broken: {1, 0}, sealed: {1, 0}} {
			t.Run(fmt.Sprintf("HTTP/2 %v, state %d", http2, state), func(t *testing.T) {
				c := newCluster(t, 2, http2, Config{})
				c.members[0].set(state)
				err := c.client.do(t.Context(), request{method: http.MethodPost, path: "x", in: "x", once: true})
				if (err != nil) != (state != down) {
					t.Errorf("error: %v", err)
				}
				c.wantRequests(t, want...)
			})
		}
	}
}

// TestServersInvalidRequest checks that an error that is the same at each server ends the request.
func TestServersInvalidRequest(t *testing.T) {
	var requests int
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests++
		respond(http.StatusForbidden, `{"errors":["permission denied"]}`)(w, nil)
	})
	one, two := httptest.NewServer(handler), httptest.NewServer(handler)
	defer one.Close()
	defer two.Close()
	_, err := newSession(t, Config{Address: one.URL + "," + two.URL}).Key(t.Context(), fakeKey)
	if !errors.Is(err, ErrDenied) || requests != 1 {
		t.Errorf("%d requests: %v", requests, err)
	}
}

// TestServersCanceled does not blame a server for a caller that gave up.
func TestServersCanceled(t *testing.T) {
	c := newCluster(t, 2, false, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	c.members[0].accepted = cancel
	c.members[0].set(silent)
	if _, err := c.Key(ctx, fakeKey); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
	if c.failures(0) != 0 {
		t.Error("the server is blamed")
	}
	c.wantRequests(t, 0, 0)
}

// TestResponding chooses a server for other clients.
func TestResponding(t *testing.T) {
	c := newCluster(t, 3, false, Config{})
	c.members[0].set(down)
	c.members[1].set(sealed)
	if got := c.client.Responding(t.Context()); got != c.members[2].address {
		t.Errorf("chose %s, want %s", got, c.members[2].address)
	}
	c.members[2].set(down)
	if got := c.client.Responding(t.Context()); got != c.members[0].address {
		t.Errorf("chose %s of servers that do not respond, want the first one", got)
	}
}

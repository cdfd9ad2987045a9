package transit

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// A cable forwards connections to a server. Cutting it leaves the established ones open, but nothing passes on
// them any more, as when a firewall or a node fails. New connections work.
type cable struct {
	net.Listener
	target string

	mu          sync.Mutex
	cuts        int
	connections int
}

func (c *cable) serve() {
	for {
		client, err := c.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", c.target)
		if err != nil {
			client.Close()
			return
		}
		c.mu.Lock()
		c.connections++
		cuts := c.cuts
		c.mu.Unlock()
		go c.copy(server, client, cuts)
		go c.copy(client, server, cuts)
	}
}

func (c *cable) copy(to, from net.Conn, cuts int) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		c.mu.Lock()
		intact := c.cuts == cuts
		c.mu.Unlock()
		if intact && n > 0 {
			_, _ = to.Write(buffer[:n])
		}
		if err != nil {
			if intact {
				to.Close()
			}
			from.Close()
			return
		}
	}
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cuts++
}

// TestDeadConnection drops everything on the established HTTP/2 connection. A request finds that out within the
// time of a ping, and is repeated on a new connection.
func TestDeadConnection(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("a request with %s", r.Proto)
		}
		_, _ = io.WriteString(w, `{"data":{"latest_version":1,"keys":{"1":1}}}`)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	wire := &cable{Listener: listener, target: server.Listener.Addr().String()}
	go wire.serve()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(Config{Address: "https://" + listener.Addr().String(), CACert: ca,
		TLSServerName: "example.com", RetryFor: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	session := client.Session("", StaticToken("t"))
	for round := range 2 {
		if _, err := session.Key(t.Context(), fakeKey); err != nil {
			t.Fatalf("after %d cuts: %v", round, err)
		}
		wire.cut()
	}
	if wire.connections != 2 {
		t.Errorf("%d connections, want one for each time", wire.connections)
	}
}

// TestDeadServer drops everything on the established connection to the first of two servers, and refuses new ones. That
// costs one attempt.
func TestDeadServer(t *testing.T) {
	c := newCluster(t, 2, true, Config{RetryFor: 30 * time.Second})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	wire := &cable{Listener: listener, target: c.members[0].Listener.Addr().String()}
	go wire.serve()
	c.client.servers.all[0].api.SetAddress("https://" + listener.Addr().String())
	c.ask(t)
	wire.cut()
	listener.Close()
	if got := c.ask(t); !slices.Equal(got, []int{0, 200}) {
		t.Errorf("attempts: %v", got)
	}
	c.wantRequests(t, 1, 1)
}

package httpserver

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	maxConns          = 64
	maxConnsOfAddress = 8

	// acceptRate is well above the rate of a flood that must not delay other work, and leaves most of a processor to that
	// work.
	acceptRate = 8000 // per second
	// connsOfAddress and connsOfAll are the connections per second that are read with [Server.Limit]; connsBurst is the
	// number after a pause.
	connsOfAddress = 5
	connsOfAll     = 200
	connsBurst     = 50

	// acceptBurst bounds the wait of other goroutines: Go polls the network only when no goroutine is ready to run.
	acceptBurst = 10
)

func listen(address string) (*listener, error) {
	// A connection times out long before keep-alive probes would detect that its client is unreachable.
	config := net.ListenConfig{KeepAlive: -1, Control: deferAccept}
	l, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return &listener{
		Listener: l,
		pace:     rate.NewLimiter(acceptRate, acceptBurst),
		conns:    map[*conn]struct{}{},
	}, nil
}

// listener bounds the number of open connections and the rate of new ones.
type listener struct {
	net.Listener // of TCP
	pace         *rate.Limiter
	limit        *shares // of the connections to read; nil: no limit
	early        *early  // responds to health probes; nil: none

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// Accept returns the next connection that is admitted.
func (l *listener) Accept() (net.Conn, error) {
	for {
		// Let the handler of the previous connection start, so that this one does not replace it.
		runtime.Gosched()
		time.Sleep(l.pace.Reserve().Delay())
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp := accepted.(*net.TCPConn)
		c := &conn{TCPConn: tcp, listener: l, address: addressOf(tcp), idleSince: time.Now()}
		allowed := l.limit.take(c.address)
		if allowed && l.early.respond(tcp) {
			continue
		}
		if allowed && l.admit(c) {
			return c, nil
		}
		_ = tcp.SetLinger(0) // keeps no state in the kernel
		_ = tcp.Close()
	}
}

func addressOf(c *net.TCPConn) netip.Addr {
	address, _ := c.RemoteAddr().(*net.TCPAddr)
	return address.AddrPort().Addr().Unmap()
}

// admit adds the connection. At a limit it replaces the connection that has been idle longest: of the same address at
// the limit of an address, otherwise of all. It reports false if all of these are in use.
func (l *listener) admit(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	var oldest, oldestOfAddress *conn
	ofAddress := 0
	for other := range l.conns {
		oldest = longerIdle(oldest, other)
		if other.address == c.address {
			ofAddress++
			oldestOfAddress = longerIdle(oldestOfAddress, other)
		}
	}
	var evicted *conn
	switch {
	case ofAddress >= maxConnsOfAddress:
		evicted = oldestOfAddress
	case len(l.conns) >= maxConns:
		evicted = oldest
	default:
		l.conns[c] = struct{}{}
		return true
	}
	if evicted == nil {
		return false
	}
	delete(l.conns, evicted)
	l.conns[c] = struct{}{}
	_ = evicted.TCPConn.Close()
	return true
}

// longerIdle returns the connection that has been idle longer; a connection in use is not idle.
func longerIdle(a, b *conn) *conn {
	if b.inUse || a != nil && !b.idleSince.Before(a.idleSince) {
		return a
	}
	return b
}

// conn is an open connection. The listener's mutex guards its fields.
type conn struct {
	*net.TCPConn
	listener *listener
	address  netip.Addr

	inUse     bool
	idleSince time.Time
}

func (c *conn) setInUse(inUse bool) {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	c.inUse, c.idleSince = inUse, time.Now()
}

// Close closes the connection and removes it from the listener.
func (c *conn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c)
	c.listener.mu.Unlock()
	return c.TCPConn.Close()
}

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

	// acceptRate is well above the rate of a flood that other work must not notice,
	// and leaves most of a processor to that work.
	acceptRate = 8000 // per second
	// connsOfAddress and connsOfAll are how many connections a second are read at a
	// port with [Server.Limit], and connsBurst how many in a row after a pause.
	connsOfAddress = 5
	connsOfAll     = 200
	connsBurst     = 50

	// acceptBurst bounds what other goroutines wait for: Go looks at the network
	// only when nothing is ready to run.
	acceptBurst = 10
)

func listen(address string) (*listener, error) {
	// A connection ends long before keep-alive probes would say that its client is away.
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

// listener bounds how many connections are open and how fast new ones come.
type listener struct {
	net.Listener // of TCP
	pace         *rate.Limiter
	limit        *shares // of connections that are read at all; nil: all
	early        *early  // answers health probes; nil: none

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// Accept returns the next connection that there is a place for.
func (l *listener) Accept() (net.Conn, error) {
	for {
		// The connection accepted before is answered first, so that its place is not taken.
		runtime.Gosched()
		time.Sleep(l.pace.Reserve().Delay())
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp := accepted.(*net.TCPConn)
		c := &conn{TCPConn: tcp, listener: l, address: addressOf(tcp), idleSince: time.Now()}
		allowed := l.limit.take(c.address)
		if allowed && l.early.answer(tcp) {
			continue
		}
		if allowed && l.admit(c) {
			return c, nil
		}
		_ = tcp.SetLinger(0) // the kernel need not remember it
		_ = tcp.Close()
	}
}

func addressOf(c *net.TCPConn) netip.Addr {
	address, _ := c.RemoteAddr().(*net.TCPAddr)
	return address.AddrPort().Addr().Unmap()
}

// admit gives the connection a place, if need be that of the one which has been idle
// for longest: of the same address where that has its share, otherwise of all.
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

// longerIdle returns the connection that has been idle for longer; one in use is not idle.
func longerIdle(a, b *conn) *conn {
	if b.inUse || a != nil && !b.idleSince.Before(a.idleSince) {
		return a
	}
	return b
}

// conn is a connection that has a place. Its fields belong to the listener's mutex.
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

// Close also frees the connection's place.
func (c *conn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c)
	c.listener.mu.Unlock()
	return c.TCPConn.Close()
}

// Package flood attacks an HTTP port on the loopback interface as a pod on the network could attack one of the
// programs: with idle connections, and with floods of requests. All attacks are bounded and end with their context. On
// Linux they come from many addresses of 127.0.0.0/8.
package flood

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// timeout bounds each connection of a flood.
const timeout = 5 * time.Second

// A Target is the server under attack and the number of source addresses.
type Target struct {
	Address string // IP:port, of the loopback interface
	Path    string
	Sources int
}

// check rejects every target outside of this machine.
func (t Target) check() error {
	at, err := netip.ParseAddrPort(t.Address)
	if err != nil || !at.Addr().IsLoopback() {
		return fmt.Errorf("%q is not an address of the loopback interface", t.Address)
	}
	if t.Sources < 1 || t.Sources > 60000 {
		return fmt.Errorf("%d addresses to come from: must be 1 to 60000", t.Sources)
	}
	return nil
}

// dial connects from the n-th address. None of them is 127.0.0.1.
func (t Target) dial(ctx context.Context, n int) (net.Conn, error) {
	n %= t.Sources
	d := net.Dialer{Timeout: timeout, KeepAlive: -1,
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(n/250), byte(n%250+1))}}
	return d.DialContext(ctx, "tcp", t.Address)
}

func (t Target) request(more string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: flood\r\n%s\r\n", t.Path, more)
}

// Idle opens n idle connections: some have sent nothing, some a part of a request, some a whole request. It returns a
// function that closes those that are still open.
func Idle(ctx context.Context, t Target, n int) (stop func(), err error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	request := t.request("")
	conns := make([]net.Conn, 0, n)
	stop = func() {
		for _, c := range conns {
			c.Close()
		}
	}
	for i := range n {
		c, err := t.dial(ctx, i)
		if err != nil {
			stop()
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
		conns = append(conns, c)
		// An error means that the server has closed the connection, as it should.
		switch i % 4 {
		case 1:
			_, _ = c.Write(request[:len(request)-2])
		case 2, 3:
			_, _ = c.Write(request)
		}
	}
	return stop, nil
}

// Result counts the connections of a flood.
type Result struct {
	Made   int64 // attempted
	OK     int64 // responses with status 200
	Other  int64 // other responses
	Closed int64 // closed by the server, or not connected in time
	Took   time.Duration
}

// Rate returns the connections per second.
func (r Result) Rate() float64 { return float64(r.Made) / r.Took.Seconds() }

func (r Result) String() string {
	return fmt.Sprintf("%.0f connections a second for %s: %d responses, %d refused, %d closed", r.Rate(),
		r.Took.Round(time.Millisecond), r.OK, r.Other, r.Closed)
}

// maxOpen bounds the concurrent connections of a flood.
const maxOpen = 256

// Run makes perSecond requests each second, each on a new connection, until the context ends. It makes fewer if client
// or server are too slow. A connection is closed after the response.
func Run(ctx context.Context, t Target, perSecond int) (Result, error) {
	var made atomic.Int64
	return run(ctx, t, perSecond, &made)
}

// run makes the requests and counts them in made.
func run(ctx context.Context, t Target, perSecond int, made *atomic.Int64) (Result, error) {
	if err := t.check(); err != nil {
		return Result{}, err
	}
	var ok, other, closed atomic.Int64
	request := t.request("Connection: close\r\n")
	wanted := make(chan int, maxOpen)
	var workers sync.WaitGroup
	for range maxOpen {
		workers.Go(func() {
			buffer := make([]byte, 4096)
			for n := range wanted {
				made.Add(1)
				switch status, err := t.get(ctx, n, request, buffer); {
				case err != nil:
					closed.Add(1)
				case status == 200:
					ok.Add(1)
				default:
					other.Add(1)
				}
			}
		})
	}
	began := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	sent := 0
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			due := int(time.Since(began).Seconds() * float64(perSecond))
			// Skip requests that could not be sent in time, instead of sending them in a burst.
			sent = max(sent, due-perSecond/20)
			for ; sent < due; sent++ {
				select {
				case wanted <- sent:
				default:
				}
			}
		}
	}
	took := time.Since(began)
	close(wanted)
	workers.Wait()
	return Result{made.Load(), ok.Load(), other.Load(), closed.Load(), took}, nil
}

// get makes a request and returns the status of its response.
func (t Target) get(ctx context.Context, n int, request, buffer []byte) (status int, err error) {
	c, err := t.dial(ctx, n)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	if _, err := c.Write(request); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(c, buffer[:len("HTTP/1.1 200")]); err != nil {
		return 0, err
	}
	if _, err := fmt.Sscanf(string(buffer[:len("HTTP/1.1 200")]), "HTTP/1.1 %d", &status); err != nil {
		return 0, err
	}
	for err == nil {
		_, err = c.Read(buffer)
	}
	if !errors.Is(err, io.EOF) {
		return 0, err
	}
	return status, nil
}

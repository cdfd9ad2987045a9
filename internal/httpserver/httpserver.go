// Package httpserver makes the HTTP servers of our programs: health, metrics and
// profiles. Any pod on the network may reach these ports, and the process behind
// them has more important work, so a server bounds what a stranger can cost it:
//
//   - Memory. At most 64 connections are open, 8 from one address. A further one
//     takes the place of the connection that has waited longest for its client, so that idle connections,
//     however many, keep nobody out. Only a connection for which a handler works has
//     a right to its place; where all are such, the new one is closed.
//   - Time. Reading, writing and waiting have timeouts, and a header has 4 KiB.
//   - CPU. A connection carries one request, and connections are accepted at a
//     bounded rate, a few at a time, so that other goroutines, such as those of
//     a mount, run in between. The kernel's queue holds the rest meanwhile. What
//     is expensive to answer comes from a [Cache], and a [Health] probe is answered
//     where its connection is accepted.
package httpserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// timeouts are of one connection. Writing includes the handler's time.
type timeouts struct{ read, write, idle time.Duration }

var defaultTimeouts = timeouts{read: 5 * time.Second, write: 15 * time.Second, idle: 5 * time.Second}

// maxHeaderBytes makes the limit on request line and header 4 KiB (and a byte): net/http
// allows 4096 bytes more than it says, and takes 0 for a megabyte.
const maxHeaderBytes = 1

// Server serves a handler on a TCP address of its own.
type Server struct {
	http     *http.Server
	listener *listener
}

// Listen listens on the address. Connections wait until [Server.Serve].
func Listen(address string, handler http.Handler, log *slog.Logger) (*Server, error) {
	return listenWith(defaultTimeouts, address, handler, log)
}

func listenWith(t timeouts, address string, handler http.Handler, log *slog.Logger) (*Server, error) {
	listener, err := listen(address)
	if err != nil {
		return nil, err
	}
	listener.early = newEarly(handler)
	s := &http.Server{
		Handler:           inUse(handler),
		ReadHeaderTimeout: t.read,
		ReadTimeout:       t.read,
		WriteTimeout:      t.write,
		IdleTimeout:       t.idle,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	// A request costs its sender a connection, so the bound on connections is one on
	// requests too. Prometheus and the kubelet come a few times a minute.
	s.SetKeepAlivesEnabled(false)
	return &Server{s, listener}, nil
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Limit closes connections unread when their address makes more than 5 in a second, or
// all addresses more than 200: a flood then costs little more than accepting it. It is
// for ports that nothing depends on. The probes of the kubelet share the address of
// whatever else runs in the node's own network, and must not be closed for that. Call
// it before Serve.
func (s *Server) Limit() {
	s.listener.limit = newShares(connsOfAddress, connsOfAll, connsBurst)
}

// Serve answers requests until Close, and then returns nil.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends the server and its connections. It may be called before Serve.
func (s *Server) Close() error { return errors.Join(s.http.Close(), ignoreClosed(s.listener.Close())) }

// ignoreClosed drops the error of a listener that Serve has closed already.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

type connKey struct{}

// inUse gives a connection a right to its place while the handler works for it. A
// request that is still arriving has none, nor has a response that is on its way: its
// client may never fetch it.
func inUse(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := r.Context().Value(connKey{}).(*conn)
		c.setInUse(true)
		defer c.setInUse(false)
		handler.ServeHTTP(responseWriter{w, c}, r)
	})
}

type responseWriter struct {
	http.ResponseWriter
	conn *conn
}

func (w responseWriter) Write(b []byte) (int, error) {
	w.conn.setInUse(false)
	return w.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (w responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

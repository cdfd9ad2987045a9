// Package httpserver provides the HTTP servers of the programs: health, metrics and profiles. Any pod on the network
// may reach these ports, and the process has more important work, so a server bounds the cost of requests:
//
//   - Memory. At most 64 connections are open, 8 from one address. A further connection replaces the one that has been
//     idle longest, so that idle connections cannot block others. A connection whose handler runs is never replaced; if
//     all are such, the server closes the new one.
//   - Time. Reading, writing and waiting have timeouts. A header has at most 4 KiB.
//   - CPU. A connection carries one request. Connections are accepted at a bounded rate, a few at a time, so that other
//     goroutines, such as those of a mount, run in between; the others wait in the kernel. Expensive results come from
//     a [Cache], and the goroutine that accepts connections responds to [Health] probes.
package httpserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// timeouts are the timeouts of a connection. The write timeout includes the time of the handler.
type timeouts struct{ read, write, idle time.Duration }

var defaultTimeouts = timeouts{read: 5 * time.Second, write: 15 * time.Second, idle: 5 * time.Second}

// maxHeaderBytes limits the request line and header to 4 KiB (and a byte): net/http allows 4096 bytes more than the
// limit, and 0 means a megabyte.
const maxHeaderBytes = 1

// Server serves a handler on a TCP address.
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
	// Each request needs a connection, so that limits on connections also limit requests. Prometheus and the kubelet send
	// only a few requests a minute.
	s.SetKeepAlivesEnabled(false)
	return &Server{s, listener}, nil
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Limit closes connections unread if their address opens more than 5 in a second, or all addresses together more than
// 200, so that a flood costs little more than accepting it. Do not use it for health probes: the kubelet shares its
// address with everything in the host network of the node. Call it before Serve.
func (s *Server) Limit() {
	s.listener.limit = newShares(connsOfAddress, connsOfAll, connsBurst)
}

// Serve serves requests until Close, and then returns nil.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close closes the server and its connections. It may be called before Serve.
func (s *Server) Close() error { return errors.Join(s.http.Close(), ignoreClosed(s.listener.Close())) }

// ignoreClosed drops the error of a listener that Serve has closed already.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

type connKey struct{}

// inUse protects a connection from replacement while its handler runs. The connection is not protected while the
// request arrives or the response is written, because the client may never finish.
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

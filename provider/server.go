package provider

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

// maxRequest is what a request may have. gRPC would refuse a longer one with
// ResourceExhausted, so it is more than there can be: a Secret of 1 MiB, and a
// class and a pod of 1.5 MiB each, where JSON writes a byte as six.
const maxRequest = 64 << 20

// maxStreams is how many calls a connection may have under way; more wait in the
// driver. It bounds what requests that wait for their turn take, and is more than
// a node has volumes that start at once.
const maxStreams = 512

// Server serves a [Provider] on a unix socket.
type Server struct {
	socket *socket
	grpc   *grpc.Server
	log    *slog.Logger
	audit  *auditLog
	grace  time.Duration
}

// Listen makes the socket at endpoint, over a stale one or that of a process
// that is being replaced, and nobody else's than its owner's. Calls wait until
// [Server.Serve].
func Listen(endpoint string, p *Provider) (*Server, error) {
	socket, err := listen(endpoint)
	if err != nil {
		return nil, err
	}
	p.metrics.socket.Store(socket)
	s := &Server{
		socket: socket, log: p.log, audit: p.audit,
		// Every mount ends by itself before that.
		grace: p.config.MountTimeout + 2*time.Second,
		grpc: grpc.NewServer(
			grpc.UnaryInterceptor(guard(p.log, p.metrics.panics)),
			grpc.MaxRecvMsgSize(maxRequest),
			grpc.MaxConcurrentStreams(maxStreams),
		),
	}
	v1alpha1.RegisterCSIDriverProviderServer(s.grpc, p)
	return s, nil
}

// Serve answers calls until the context ends; then it takes no more of them,
// finishes those it has, and returns. The socket's path is removed, unless
// another process has put its own there.
func (s *Server) Serve(ctx context.Context) error {
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		s.drain()
	})
	defer s.audit.flush(context.WithoutCancel(ctx))
	s.log.Info("serving", "endpoint", s.socket.path)
	// ErrServerStopped: the context had ended before.
	if err := s.grpc.Serve(s.socket); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		if stop() {
			s.grpc.Stop()
		} else {
			<-drained
		}
		return err
	}
	<-drained
	return nil
}

func (s *Server) drain() {
	s.log.Info("stopping: finishing the mounts under way", "endpoint", s.socket.path)
	timer := time.AfterFunc(s.grace, func() {
		s.log.Error("mounts under way did not end", "waited", s.grace)
		s.grpc.Stop()
	})
	defer timer.Stop()
	s.grpc.GracefulStop()
}

// Ready reports whether calls that the driver makes from now on come here: not
// once another process has taken the socket over, nor after the end of Serve's
// context.
func (s *Server) Ready() bool { return s.socket.owned() }

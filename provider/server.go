package provider

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/auditlog"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/unixsocket"
)

// maxStreams is how many calls a connection may have under way; more wait in the
// driver. It is more than a node has volumes that start at once.
const maxStreams = 512

// Server serves a [Provider] on a unix socket.
type Server struct {
	provider  *Provider
	receiving chan struct{} // one for each request that is being read
	socket    *unixsocket.Socket
	grpc      *grpc.Server
	log       *slog.Logger
	audit     *auditlog.Log
	grace     time.Duration
}

// Listen makes the socket at endpoint, over a stale one or that of a process
// that is being replaced, and nobody else's than its owner's. Calls wait until
// [Server.Serve].
func Listen(endpoint string, p *Provider) (*Server, error) {
	socket, err := unixsocket.Listen(endpoint)
	if err != nil {
		return nil, err
	}
	p.metrics.socket.Store(socket)
	s := &Server{
		provider: p, receiving: make(chan struct{}, maxReceiving), socket: socket, log: p.log, audit: p.audit,
		// Every mount ends by itself before that.
		grace: p.config.MountTimeout + 2*time.Second,
		grpc: grpc.NewServer(
			grpc.ForceServerCodecV2(newCodec()),
			grpc.MaxConcurrentStreams(maxStreams),
			grpc.InitialWindowSize(window), // which also keeps gRPC from raising it
		),
	}
	s.grpc.RegisterService(&grpc.ServiceDesc{
		ServiceName: v1alpha1.CSIDriverProvider_ServiceDesc.ServiceName,
		HandlerType: (*v1alpha1.CSIDriverProviderServer)(nil),
		Streams: []grpc.StreamDesc{
			s.unary(v1alpha1.CSIDriverProvider_Version_FullMethodName,
				func(ctx context.Context, stream grpc.ServerStream, _ *holds) (any, error) {
					in := &v1alpha1.VersionRequest{}
					if err := s.receive(ctx, stream, in); err != nil {
						return nil, err
					}
					return p.Version(ctx, in)
				}),
			s.unary(v1alpha1.CSIDriverProvider_Mount_FullMethodName,
				func(ctx context.Context, stream grpc.ServerStream, h *holds) (any, error) {
					in := &v1alpha1.MountRequest{}
					if err := s.receive(ctx, stream, in); err != nil {
						p.unreceived(ctx, err)
						return nil, err
					}
					return p.mountHolding(ctx, in, h)
				}),
		},
	}, p)
	return s, nil
}

// unary serves a call as a stream; see wire.go.
func (s *Server) unary(method string, call func(context.Context, grpc.ServerStream, *holds) (
	any, error)) grpc.StreamDesc {
	guarded := guard(s.log, s.provider.metrics.panics)
	return grpc.StreamDesc{
		StreamName: path.Base(method), ClientStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			// The wait for a request is part of its time: a drain lasts no longer than that.
			ctx, cancel := s.provider.deadline(stream.Context())
			defer cancel()
			var h holds
			defer h.release()
			out, err := guarded(ctx, nil, &grpc.UnaryServerInfo{FullMethod: method},
				func(ctx context.Context, _ any) (any, error) { return call(ctx, stream, &h) })
			if err != nil {
				return err
			}
			if err := send(stream, out.(proto.Message), &h); err != nil {
				return failure.Final(err)
			}
			return nil
		},
	}
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
	defer s.audit.Flush(context.WithoutCancel(ctx))
	s.log.Info("serving", "endpoint", s.socket.Path())
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
	s.log.Info("stopping: finishing the mounts under way", "endpoint", s.socket.Path())
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
func (s *Server) Ready() bool { return s.socket.Owned() }

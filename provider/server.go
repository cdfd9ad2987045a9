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

// maxStreams bounds the concurrent calls of a connection. Further calls wait in the driver. It is more than the volumes
// that start at once on a node.
const maxStreams = 512

// Server serves a [Provider] on a unix socket.
type Server struct {
	provider  *Provider
	receiving chan struct{} // semaphore of large requests that are being read
	socket    *unixsocket.Socket
	grpc      *grpc.Server
	log       *slog.Logger
	audit     *auditlog.Log
	grace     time.Duration
}

// Listen creates the socket at endpoint, and replaces a stale one or that of the process that this one replaces. Only
// the owner of the socket can connect. Calls wait until [Server.Serve].
func Listen(endpoint string, p *Provider) (*Server, error) {
	socket, err := unixsocket.Listen(endpoint)
	if err != nil {
		return nil, err
	}
	p.metrics.socket.Store(socket)
	s := &Server{
		provider: p, receiving: make(chan struct{}, maxReceiving), socket: socket, log: p.log, audit: p.audit,
		// Every mount ends before that.
		grace: p.config.MountTimeout + 2*time.Second,
		grpc: grpc.NewServer(
			grpc.ForceServerCodecV2(newCodec()),
			grpc.MaxConcurrentStreams(maxStreams),
			grpc.InitialWindowSize(window), // a set window is never raised
		),
	}
	s.grpc.RegisterService(&grpc.ServiceDesc{
		ServiceName: v1alpha1.CSIDriverProvider_ServiceDesc.ServiceName,
		HandlerType: (*v1alpha1.CSIDriverProviderServer)(nil),
		Streams: []grpc.StreamDesc{
			s.unary(v1alpha1.CSIDriverProvider_Version_FullMethodName,
				func(ctx context.Context, stream grpc.ServerStream, _ *memoryGrants) (any, error) {
					in := &v1alpha1.VersionRequest{}
					if err := s.receive(ctx, stream, in); err != nil {
						return nil, err
					}
					return p.Version(ctx, in)
				}),
			s.unary(v1alpha1.CSIDriverProvider_Mount_FullMethodName,
				func(ctx context.Context, stream grpc.ServerStream, g *memoryGrants) (any, error) {
					in := &v1alpha1.MountRequest{}
					if err := s.receive(ctx, stream, in); err != nil {
						p.finishUnread(ctx, err)
						return nil, err
					}
					return p.mountReserved(ctx, in, g)
				}),
		},
	}, p)
	return s, nil
}

// unary serves a call as a stream; see wire.go.
func (s *Server) unary(method string, call func(context.Context, grpc.ServerStream, *memoryGrants) (
	any, error)) grpc.StreamDesc {
	guarded := guard(s.log, s.provider.metrics.panics)
	return grpc.StreamDesc{
		StreamName: path.Base(method), ClientStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			// The deadline includes the time to receive the request, so that it bounds a drain.
			ctx, cancel := s.provider.deadline(stream.Context())
			defer cancel()
			var g memoryGrants
			defer g.release()
			out, err := guarded(ctx, nil, &grpc.UnaryServerInfo{FullMethod: method},
				func(ctx context.Context, _ any) (any, error) { return call(ctx, stream, &g) })
			if err != nil {
				return err
			}
			if err := send(stream, out.(proto.Message), &g); err != nil {
				return failure.Final(err)
			}
			return nil
		},
	}
}

// Serve serves calls until the context ends. Then it accepts no more calls, finishes those in progress, and returns. It
// removes the path of the socket, unless another process has replaced it.
func (s *Server) Serve(ctx context.Context) error {
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		s.drain()
	})
	defer s.audit.Flush(context.WithoutCancel(ctx))
	s.log.Info("serving", "endpoint", s.socket.Path())
	// ErrServerStopped means that the context ended before.
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
	s.log.Info("stopping: finishing the mounts in progress", "endpoint", s.socket.Path())
	timer := time.AfterFunc(s.grace, func() {
		s.log.Error("mounts in progress did not end", "waited", s.grace)
		s.grpc.Stop()
	})
	defer timer.Stop()
	s.grpc.GracefulStop()
}

// Ready reports whether new calls of the driver reach this server. It is false after another process has replaced the
// socket, and after Serve's context has ended.
func (s *Server) Ready() bool { return s.socket.Owned() }

package provider

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// guard returns an interceptor that turns a panic into an error of the call, and gives every error a code that is final
// for the kubelet. It counts panics.
func guard(log *slog.Logger, panics prometheus.Counter) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, in any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (out any, err error) {
		defer func() {
			if r := recover(); r != nil {
				panics.Inc()
				log.LogAttrs(ctx, slog.LevelError, "panic in a call", slog.String("method", info.FullMethod),
					slog.String("panic", describePanic(r)), slog.String("stack", string(debug.Stack())))
				out, err = nil, failure.Final(failure.Internal.New("the mount failed", "bug in the provider ("+describePanic(r)+")",
					"the provider's log on the node, which has the stack trace, and report it"))
			}
		}()
		out, err = handler(ctx, in)
		if err != nil {
			return nil, failure.Final(err)
		}
		return out, nil
	}
}

// describePanic describes a panic. It quotes only errors of the Go runtime: other values may contain secrets.
func describePanic(r any) string {
	if err, ok := r.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("panic with a %T", r)
}

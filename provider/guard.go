package provider

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// guard is around every call: a panic becomes an error of that call, and an
// error, whatever it is, gets one of the codes that the kubelet takes for final.
// It counts the panics.
func guard(log *slog.Logger, panics prometheus.Counter) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, in any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (out any, err error) {
		defer func() {
			if r := recover(); r != nil {
				panics.Inc()
				log.LogAttrs(ctx, slog.LevelError, "panic in a call", slog.String("method", info.FullMethod),
					slog.String("panic", panicWords(r)), slog.String("stack", string(debug.Stack())))
				out, err = nil, final(fail(codes.Internal, "the mount failed", "the provider made a mistake of its own ("+panicWords(r)+")",
					"the provider's log on the node, which has the place in the code, and report it"))
			}
		}()
		out, err = handler(ctx, in)
		if err != nil {
			return nil, final(err)
		}
		return out, nil
	}
}

// panicWords describes a panic. Only the runtime's own words are known not to
// hold what was being worked on.
func panicWords(r any) string {
	if err, ok := r.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("panic with a %T", r)
}

package provider

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/async"
)

// TestGuard verifies that a panic is an error of its call and does not reveal the data of the call.
func TestGuard(t *testing.T) {
	metrics := newMetrics("")
	for name, panics := range map[string]func(){
		"runtime error": func() { _ = []int{}[len(name(t))] },
		"text":          func() { panic(canaryPlaintext) },
		"error":         func() { panic(errors.New(canaryToken)) },
	} {
		t.Run("panic with a "+name, func(t *testing.T) {
			var log async.Buffer
			_, err := guard(slog.New(slog.NewTextHandler(&log, nil)), metrics.panics)(t.Context(), nil,
				&grpc.UnaryServerInfo{FullMethod: "/Mount"},
				func(context.Context, any) (any, error) { panics(); return nil, nil })
			wantError(t, err, failure.Internal, "bug in the provider")
			clean(t, canaries, err.Error(), log.String())
			if !strings.Contains(log.String(), "guard_test.go") {
				t.Errorf("the log does not have the location of the panic:\n%s", &log)
			}
		})
	}
}

func name(t *testing.T) string { return t.Name() }

package provider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/secretmanager-io/secretmanager/transit"
)

// trap are the codes after which a pod starts with an empty volume.
var trap = []codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted}

// TestGuard runs every error there is, and panics, through what is around every call.
func TestGuard(t *testing.T) {
	errs := map[string]error{
		"deadline":         context.DeadlineExceeded,
		"cancel":           context.Canceled,
		"wrapped deadline": fmt.Errorf("x: %w", context.DeadlineExceeded),
		"plain":            errors.New("x"),
		"transit":          &transit.Error{Doing: "x", Err: transit.ErrTimeout},
	}
	for code := codes.Code(1); code <= codes.Unauthenticated; code++ {
		errs["status "+code.String()] = status.Error(code, "x")
		errs["failure "+code.String()] = fail(code, "a", "b", "c")
		errs["wrapped failure "+code.String()] = fmt.Errorf("x: %w", fail(code, "a", "b", "c"))
	}
	log, metrics := slog.New(slog.DiscardHandler), newMetrics("")
	for name, err := range errs {
		t.Run(name, func(t *testing.T) {
			_, got := guard(log, metrics.panics)(t.Context(), nil, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) { return nil, err })
			for _, code := range trap {
				if status.Code(got) == code {
					t.Errorf("code %s", code)
				}
			}
			if !isFinal(status.Code(got)) || !parts.MatchString(status.Convert(got).Message()) {
				t.Errorf("got %s: %v", status.Code(got), got)
			}
			var f *failure
			if errors.As(err, &f) && isFinal(f.code) && status.Code(got) != f.code {
				t.Errorf("code %s became %s", f.code, status.Code(got))
			}
		})
	}
	for name, panics := range map[string]func(){
		"runtime error": func() { _ = []int{}[len(name(t))] },
		"text":          func() { panic(canaryPlaintext) },
		"error":         func() { panic(errors.New(canaryToken)) },
	} {
		t.Run("panic with a "+name, func(t *testing.T) {
			var log logBuffer
			_, err := guard(slog.New(slog.NewTextHandler(&log, nil)), metrics.panics)(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/Mount"},
				func(context.Context, any) (any, error) { panics(); return nil, nil })
			wantError(t, err, codes.Internal, "mistake of its own")
			clean(t, canaries, err.Error(), log.String())
			if !strings.Contains(log.String(), "errors_test.go") {
				t.Errorf("the log does not have the place of the panic:\n%s", &log)
			}
		})
	}
}

func name(t *testing.T) string { return t.Name() }

func TestFinalScrubs(t *testing.T) {
	const jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
	for _, secret := range []string{
		"a-token-of-no-known-form", jwt, jwt[:30], "hvs.CAESIJ1234567890abcdefgh", "s.abcdefghijklmnopqrstuvwx", canaryCiphertext,
	} {
		f := final(fail(codes.NotFound, "what "+secret, "why "+secret, "that "+secret+" is so"), "a-token-of-no-known-form", "")
		clean(t, []string{secret}, f.Error())
		if f.code != codes.NotFound || strings.Count(f.Error(), "(token)")+strings.Count(f.Error(), "(removed)") != 3 {
			t.Errorf("got %v", f)
		}
	}
	// What is too short to be a token does not take the message apart.
	for _, secret := range []string{"a", "role", "account"} {
		if f := final(fail(codes.NotFound, "a role", "account a", "a role"), secret); f.Error() != "a role: account a; check a role" {
			t.Errorf("%q: got %q", secret, f)
		}
	}
	if f := final(fail(codes.NotFound, "x", "it has 12345678 in it", "y"), "12345678"); strings.Contains(f.Error(), "12345678") {
		t.Errorf("got %q", f)
	}
	// Names that have a likeness stay.
	const names = `role "hvs" of auth/s.b with service account demo/vault.v1, key vault:v1`
	if f := final(fail(codes.NotFound, names, "x", "y")); f.what != names {
		t.Errorf("got %q", f.what)
	}
}

// TestYAMLAudience: the line to copy has the audience and nothing else, whatever it is.
func TestYAMLAudience(t *testing.T) {
	for _, audience := range []string{
		"", "vault", "https://kubernetes.default.svc", "a: b", "x\n- audience: ''", "yes", "null", "12", "'", `"`, "#", "*a", "{a", "- a", "a ", "\u2028", "\x7f", "é",
	} {
		var got []map[string]string
		line := "- audience: " + yamlAudience(audience)
		if err := yaml.Unmarshal([]byte(line), &got); err != nil || len(got) != 1 || len(got[0]) != 1 || got[0]["audience"] != audience {
			t.Errorf("%q: %q is %q, %v", audience, line, got, err)
		}
	}
	if got := yamlAudience("vault"); got != "vault" {
		t.Errorf("got %s", got)
	}
}

func TestFinalIsShort(t *testing.T) {
	f := final(fail(codes.NotFound, "what", strings.Repeat("é", maxMessage), "the end"))
	if n := len(f.Error()); n > maxMessage+10 || !strings.HasSuffix(f.Error(), "…; check the end") {
		t.Errorf("%d bytes, ending in %q", n, f.Error()[n-30:])
	}
}

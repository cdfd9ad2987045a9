package provider

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// failure is why a mount failed, in the three parts that every message has.
type failure struct {
	code  codes.Code
	what  string // what failed, with names
	why   string // in the words of whoever refused, where there are any
	check string // what to look at, after "check"
}

func (f *failure) Error() string { return f.what + ": " + f.why + "; check " + f.check }

// GRPCStatus lets gRPC send the code.
func (f *failure) GRPCStatus() *status.Status { return status.New(f.code, f.Error()) }

func fail(code codes.Code, what, why, check string) *failure {
	return &failure{code, what, why, check}
}

// maxMessage bounds a message: it ends in an event of the pod, and travels in a
// gRPC trailer, whose size is limited too.
const maxMessage = 8 << 10

// list joins the problems of one input, as far as they fit a message.
func list(problems []string) string {
	var b strings.Builder
	for i, p := range problems {
		p = clip(p, 1000)
		if b.Len() > 0 && b.Len()+len(p) > maxMessage-1500 {
			fmt.Fprintf(&b, "; and %d more", len(problems)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(p)
	}
	return b.String()
}

// quote quotes a text of somebody else's, which may be of any length.
func quote(s string) string { return fmt.Sprintf("%q", clip(s, 120)) }

// clip cuts a text after n bytes, between two characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// final returns the failure to send for any error at all. Its code is one of
// the six that the kubelet takes for final, and its message is scrubbed of the
// given secrets and of what looks like one.
func final(err error, secrets ...string) *failure {
	var f *failure
	if !errors.As(err, &f) {
		f = fail(codes.Internal, "the mount failed", status.Convert(err).Message(), "the provider's log on the node")
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			f.why = "it was given up: " + f.why
		}
	}
	sent := *f
	if !isFinal(f.code) {
		sent.code = codes.Internal
	}
	sent.what, sent.why, sent.check = scrub(f.what, secrets), scrub(f.why, secrets), scrub(f.check, secrets)
	if over := len(sent.Error()) - maxMessage; over > 0 {
		sent.why = clip(sent.why, max(len(sent.why)-over, 200))
	}
	return &sent
}

func isFinal(c codes.Code) bool {
	switch c {
	case codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.Unauthenticated,
		codes.FailedPrecondition, codes.Internal:
		return true
	}
	return false
}

// secretLike is what tokens of Kubernetes and Vault, and transit ciphertext,
// look like. No message is made of any; this is for what somebody else's words
// might bring along.
var secretLike = regexp.MustCompile(
	`eyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*){0,2}` + // a JSON web token
		`|\b(hv[sbr]|[sbr])\.[A-Za-z0-9_-]{20,}` + // a token of Vault's or OpenBao's
		`|vault:v[0-9]+:[A-Za-z0-9+/=_-]+`)

// minSecret is the length from which a token is taken out of messages. A shorter one
// is no token that anybody issues, and to replace a letter or two wherever they are
// makes a message unreadable without keeping anything secret. A real one, of the
// API server, has hundreds of bytes.
const minSecret = 8

func scrub(s string, secrets []string) string {
	for _, secret := range secrets {
		if len(secret) >= minSecret {
			s = strings.ReplaceAll(s, secret, "(token)")
		}
	}
	return secretLike.ReplaceAllString(s, "(removed)")
}

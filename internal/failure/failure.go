// Package failure is the catalog of the failures that users see, and builds their messages.
//
// Each failure has a [Reason]: a stable CamelCase name, as events of Kubernetes have. It is the beginning of the
// message, and the reason in logs. For a mount it is also a label of the metric secretmanager_provider_mounts_total and
// a field of the audit record. Tools and tests compare reasons, never texts. docs/reference/errors.md is generated from
// the catalog.
//
// The message of a mount has four parts: the reason; what failed, with names; the cause, with the error of Vault or
// Kubernetes if there is one; and what to check. The other components add the reason to their own messages. No message
// contains a token, plaintext or ciphertext.
package failure

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/secretmanager-io/secretmanager/internal/display"
)

// Component is what reports a failure; a set of them is their sum.
type Component int

// The components.
const (
	Mount       Component = 1 << iota // the provider
	Rotation                          // the rotator, and the verb rotate
	CommandLine                       // the other verbs
)

// Reason is one entry of the catalog. Reasons are compared by pointer.
type Reason struct {
	name         string
	code         codes.Code // of mounts
	components   Component
	cause, check string // Markdown, for the page
}

// String returns the name of the reason.
func (r *Reason) String() string { return r.name }

// Code returns the gRPC code for the driver and the kubelet, if the reason is one of a mount.
func (r *Reason) Code() codes.Code { return r.code }

// New returns a failure: what failed, the cause, and what to check.
func (r *Reason) New(what, cause, check string) *Error { return &Error{r, what, cause, check} }

// Wrap returns an error with the reason, whose message begins with it.
func (r *Reason) Wrap(err error) error { return &reasoned{r, err} }

type reasoned struct {
	reason *Reason
	error
}

func (e *reasoned) Error() string { return e.reason.name + ": " + e.error.Error() }

func (e *reasoned) Unwrap() error { return e.error }

// Error is a failed mount. The driver receives its message and the gRPC code of its reason.
type Error struct {
	Reason *Reason
	What   string // what failed, with names
	Cause  string // with the error of the server that refused, if there is one
	Check  string // what to check
}

func (e *Error) Error() string {
	return e.Reason.name + ": " + e.What + ": " + e.Cause + "; check " + e.Check
}

// GRPCStatus returns the status that gRPC sends.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Reason.code, e.Error()) }

// Of returns the reason of an error, or nil: that of an [Error], of [Reason.Wrap], of Vault, or of the API server.
func Of(err error) *Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	var wrapped *reasoned
	if errors.As(err, &wrapped) {
		return wrapped.reason
	}
	if r := ofVault(err); r != nil {
		return r
	}
	return ofAPIServer(err)
}

// Parse returns the reason of a message, and the message without the prefixes that the driver and the kubelet add. The
// reason is nil if the message is not from this package.
func Parse(message string) (reason *Reason, text string) {
	if i := strings.LastIndex(message, "desc = "); i >= 0 {
		message = message[i+len("desc = "):]
	}
	name, _, _ := strings.Cut(message, ": ")
	return byName[name], message
}

// MaxMessage bounds a message in bytes: it becomes an event of the pod, and part of a gRPC trailer of limited size.
const MaxMessage = 8 << 10

// Final returns the failure to send for an error; one that is not an [Error] becomes [Internal]. All codes of the
// catalog are final for the kubelet. Final removes the given secrets, and texts that look like secrets, from the
// message.
func Final(err error, secrets ...string) *Error {
	var e *Error
	if !errors.As(err, &e) {
		e = Internal.New("the mount failed", status.Convert(err).Message(), "the provider's log on the node")
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			e.Cause = "the call ended early: " + e.Cause
		}
	}
	sent := *e
	sent.What, sent.Cause, sent.Check = scrub(e.What, secrets), scrub(e.Cause, secrets), scrub(e.Check, secrets)
	if over := len(sent.Error()) - MaxMessage; over > 0 {
		sent.Cause = display.Clip(sent.Cause, max(len(sent.Cause)-over, 200))
	}
	return &sent
}

// List joins the problems of one input, as many as fit a message.
func List(problems []string) string {
	var b strings.Builder
	for i, p := range problems {
		p = display.Clip(p, 1000)
		if b.Len() > 0 && b.Len()+len(p) > MaxMessage-1500 {
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

// MaxProblems bounds the reported problems of one input. The rest of the input is not checked.
const MaxProblems = 20

// Problems are the problems of one input, up to MaxProblems.
type Problems []string

// Add appends a problem and reports whether there is room for more.
func (p *Problems) Add(problem string) bool {
	if !p.Full() {
		*p = append(*p, problem)
	}
	return !p.Full()
}

// Full reports whether there is no room for more.
func (p *Problems) Full() bool { return len(*p) >= MaxProblems }

// secretLike matches texts that look like a token of Kubernetes or Vault, or like transit ciphertext. Our messages
// contain none, but they quote errors of other programs.
var secretLike = regexp.MustCompile(
	`eyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*){0,2}` + // a JSON web token
		`|\b(hv[sbr]|[sbr])\.[A-Za-z0-9_-]{20,}` + // a token of Vault or OpenBao
		`|vault:v[0-9]+:[A-Za-z0-9+/=_-]+`)

// Redact replaces texts that look like secrets.
func Redact(s string) string { return secretLike.ReplaceAllString(s, "(removed)") }

// minSecret is the minimum length of a secret that is removed from messages. No issuer uses shorter tokens, and
// replacing one or two letters everywhere would make a message unreadable and protect nothing.
const minSecret = 8

func scrub(s string, secrets []string) string {
	for _, secret := range secrets {
		if len(secret) >= minSecret {
			s = strings.ReplaceAll(s, secret, "(token)")
		}
	}
	return Redact(s)
}

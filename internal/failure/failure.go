// Package failure is the catalog of the failures of a mount that users see, and makes their messages.
//
// Each failure has a [Reason]: a stable CamelCase name, as the events of Kubernetes have. The message begins with it,
// the metric secretmanager_provider_mounts_total has it as a label, and the audit record has it as a field. Tools and
// tests compare reasons, never texts. docs/reference/errors.md is generated from the catalog.
//
// A message has four parts: the reason; what failed, with names; the cause, in the words of Vault or Kubernetes where
// they have any; and what to check. It never contains a token, plaintext or ciphertext.
package failure

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

// Reason is one entry of the catalog. Reasons are compared by pointer.
type Reason struct {
	name         string
	code         codes.Code
	cause, check string // Markdown, for the page
}

// String returns the name of the reason.
func (r *Reason) String() string { return r.name }

// Code returns the gRPC code that the driver and the kubelet get.
func (r *Reason) Code() codes.Code { return r.code }

// New returns a failure: what failed, the cause, and what to check.
func (r *Reason) New(what, cause, check string) *Error { return &Error{r, what, cause, check} }

// Error is a failed mount. The driver gets its message and the gRPC code of its reason.
type Error struct {
	Reason *Reason
	What   string // what failed, with names
	Cause  string // in the words of whoever refused, where there are any
	Check  string // what to check
}

func (e *Error) Error() string {
	return e.Reason.name + ": " + e.What + ": " + e.Cause + "; check " + e.Check
}

// GRPCStatus lets gRPC send the code.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Reason.code, e.Error()) }

// Of returns the reason of an error: Internal if it has none.
func Of(err error) *Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return Internal
}

// Parse splits a message that may have passed through the driver and the kubelet. The reason is nil if the message is
// not one of this package.
func Parse(message string) (reason *Reason, text string) {
	if i := strings.LastIndex(message, "desc = "); i >= 0 {
		message = message[i+len("desc = "):]
	}
	name, _, _ := strings.Cut(message, ": ")
	return byName[name], message
}

// MaxMessage bounds a message: it becomes an event of the pod, and travels in a gRPC trailer, whose size is limited.
const MaxMessage = 8 << 10

// Final returns the failure to send for any error. Its code is final for the kubelet, as all codes of the catalog are.
// The given secrets, and texts that look like secrets, are removed from its message.
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
		sent.Cause = Clip(sent.Cause, max(len(sent.Cause)-over, 200))
	}
	return &sent
}

// List joins the problems of one input, as many as fit a message.
func List(problems []string) string {
	var b strings.Builder
	for i, p := range problems {
		p = Clip(p, 1000)
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

// Quote quotes a text of any length and origin.
func Quote(s string) string { return fmt.Sprintf("%q", Clip(s, 120)) }

// Clip cuts a text after n bytes, between two characters.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// secretLike matches what looks like a token of Kubernetes or Vault, or like transit ciphertext. No message is made of
// these; this is for the words of other programs that a message quotes.
var secretLike = regexp.MustCompile(
	`eyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*){0,2}` + // a JSON web token
		`|\b(hv[sbr]|[sbr])\.[A-Za-z0-9_-]{20,}` + // a token of Vault or OpenBao
		`|vault:v[0-9]+:[A-Za-z0-9+/=_-]+`)

// Redact replaces texts that look like secrets.
func Redact(s string) string { return secretLike.ReplaceAllString(s, "(removed)") }

// minSecret is the minimum length of a secret that is removed from messages. A shorter text is no token that anybody
// issues, and to replace one or two letters everywhere makes a message unreadable without protecting anything.
const minSecret = 8

func scrub(s string, secrets []string) string {
	for _, secret := range secrets {
		if len(secret) >= minSecret {
			s = strings.ReplaceAll(s, secret, "(token)")
		}
	}
	return Redact(s)
}

package transit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/vault/api"
)

// What an [Error] or an item of a batch wraps, for errors.Is.
var (
	// ErrUnreachable: there was no answer: no connection, a broken one, bad TLS.
	ErrUnreachable = errors.New("vault cannot be reached")
	// ErrTLS: ErrUnreachable, because of a certificate: Vault's or ours.
	ErrTLS = errors.New("TLS")
	// ErrTimeout: no answer in the time that there was.
	ErrTimeout = errors.New("vault did not answer in time")
	// ErrSealed: Vault is sealed or not initialised.
	ErrSealed = errors.New("vault is sealed")
	// ErrBusy: Vault answered 429, a quota.
	ErrBusy = errors.New("vault is refusing requests for now")
	// ErrDenied: HTTP 403, a policy or a refused login.
	ErrDenied = errors.New("permission denied")
	// ErrInvalidToken: HTTP 403 "invalid token": the Vault token has ended.
	ErrInvalidToken = errors.New("the Vault token is not valid (any more)")
	// ErrWrongIdentity: the response to a login is not about the role that was
	// requested and the service account token that was shown.
	ErrWrongIdentity = errors.New("the login response is about another identity")
	// ErrNotFound: HTTP 404, or a key or a mount that is not there.
	ErrNotFound = errors.New("not found")
	// ErrNotVault: what answered does not speak Vault's API.
	ErrNotVault = errors.New("the answer is not one that Vault gives")

	// ErrTooOld: the ciphertext's key version is below min_decryption_version.
	ErrTooOld = errors.New("the key version of this ciphertext has been retired")
	// ErrTooNew: the ciphertext's key version does not exist (yet, or any more).
	ErrTooNew = errors.New("the key has no such version")
	// ErrMismatch: wrong key or wrong context: what a moved ciphertext gives.
	ErrMismatch = errors.New("the ciphertext does not belong to this key and this place")
)

// Error is a request to Vault that failed.
type Error struct {
	Doing     string // what was being done, such as "logging in as role matrix"
	Address   string // of Vault
	Status    int    // of HTTP; 0 when there was no answer
	Err       error  // why: wraps one of the errors above where one fits, and holds Vault's own words
	Tries     int    // how often it was sent
	Transient bool   // whether trying again later may help

	retryAfter time.Duration
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s: ", e.Doing, e.Address)
	if e.Status != 0 {
		fmt.Fprintf(&b, "HTTP %d: ", e.Status)
	}
	fmt.Fprint(&b, e.Err)
	if e.Tries > 1 {
		fmt.Fprintf(&b, " (tried %d times)", e.Tries)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// worded puts Vault's words behind the sentinel that stands for them.
type worded struct {
	sentinel error
	words    string
}

func (w worded) Error() string {
	if w.words == "" {
		return w.sentinel.Error()
	}
	return w.words
}

func (w worded) Unwrap() error { return w.sentinel }

// unanswered makes the error of a request to which there is no (whole) answer.
func (c *Client) unanswered(ctx context.Context, r request, err error) *Error {
	e := &Error{Doing: r.doing, Address: c.address, Transient: true}
	// The url.Error around it repeats method and address.
	if inner := (*url.Error)(nil); errors.As(err, &inner) {
		err = inner.Err
	}
	var (
		timeout  net.Error
		unknown  x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		hostname x509.HostnameError
		alert    *net.OpError // of tls: there is no better way to tell
		record   tls.RecordHeaderError
		long     tooLongError
	)
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled):
		e.Err, e.Transient = context.Canceled, false
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		e.Err = ErrTimeout
	case errors.As(err, &long):
		e.Err, e.Transient = fmt.Errorf("%w: %w", ErrNotVault, long), false
	case errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &hostname), errors.As(err, &record),
		errors.Is(err, http.ErrSchemeMismatch),
		errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error"):
		hint, again := c.transport.refused(alert != nil && alert.Op == "remote error")
		e.Err, e.Transient = fmt.Errorf("%w: %w: %w", ErrUnreachable, ErrTLS, err), again
		if hint != "" {
			e.Err = fmt.Errorf("%w (%s)", e.Err, hint)
		}
	default:
		e.Err = fmt.Errorf("%w: %s", ErrUnreachable, clip(err.Error()))
	}
	return e
}

// refused makes the error of an answer with a status of 400 and above.
func (c *Client) refused(r request, resp *api.Response, refused *api.ResponseError) *Error {
	e := &Error{Doing: r.doing, Address: c.address, Status: resp.StatusCode, retryAfter: retryAfter(resp.Header)}
	words := ""
	if !refused.RawError {
		words = clip(strings.Join(refused.Errors, "; "))
	}
	sentinel := sentinelOf(words)
	switch status := resp.StatusCode; {
	case sentinel != nil:
	case status == http.StatusForbidden && strings.Contains(words, "invalid token"):
		sentinel = ErrInvalidToken
	case status == http.StatusForbidden:
		sentinel = ErrDenied
	case status == http.StatusNotFound:
		sentinel = ErrNotFound
	case status == http.StatusTooManyRequests:
		sentinel, e.Transient = ErrBusy, true
	case status == http.StatusServiceUnavailable && strings.Contains(strings.ToLower(words), "sealed"):
		sentinel, e.Transient = ErrSealed, true
	case status == http.StatusPreconditionFailed, status >= 500 && !strings.Contains(words, "JSON"):
		// A 500 that names a limit on JSON is about the request and stays.
		e.Transient = true
	}
	switch {
	case refused.RawError && !e.Transient && sentinel == nil:
		e.Err = ErrNotVault
	case sentinel != nil:
		e.Err = worded{sentinel, words}
	case words != "":
		e.Err = errors.New(words)
	default:
		e.Err = errors.New(strings.ToLower(http.StatusText(resp.StatusCode)) + ", without a reason")
	}
	return e
}

// sentinelOf knows Vault's texts for what can be wrong with key or ciphertext.
func sentinelOf(words string) error {
	switch {
	case strings.Contains(words, "message authentication failed"):
		return ErrMismatch
	case strings.Contains(words, "disallowed by policy (too old)"):
		return ErrTooOld
	case strings.Contains(words, "version is too new"):
		return ErrTooNew
	case strings.Contains(words, "encryption key not found"), strings.Contains(words, "no existing key named"),
		strings.Contains(words, "no handler for route"):
		return ErrNotFound
	}
	return nil
}

// clip keeps a text of somebody else's to one line of a size fit for an event.
func clip(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if r := []rune(s); len(r) > 500 {
		s = string(r[:500]) + "…"
	}
	return s
}

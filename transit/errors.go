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

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/retry"
)

// Errors that an [Error] or the error of an item may wrap, for [errors.Is].
var (
	// ErrUnreachable means that there was no response: no connection, a broken one, or
	// a failure of TLS.
	ErrUnreachable = errors.New("cannot reach Vault")
	// ErrTLS is wrapped with ErrUnreachable if a certificate is the cause.
	ErrTLS = errors.New("TLS")
	// ErrTimeout means that there was no response before the deadline.
	ErrTimeout = errors.New("no response from Vault in time")
	// ErrSealed means that Vault is sealed or not initialized.
	ErrSealed = errors.New("the Vault server is sealed")
	// ErrBusy means HTTP 429: a quota is exhausted.
	ErrBusy = errors.New("the rate limit of Vault is exceeded")
	// ErrDenied means HTTP 403: no policy allows the request, or the login is refused.
	ErrDenied = errors.New("permission denied")
	// ErrInvalidToken means HTTP 403 "invalid token": the Vault token has expired or was
	// revoked.
	ErrInvalidToken = errors.New("the Vault token is invalid or has expired")
	// ErrWrongIdentity means that a login response is not about the requested role and
	// the service account of the token.
	ErrWrongIdentity = errors.New("the login response is about another identity")
	// ErrNotFound means HTTP 404, or that the key or the mount does not exist.
	ErrNotFound = errors.New("not found")
	// ErrNotVault means that the response is not one of Vault's API.
	ErrNotVault = errors.New("unexpected response, not from Vault's API")

	// ErrTooOld means that the key version is below min_decryption_version.
	ErrTooOld = errors.New("the key version of this ciphertext has been retired")
	// ErrTooNew means that the key version does not exist.
	ErrTooNew = errors.New("the key has no such version")
	// ErrMismatch means that the ciphertext was made with another key or context, as
	// for another location.
	ErrMismatch = errors.New("the ciphertext does not belong to this key and location")
	// ErrLagging means that a result does not have the requested key version. A server that
	// has not received the newest version yet is one cause, so a retry may help.
	ErrLagging = errors.New("the result has another key version")
	// ErrUnverified means that a rewrapped ciphertext is not the same value as the old one,
	// or does not decrypt. It must not be stored.
	ErrUnverified = errors.New("the rewrapped ciphertext cannot be verified")
)

// Error is a failed request to Vault.
type Error struct {
	Doing     string // the action, such as "logging in as role matrix"
	Address   string // of Vault
	Status    int    // of HTTP; 0 if there was no response
	Err       error  // the cause, with Vault's message; may wrap one of the errors above
	Tries     int    // number of attempts
	Transient bool   // whether a later attempt may succeed
	// Key is the key that the request was about; zero if there is none.
	Key   ciphertext.Key
	Login bool // the login that the request contained failed: see [Client.InlineSession]

	retryAfter time.Duration
	empty      bool // the response names no error: Vault sends such a 404 for an empty list
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
	if e.retryAfter > 0 {
		fmt.Fprintf(&b, " (Vault asks to retry after %s)", e.retryAfter.Round(time.Second))
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// vaultError is a sentinel error with the message of Vault as its text.
type vaultError struct {
	sentinel error
	message  string
}

func (e vaultError) Error() string {
	if e.message == "" {
		return e.sentinel.Error()
	}
	return e.message
}

func (e vaultError) Unwrap() error { return e.sentinel }

// noResponse returns the error of a request without a complete response.
func (c *Client) noResponse(ctx context.Context, r request, err error) *Error {
	e := &Error{Doing: r.doing, Address: c.address, Transient: true}
	// The url.Error repeats method and address.
	if inner := (*url.Error)(nil); errors.As(err, &inner) {
		err = inner.Err
	}
	var (
		timeout  net.Error
		unknown  x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		hostname x509.HostnameError
		alert    *net.OpError // package tls has no other type for an alert
		record   tls.RecordHeaderError
		long     tooLongError
	)
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled):
		e.Err, e.Transient = context.Canceled, false
	case errors.Is(err, errSlow):
		e.Err = fmt.Errorf("%w: %w", ErrUnreachable, errSlow)
	case errors.Is(err, retry.ErrGivenUp):
		e.Err, e.Transient = vaultError{ErrTimeout, err.Error()}, false
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		e.Err = fmt.Errorf("%w (waited %s)", ErrTimeout, time.Since(r.began).Round(100*time.Millisecond))
	case errors.As(err, &long):
		e.Err, e.Transient = fmt.Errorf("%w: %w", ErrNotVault, long), false
	case errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &hostname), errors.As(err, &record),
		errors.Is(err, http.ErrSchemeMismatch),
		errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error"):
		hint, changed := c.transport.explainFailure(alert != nil && alert.Op == "remote error")
		e.Err, e.Transient = fmt.Errorf("%w: %w: %w", ErrUnreachable, ErrTLS, err), changed
		if hint != "" {
			e.Err = fmt.Errorf("%w (%s)", e.Err, hint)
		}
	default:
		e.Err = fmt.Errorf("%w: %s", ErrUnreachable, clip(err.Error()))
	}
	return e
}

// statusError returns the error of a response with a status of 400 or above.
func (c *Client) statusError(r request, resp *api.Response, body *api.ResponseError) *Error {
	e := &Error{Doing: r.doing, Address: c.address, Status: resp.StatusCode, retryAfter: retryAfter(resp.Header)}
	message := ""
	if !body.RawError {
		message = clip(strings.Join(body.Errors, "; "))
	}
	e.empty = !body.RawError && len(body.Errors) == 0
	sentinel := sentinelOf(message)
	switch status := resp.StatusCode; {
	case sentinel != nil:
	case status == http.StatusForbidden && strings.Contains(message, "invalid token"):
		sentinel = ErrInvalidToken
	case status == http.StatusForbidden:
		sentinel = ErrDenied
	case status == http.StatusNotFound:
		sentinel = ErrNotFound
	case status == http.StatusTooManyRequests:
		sentinel, e.Transient = ErrBusy, true
	case status == http.StatusServiceUnavailable && strings.Contains(strings.ToLower(message), "sealed"):
		sentinel, e.Transient = ErrSealed, true
	case status == http.StatusPreconditionFailed, status >= 500 && !strings.Contains(message, "JSON"):
		// A 500 that names a limit on JSON is caused by the request.
		e.Transient = true
	}
	switch {
	case body.RawError && !e.Transient && sentinel == nil:
		e.Err = ErrNotVault
	case sentinel != nil:
		e.Err = vaultError{sentinel, message}
	case message != "":
		e.Err = errors.New(message)
	default:
		e.Err = errors.New(strings.ToLower(http.StatusText(resp.StatusCode)) + ", without a reason")
	}
	r.inline.markLogin(e, resp, message)
	return e
}

// sentinelOf returns the error for a message of Vault about a key, a mount or a
// ciphertext, or nil.
func sentinelOf(message string) error {
	switch {
	case strings.Contains(message, "message authentication failed"),
		// An RSA key has no authentication, and Vault fails the whole request.
		strings.Contains(message, "failed to RSA decrypt"):
		return ErrMismatch
	case strings.Contains(message, "disallowed by policy (too old)"):
		return ErrTooOld
	case strings.Contains(message, "version is too new"),
		// A rewrap to a version of which a server does not know yet.
		strings.Contains(message, "is higher than the latest key version"):
		return ErrTooNew
	case strings.Contains(message, "encryption key not found"), strings.Contains(message, "no existing key named"),
		strings.Contains(message, "no handler for route"):
		return ErrNotFound
	}
	return nil
}

// clip returns a text from a server as one line of at most 500 characters, for an event.
func clip(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if r := []rune(s); len(r) > 500 {
		s = string(r[:500]) + "…"
	}
	return s
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/transit"
)

// UsageError is an error in the command line.
type UsageError struct{ error }

func (e UsageError) Unwrap() error { return e.error }

// Usage marks an error as one in the command line.
func Usage(err error) error { return UsageError{err} }

// Usagef returns an error in the command line.
func Usagef(format string, args ...any) error { return Usage(display.Errorf(format, args...)) }

// toDoError is a finding that needs action, as opposed to a failure of the verb.
type toDoError struct{ error }

func (e toDoError) Unwrap() error { return e.error }

// ToDo marks an error as a finding, with exit code 3. It returns nil for nil.
func ToDo(err error) error {
	if err == nil {
		return nil
	}
	return toDoError{err}
}

// hintedError is an error with hints about what to do.
type hintedError struct {
	error
	hints []string
}

func (e hintedError) Unwrap() error { return e.error }

// WithHint adds hints about what to do.
func WithHint(err error, hints ...string) error { return hintedError{err, hints} }

// ReasonOf returns the reason of an error, or nil.
func ReasonOf(err error) *failure.Reason {
	for _, known := range []struct {
		sentinel error
		reason   *failure.Reason
	}{
		{secretmanager.ErrInvalid, failure.InvalidSpec},
		{secretmanager.ErrExists, failure.SecretExists},
		{secretmanager.ErrConflict, failure.SecretConflict},
		{secretmanager.ErrChanged, failure.SecretChanged},
		{secretmanager.ErrNotConvertible, failure.NotConvertible},
		{secretmanager.ErrManaged, failure.SecretManaged},
		{secretmanager.ErrNotVerified, failure.NotVerified},
	} {
		if errors.Is(err, known.sentinel) {
			return known.reason
		}
	}
	return failure.Of(err)
}

// WithCause makes a signal the cause of an error, which may be nil.
func WithCause(err error, cause Interrupted) error {
	if err == nil {
		return cause
	}
	text := strings.TrimSuffix(err.Error(), ": "+context.Canceled.Error())
	return interruptedError{strings.TrimSuffix(text, ": "+cause.Error()), cause}
}

type interruptedError struct {
	what string
	Interrupted
}

func (e interruptedError) Error() string {
	if e.what == context.Canceled.Error() || e.what == e.Interrupted.Error() {
		return e.Interrupted.Error()
	}
	return e.Interrupted.Error() + ": " + e.what
}

func (e interruptedError) Unwrap() error { return e.Interrupted }

// ReportError writes an error for people, beginning with its reason, and returns the exit code. The command is what the
// user has called, such as "secretmanager encrypt".
func ReportError(w io.Writer, command string, err error) int {
	text := strings.TrimSpace(err.Error())
	if cause := (Interrupted{}); errors.As(err, &cause) {
		fmt.Fprintf(w, "error: %s\n", strings.ReplaceAll(display.Lines(text), "\n", "\n       "))
		if s, ok := cause.Signal.(syscall.Signal); ok {
			return exitSignal + int(s)
		}
		return ExitFailed
	}
	if r := ReasonOf(err); r != nil && !strings.HasPrefix(text, r.String()+": ") {
		text = r.String() + ": " + text
	}
	fmt.Fprintf(w, "error: %s\n", strings.ReplaceAll(display.Lines(text), "\n", "\n       "))
	for _, h := range hints(err) {
		fmt.Fprintf(w, "hint: %s\n", strings.ReplaceAll(display.Lines(h), "\n", "\n      "))
	}
	if bad := (UsageError{}); errors.As(err, &bad) {
		fmt.Fprintf(w, "hint: see '%s --help'\n", command)
		return exitUsage
	}
	if found := (toDoError{}); errors.As(err, &found) {
		return ExitToDo
	}
	return ExitFailed
}

// isTimeout reports whether a server did not respond in time.
func isTimeout(err error) bool {
	var late *noResponseError
	return errors.As(err, &late)
}

// hints returns the hints of an error, or those of its reason.
func hints(err error) []string {
	if h := (hintedError{}); errors.As(err, &h) {
		return h.hints
	}
	switch {
	case errors.Is(err, transit.ErrTimeout):
		return []string{"check VAULT_ADDR, and whether that Vault is overloaded or a firewall drops the connection; " +
			"--request-timeout and VAULT_CLIENT_TIMEOUT set how long to wait"}
	case isTimeout(err) && ReasonOf(err) == failure.APIServerUnavailable:
		return []string{"check that the cluster of the current context is up, and whether a VPN or a firewall drops the " +
			"connection: kubectl config current-context; --request-timeout sets how long to wait"}
	}
	switch ReasonOf(err) {
	case failure.VaultTokenInvalid:
		return []string{"the token in VAULT_TOKEN or ~/.vault-token has expired: log in with: vault login"}
	case failure.VaultSealed:
		return []string{"ask the operator of Vault to unseal it; vault status shows its state"}
	case failure.VaultUnreachable, failure.VaultUntrusted, failure.NotVault:
		return []string{"check VAULT_ADDR, and for TLS VAULT_CACERT; vault status tries the same connection"}
	case failure.VaultForbidden:
		return []string{"check that the Vault token has not expired, and its policies: vault-setup prints the required ones"}
	case failure.SecretManaged:
		return []string{"if it comes from a manifest, change that: edit -f FILE, or encrypt NAME --merge-into FILE",
			"--include-managed writes the Secret anyway"}
	case failure.APIServerForbidden:
		return []string{"kubectl auth can-i --list shows what you may do in this namespace"}
	case failure.APIServerUnavailable:
		return []string{"check that the cluster of the current context is up: kubectl config current-context"}
	}
	return nil
}

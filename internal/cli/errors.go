package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/failure"
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

// ReportError writes an error for people, beginning with its reason, and returns the exit code.
func ReportError(w io.Writer, name string, err error) int {
	text := strings.TrimSpace(err.Error())
	if r := ReasonOf(err); r != nil && !strings.HasPrefix(text, r.String()+": ") {
		text = r.String() + ": " + text
	}
	fmt.Fprintf(w, "error: %s\n", strings.ReplaceAll(display.Lines(text), "\n", "\n       "))
	for _, h := range hints(err) {
		fmt.Fprintf(w, "hint: %s\n", strings.ReplaceAll(display.Lines(h), "\n", "\n      "))
	}
	if bad := (UsageError{}); errors.As(err, &bad) {
		fmt.Fprintf(w, "hint: see %s --help\n", name)
		return exitUsage
	}
	if found := (toDoError{}); errors.As(err, &found) {
		return ExitToDo
	}
	return ExitFailed
}

// hints returns the hints of an error, or those of its reason.
func hints(err error) []string {
	if h := (hintedError{}); errors.As(err, &h) {
		return h.hints
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

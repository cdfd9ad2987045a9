package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/secretmanager-io/secretmanager/internal/display"
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

// ToDo marks an error as a finding, with exit code 3.
func ToDo(err error) error { return toDoError{err} }

// hintedError is an error with hints about what to do.
type hintedError struct {
	error
	hints []string
}

func (e hintedError) Unwrap() error { return e.error }

// WithHint adds hints about what to do.
func WithHint(err error, hints ...string) error { return hintedError{err, hints} }

// ReportError writes an error for people and returns the exit code.
func ReportError(w io.Writer, name string, err error) int {
	fmt.Fprintf(w, "error: %s\n", strings.ReplaceAll(display.Lines(strings.TrimSpace(err.Error())), "\n", "\n       "))
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

// hints returns the hints of an error, or those of its kind.
func hints(err error) []string {
	if h := (hintedError{}); errors.As(err, &h) {
		return h.hints
	}
	switch {
	case errors.Is(err, transit.ErrInvalidToken):
		return []string{"the token in VAULT_TOKEN or ~/.vault-token has expired: log in with: vault login"}
	case errors.Is(err, transit.ErrSealed):
		return []string{"ask the operator of Vault to unseal it; vault status shows its state"}
	case errors.Is(err, transit.ErrUnreachable), errors.Is(err, transit.ErrTimeout), errors.Is(err, transit.ErrNotVault):
		return []string{"check VAULT_ADDR, and for TLS VAULT_CACERT; vault status tries the same connection"}
	case errors.Is(err, transit.ErrDenied):
		return []string{"check that the Vault token has not expired, and its policies: vault-setup prints the required ones"}
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return []string{"kubectl auth can-i --list shows what you may do in this namespace"}
	case utilnet.IsConnectionRefused(err):
		return []string{"check that the cluster of the current context is up: kubectl config current-context"}
	}
	return nil
}

package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/transit"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// UsageError is an error of the command line.
type UsageError struct{ error }

func (e UsageError) Unwrap() error { return e.error }

func Usage(err error) error { return UsageError{err} }

func Usagef(format string, args ...any) error { return Usage(display.Errorf(format, args...)) }

// toDoError is what a verb found that somebody has to do something about, as
// opposed to what kept it from finding out.
type toDoError struct{ error }

func (e toDoError) Unwrap() error { return e.error }

func ToDo(err error) error { return toDoError{err} }

// hintedError is an error with what to do about it.
type hintedError struct {
	error
	hints []string
}

func (e hintedError) Unwrap() error { return e.error }

func WithHint(err error, hints ...string) error { return hintedError{err, hints} }

// ReportError writes an error for people and returns the exit code.
func ReportError(w io.Writer, name string, err error) int {
	fmt.Fprintf(w, "error: %s\n", strings.ReplaceAll(display.Lines(strings.TrimSpace(err.Error())), "\n", "\n       "))
	for _, h := range hints(err) {
		fmt.Fprintf(w, "hint: %s\n", strings.ReplaceAll(display.Lines(h), "\n", "\n      "))
	}
	if bad := (UsageError{}); errors.As(err, &bad) {
		fmt.Fprintf(w, "hint: %s --help shows what there is\n", name)
		return exitUsage
	}
	if found := (toDoError{}); errors.As(err, &found) {
		return ExitToDo
	}
	return ExitFailed
}

// hints are those that the error brings, or else what its kind tells.
func hints(err error) []string {
	if h := (hintedError{}); errors.As(err, &h) {
		return h.hints
	}
	switch {
	case errors.Is(err, transit.ErrInvalidToken):
		return []string{"the token in VAULT_TOKEN or ~/.vault-token has ended: log in with: vault login"}
	case errors.Is(err, transit.ErrSealed):
		return []string{"ask whoever runs Vault to unseal it; vault status shows its state"}
	case errors.Is(err, transit.ErrUnreachable), errors.Is(err, transit.ErrTimeout), errors.Is(err, transit.ErrNotVault):
		return []string{"check VAULT_ADDR, and for TLS VAULT_CACERT; vault status tries the same connection"}
	case errors.Is(err, transit.ErrDenied):
		return []string{"check that the Vault token has not ended, and its policies: vault-setup prints the ones that are needed"}
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return []string{"kubectl auth can-i --list shows what you may do in this namespace"}
	case utilnet.IsConnectionRefused(err):
		return []string{"check that the cluster of the current context is up: kubectl config current-context"}
	}
	return nil
}

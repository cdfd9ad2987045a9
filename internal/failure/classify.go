package failure

import (
	"context"
	"errors"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/secretmanager-io/secretmanager/transit"
)

// ofVault returns the reason of an error of package transit, or nil.
func ofVault(err error) *Reason {
	for _, known := range []struct {
		sentinel error
		reason   *Reason
	}{
		{transit.ErrPlainHTTP, PlainHTTP},
		{transit.ErrSealed, VaultSealed},
		{transit.ErrTLS, VaultUntrusted},
		{transit.ErrUnreachable, VaultUnreachable},
		{transit.ErrTimeout, VaultUnreachable},
		{transit.ErrBusy, VaultRateLimited},
		{transit.ErrNotVault, NotVault},
		{transit.ErrInvalidToken, VaultTokenInvalid},
		{transit.ErrDenied, VaultForbidden},
		{transit.ErrNotFound, KeyNotFound},
		{transit.ErrLagging, VaultInconsistent},
		{transit.ErrUnverified, VaultInconsistent},
		{transit.ErrMismatch, CiphertextMismatch},
		{transit.ErrTooOld, KeyVersionRetired},
		{transit.ErrTooNew, KeyVersionNotFound},
	} {
		if errors.Is(err, known.sentinel) {
			return known.reason
		}
	}
	var e *transit.Error
	if errors.As(err, &e) && !errors.Is(err, context.Canceled) {
		return VaultError
	}
	return nil
}

// ofAPIServer returns the reason of an error of client-go that says that the API server refuses the request or does not
// respond, or nil.
func ofAPIServer(err error) *Reason {
	var request *url.Error
	switch {
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return APIServerForbidden
	case apierrors.IsServiceUnavailable(err), apierrors.IsTimeout(err), apierrors.IsServerTimeout(err),
		apierrors.IsTooManyRequests(err), apierrors.IsInternalError(err),
		errors.As(err, &request) && !errors.Is(err, context.Canceled):
		return APIServerUnavailable
	}
	return nil
}

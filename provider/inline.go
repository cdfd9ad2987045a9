package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/transit"
)

// checkInlineAuth returns an error for an auth mount with inline authentication that no class can use. The settings are
// normalized.
func checkInlineAuth(mount string, s class.Settings) error {
	switch err := ciphertext.CheckPath(mount); {
	case err != nil:
		return fmt.Errorf("inline authentication: auth mount %w", err)
	case strings.ContainsAny(mount, "*+"):
		return fmt.Errorf("inline authentication: %s is not an auth mount: wildcards are not supported",
			display.Quote(mount))
	case mount != s.AuthMount && !slices.Contains(s.AllowedAuthMounts, mount):
		return fmt.Errorf("inline authentication: no class may name the auth mount %s: it is neither the default nor allowed",
			display.Quote(mount))
	}
	return nil
}

// session returns a session for a mount. The token source is nil if the session's requests contain the login.
func (p *Provider) session(r *request, jwt ownToken) (*transit.Session, *mountTokenSource) {
	client := p.vaults[r.VaultAddress]
	if slices.Contains(p.inlineAuth, r.AuthMount) {
		return client.InlineSession(transit.Login{Namespace: r.VaultNamespace, Mount: r.AuthMount, Role: r.Role,
			JWT: func() (string, error) { return jwt.text, nil }}), nil
	}
	source := p.login(r, jwt)
	return client.Session(r.VaultNamespace, source), source
}

// decryptItems returns the result of each item, or the failure of the login or of the whole request.
func (p *Provider) decryptItems(ctx context.Context, r *request, jwt ownToken,
	items []transit.Item) ([]transit.Result, *failure.Error) {
	session, source := p.session(r, jwt)
	results, err := session.Decrypt(ctx, r.Key, items)
	switch {
	case err == nil:
		return results, nil
	case source == nil:
		return nil, p.inlineFailure(r, err)
	case source.err != nil:
		return nil, p.loginFailure(r, source.err)
	case errors.Is(err, transit.ErrDenied):
		// The token has the policies that the role had at the login. A fix of the role must take effect at once, not when
		// the token expires.
		source.Invalidate(source.token)
	}
	return nil, p.decryptFailure(r, err)
}

// inlineFailure returns the failure of requests that contain the login.
func (p *Provider) inlineFailure(r *request, err error) *failure.Error {
	var e *transit.Error
	switch {
	case errors.As(err, &e) && e.Login:
		return p.loginFailure(r, err)
	case errors.Is(err, transit.ErrDenied), errors.Is(err, transit.ErrInvalidToken):
		denied := p.decryptFailure(r, err)
		return failure.InlineAuthDenied.New(denied.What+", with the login in the same request", denied.Cause, fmt.Sprintf(
			"%s; that the role has service account %s, its namespace and audience %s bound to it: `vault read %s`; and that %s "+
				"is OpenBao 2.4 or later: Vault ignores such a login (--vault-inline-auth of the provider)",
			decryptCheck(r), r.pod.serviceAccount, display.Quote(r.Audience),
			display.ShellWord("auth/"+r.AuthMount+"/role/"+r.Role), r.VaultAddress))
	}
	return p.decryptFailure(r, err)
}

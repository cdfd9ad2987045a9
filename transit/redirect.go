package transit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/vault/api"
)

// maxRedirects allows one redirect from a standby to the active node, and one more if
// the leader has just changed.
const maxRedirects = 2

// send sends a request and follows redirects of standbys to the active node. It returns
// the origin of the last redirect, or an empty string.
//
// The other host gets the whole request with its token: a standby always names another
// host, and a server that redirects has already received the request. But send follows
// only redirects to the same path of Vault's API, so that the login page of a proxy
// does not get the request, never from https to http, and over plain HTTP only where
// [CheckTransport] accepts the address. It verifies the certificate of the other host
// as usual.
func (c *Client) send(ctx context.Context, client *api.Client, req *api.Request,
	r request) (resp *api.Response, to string, err error) {
	for hops := 0; ; hops++ {
		// The higher-level methods do not support a token for each request and drop the
		// results of an HTTP 400.
		resp, err = client.RawRequestWithContext(ctx, req) //nolint:staticcheck // see above
		if resp == nil || resp.Response == nil || resp.StatusCode < 300 || resp.StatusCode > 399 {
			return resp, to, err
		}
		// A connection with an unread body is not reused.
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		next, failure := c.next(req.URL, resp, r)
		if failure == nil && hops == maxRedirects {
			// The standbys have not agreed on a leader yet.
			failure = &Error{Err: fmt.Errorf("redirected %d times, at last to %s", hops+1, origin(next)), Transient: true}
		}
		if failure != nil {
			failure.Doing, failure.Address, failure.Status = r.doing, c.address, resp.StatusCode
			return resp, "", failure
		}
		req.URL, req.Host, to = next, next.Host, origin(next) // the API client sends the body again
	}
}

// next returns the target of a redirect, or an error if it must not be followed.
func (c *Client) next(from *url.URL, resp *api.Response, r request) (*url.URL, *Error) {
	next, err := resp.Location()
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		err = errors.New("a status that Vault does not use")
	}
	if err != nil {
		return nil, &Error{Err: ErrNotVault}
	}
	refuse := func(format string, a ...any) (*url.URL, *Error) {
		return nil, &Error{Err: fmt.Errorf("redirected to %s, %w", origin(next), fmt.Errorf(format, a...))}
	}
	switch {
	case c.noRedirects:
		return refuse("and redirects are not followed (VAULT_DISABLE_REDIRECTS)")
	case next.Host == "" || next.User != nil || next.Scheme != "https" && next.Scheme != "http",
		!strings.Contains(next.Path, "/v1/") || !strings.HasSuffix(next.Path, "/"+r.path): // between them may be a namespace
		return refuse("which is not the same request at another Vault: %w", ErrNotVault)
	case from.Scheme == "https" && next.Scheme != "https":
		return refuse("which is not followed: the redirect leads from https to unencrypted http")
	case !c.insecureHTTP && plainHTTP(next):
		return refuse("which is not followed: %w", ErrPlainHTTP)
	}
	return next, nil
}

// origin returns scheme and host of a URL, for messages: the rest may be confidential.
func origin(u *url.URL) string { return clip((&url.URL{Scheme: u.Scheme, Host: u.Host}).String()) }

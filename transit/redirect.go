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

// maxRedirects is one from a standby to the active node, and one more for a
// leader that has just changed.
const maxRedirects = 2

// send sends a request, and sends it again to where a standby says that the
// active node is. It returns that place, empty without a redirect.
//
// The whole request goes there, with its token: a standby names another host by
// nature, and whoever can redirect has had the request already. It is followed to
// the same request of Vault's API alone, though, so that no login page of a proxy
// gets it, never from https to http, and over plain HTTP only to where an address
// could be too. The other host's certificate is checked like the first one's.
func (c *Client) send(ctx context.Context, client *api.Client, req *api.Request,
	r request) (resp *api.Response, to string, err error) {
	for hops := 0; ; hops++ {
		// The higher-level methods would lose what is needed here: a token of each
		// request's own, and the results that come with an HTTP 400.
		resp, err = client.RawRequestWithContext(ctx, req) //nolint:staticcheck // see above
		if resp == nil || resp.Response == nil || resp.StatusCode < 300 || resp.StatusCode > 399 {
			return resp, to, err
		}
		// A connection with an unread answer would not be used again.
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		next, failure := c.next(req.URL, resp, r)
		if failure == nil && hops == maxRedirects {
			// Standbys that have not agreed on a leader yet.
			failure = &Error{Err: fmt.Errorf("redirected %d times, at last to %s", hops+1, place(next)), Transient: true}
		}
		if failure != nil {
			failure.Doing, failure.Address, failure.Status = r.doing, c.address, resp.StatusCode
			return resp, "", failure
		}
		req.URL, req.Host, to = next, next.Host, place(next) // the body is still there, to be read again
	}
}

// next returns where a redirect leads to.
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
		return nil, &Error{Err: fmt.Errorf("redirected to %s, %w", place(next), fmt.Errorf(format, a...))}
	}
	switch {
	case c.noRedirects:
		return refuse("and redirects are not followed (VAULT_DISABLE_REDIRECTS)")
	case next.Host == "" || next.User != nil || next.Scheme != "https" && next.Scheme != "http",
		!strings.Contains(next.Path, "/v1/") || !strings.HasSuffix(next.Path, "/"+r.path): // between them may be a namespace
		return refuse("which is not the same request at another Vault: %w", ErrNotVault)
	case from.Scheme == "https" && next.Scheme != "https":
		return refuse("which is not followed: anybody in between could read the request, and it began as https")
	case !c.insecureHTTP && plainHTTP(next):
		return refuse("which is not followed: %w", ErrPlainHTTP)
	}
	return next, nil
}

// place is a URL without what a message has no use for, or that it must not show.
func place(u *url.URL) string { return clip((&url.URL{Scheme: u.Scheme, Host: u.Host}).String()) }

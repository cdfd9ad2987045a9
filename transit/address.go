package transit

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/vaultaddr"
)

// ErrPlainHTTP means that an address is http and outside the loopback interface, and
// [Config.InsecureHTTP] is not set.
var ErrPlainHTTP = errors.New("plain HTTP shows tokens and plaintext to everyone on the network: " +
	"use https, or accept that with --vault-insecure-http or " + EnvInsecureHTTP + "=true")

// PlainHTTP reports whether requests to the address cross a network unencrypted: its
// scheme is http, and its host is neither localhost nor a loopback address
// (127.0.0.0/8, ::1). Other names count as a network, also names below localhost,
// which a name server may resolve to any address. Of several addresses, as in
// [Config.Address], one is enough.
func PlainHTTP(address string) bool {
	return slices.ContainsFunc(vaultaddr.Split(address), func(one string) bool {
		u, err := url.Parse(one)
		return err == nil && plainHTTP(u)
	})
}

func plainHTTP(u *url.URL) bool {
	if u.Scheme != "http" || strings.EqualFold(strings.TrimSuffix(u.Hostname(), "."), "localhost") {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err != nil || !ip.Unmap().IsLoopback()
}

// CheckTransport returns an error that wraps [ErrPlainHTTP] if requests to the address
// cross a network unencrypted, unless insecureHTTP accepts that.
func CheckTransport(address string, insecureHTTP bool) error {
	if !insecureHTTP && PlainHTTP(address) {
		return fmt.Errorf("%q: %w", address, ErrPlainHTTP)
	}
	return nil
}

// RefusePlainHTTP returns a RoundTripper that fails requests over plain HTTP outside
// the loopback interface. It is for clients that follow redirects on their own.
func RefusePlainHTTP(next http.RoundTripper) http.RoundTripper { return refusePlainHTTP{next} }

type refusePlainHTTP struct{ next http.RoundTripper }

func (t refusePlainHTTP) RoundTrip(r *http.Request) (*http.Response, error) {
	if plainHTTP(r.URL) {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, fmt.Errorf("%s: %w", origin(r.URL), ErrPlainHTTP)
	}
	return t.next.RoundTrip(r)
}

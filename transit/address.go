package transit

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// CheckAddress reports whether the address of a Vault is a valid http or https URL.
func CheckAddress(address string) error {
	u, err := url.Parse(address)
	hint := ""
	if strings.Count(address, ":") > 2 && !strings.Contains(address, "[") {
		hint = "; an IPv6 address must be in brackets: https://[fd00::1]:8200"
	}
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" ||
		strings.Contains(u.Host, ":") && hint != "" {
		return fmt.Errorf("%q is not of the form https://HOST:PORT%s", address, hint)
	}
	return nil
}

// NormalizeAddress returns the same text for equal addresses of a Vault: without spaces
// around it and slashes at its end, with the host in lower case and an IPv6 address in
// its short form. A path prefix stays. Text that is not an address is returned as is.
func NormalizeAddress(address string) string {
	address = strings.TrimRight(strings.TrimSpace(address), "/")
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return address
	}
	u.Host = strings.ToLower(u.Host)
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.Is6() && ip.Zone() == "" {
		host := "[" + ip.String() + "]"
		if port := u.Port(); port != "" {
			host += ":" + port
		}
		u.Host = host
	}
	return u.String()
}

// ErrPlainHTTP means that an address is http and outside the loopback interface, and
// [Config.InsecureHTTP] is not set.
var ErrPlainHTTP = errors.New("plain HTTP shows tokens and plaintext to everyone on the network: " +
	"use https, or accept that with --vault-insecure-http or " + EnvInsecureHTTP + "=true")

// PlainHTTP reports whether requests to the address cross a network unencrypted: its
// scheme is http, and its host is neither localhost nor a loopback address
// (127.0.0.0/8, ::1). Other names count as a network, also names below localhost,
// which a name server may resolve to any address.
func PlainHTTP(address string) bool {
	u, err := url.Parse(strings.TrimSpace(address))
	return err == nil && plainHTTP(u)
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

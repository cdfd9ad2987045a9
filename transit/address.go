package transit

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// CheckAddress returns what is wrong with the address of a Vault.
func CheckAddress(address string) error {
	u, err := url.Parse(address)
	hint := ""
	if strings.Count(address, ":") > 2 && !strings.Contains(address, "[") {
		hint = "; an IPv6 address has to be in brackets: https://[fd00::1]:8200"
	}
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || strings.Contains(u.Host, ":") && hint != "" {
		return fmt.Errorf("%q is not of the form https://HOST:PORT%s", address, hint)
	}
	return nil
}

// NormalAddress makes different ways to write an address of a Vault one: spaces
// around and slashes behind it, capital letters, and zeros in an IPv6 address. A
// path prefix stays as it is. What is no address is returned as it came.
func NormalAddress(address string) string {
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

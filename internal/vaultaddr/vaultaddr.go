// Package vaultaddr parses the addresses of Vault servers, for packages that compare or check addresses but are not
// clients of Vault.
package vaultaddr

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// Check reports whether the address of a Vault is a valid http or https URL.
func Check(address string) error {
	u, err := url.Parse(address)
	hint := ""
	if strings.Count(address, ":") > 2 && !strings.Contains(address, "[") {
		hint = "; an IPv6 address must be in brackets: https://[fd00::1]:8200"
	}
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" ||
		strings.Contains(u.Host, ",") || strings.Contains(u.Host, ":") && hint != "" {
		return fmt.Errorf("%q is not of the form https://HOST:PORT%s", address, hint)
	}
	return nil
}

// Split returns the addresses of a list, which are those of the servers of one Vault cluster, separated by commas. It
// returns nil for empty text.
func Split(list string) []string {
	if strings.TrimSpace(list) == "" {
		return nil
	}
	addresses := strings.Split(list, ",")
	for i, address := range addresses {
		addresses[i] = strings.TrimSpace(address)
	}
	return addresses
}

// NormalizeList is [Normalize] for a list of addresses that are separated by commas.
func NormalizeList(list string) string {
	addresses := Split(list)
	for i, address := range addresses {
		addresses[i] = Normalize(address)
	}
	return strings.Join(addresses, ",")
}

// Normalize returns the same text for equal addresses of a Vault: without spaces
// around it and slashes at its end, with the host in lower case and an IPv6 address in
// its short form. A path prefix stays. Text that is not an address is returned as is.
func Normalize(address string) string {
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

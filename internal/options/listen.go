package options

import (
	"net"
	"net/netip"
)

// Listener is a flag for an address to serve HTTP on.
type Listener struct{ Flag, Address string }

// ValidateListeners returns all problems of the addresses that are set.
func ValidateListeners(listeners ...Listener) (errs []error) {
	flags := map[string]string{}
	for _, l := range listeners {
		if l.Address == "" {
			continue
		}
		_, port, err := net.SplitHostPort(l.Address)
		if err != nil {
			errs = append(errs, Invalid(l.Flag, "invalid address %q: must be HOST:PORT or :PORT", l.Address))
		}
		// Port 0 selects another port each time.
		if other := flags[l.Address]; other != "" && port != "0" {
			errs = append(errs, Invalid(l.Flag, "%q is also the address of --%s: they must differ", l.Address, other))
		}
		flags[l.Address] = l.Flag
	}
	return errs
}

// ValidateLoopback returns an error for an address outside the loopback interface. It refuses a host name, because a
// name server determines its address.
func ValidateLoopback(l Listener) error {
	if a, err := netip.ParseAddrPort(l.Address); l.Address != "" && (err != nil || !a.Addr().IsLoopback()) {
		return Invalid(l.Flag, "invalid address %q: must be of the loopback interface, such as 127.0.0.1:6060", l.Address)
	}
	return nil
}

package options

import (
	"net"
	"net/netip"
)

// Listener is a flag with an address to serve HTTP at.
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
		// Port 0 is another port each time.
		if other := flags[l.Address]; other != "" && port != "0" {
			errs = append(errs, Invalid(l.Flag, "%q is the address of --%s: each needs its own", l.Address, other))
		}
		flags[l.Address] = l.Flag
	}
	return errs
}

// ValidateLoopback returns the problem of an address that must be of the loopback interface. A
// host name is refused, as a resolver decides what it stands for.
func ValidateLoopback(l Listener) error {
	if at, err := netip.ParseAddrPort(l.Address); l.Address != "" && (err != nil || !at.Addr().IsLoopback()) {
		return Invalid(l.Flag, "invalid address %q: must be of the loopback interface, such as 127.0.0.1:6060", l.Address)
	}
	return nil
}

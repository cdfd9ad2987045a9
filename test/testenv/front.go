package testenv

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/relay"
)

// Front serves a Vault with the TLS configuration of the test, as a load balancer does, on
// the listener, or on a new one if it is nil. It does not log failed handshakes.
func Front(t testing.TB, v *Vault, config *tls.Config, l net.Listener) *httptest.Server {
	t.Helper()
	vault, err := relay.New(v.Address, &http.Transport{DisableKeepAlives: true})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(vault)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if l != nil {
		s.Listener.Close()
		s.Listener = l
	}
	s.TLS = config
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// ListenIPv6 listens on the IPv6 loopback address. The test fails on a machine without
// IPv6, because it would test nothing.
func ListenIPv6(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatalf("this test needs the loopback address of IPv6: %v", err)
	}
	return l
}

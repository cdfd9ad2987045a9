package transit_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestClusterOfRealVault configures a dead address before the address of a real Vault. A session logs in, encrypts and
// decrypts, and each request takes one attempt.
func TestClusterOfRealVault(t *testing.T) {
	v := testenv.SharedVault(t)
	k := newKey(t, v, true)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + listener.Addr().String()
	listener.Close()
	c, h := observed(t, dead+","+v.Address)
	s := c.Session("", transit.StaticToken(v.RootToken))
	item := transit.Item{Data: []byte("x"), Context: ciphertext.Strict.Context("demo", "s", "e")}
	results, err := s.Encrypt(t.Context(), k, []transit.Item{item})
	item.Data, err = one(t, results, err)
	if err != nil {
		t.Fatal(err)
	}
	results, err = s.Decrypt(t.Context(), k, []transit.Item{item})
	if got, err := one(t, results, err); string(got) != "x" || err != nil {
		t.Errorf("decrypted %q: %v", got, err)
	}
	before, err := s.Key(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if after, err := s.Rotate(t.Context(), k); err != nil || after.Latest != before.Latest+1 {
		t.Errorf("rotated to %d from %d: %v", after.Latest, before.Latest, err)
	}
	want := []string{"encrypt 200", "decrypt 200", "key_read 200", "rotate 200", "key_read 200"}
	if !slices.Equal(h.attempts, want) {
		t.Errorf("attempts: %v, want %v", h.attempts, want)
	}
	if got := c.Responding(t.Context()); got != v.Address {
		t.Errorf("%s responds, want %s", got, v.Address)
	}
}

// TestClusterTLS verifies each certificate with the host of its own address: a server with the certificate of another
// one gets no request.
func TestClusterTLS(t *testing.T) {
	v := testenv.SharedVault(t)
	k := newKey(t, v, true)
	ca := testenv.NewCA(t, "vault")
	file := write(t, filepath.Join(t.TempDir(), "ca.crt"), ca.PEM())
	serving := func(host string) string {
		return front(t, v, &tls.Config{Certificates: []tls.Certificate{ca.Serving(t, host).TLS(t)}}).URL
	}
	byIP, byName := serving("127.0.0.1"), strings.Replace(serving("localhost"), "127.0.0.1", "localhost", 1)
	wrong, byOther := serving("other.example"), serving("localhost")
	for name, test := range map[string]struct{ address, first, fails string }{
		"both certificates are right": {address: byName + "," + byIP, first: byName},
		"the other way round":         {address: byIP + "," + byName, first: byIP},
		"one is of another host":      {address: wrong + "," + byName, first: byName},
		"both are of another host":    {address: wrong + "," + byOther, fails: "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			var avoided []string
			err := try(t, v, k, transit.Config{Address: test.address, CACert: file,
				Avoided: func(address string, err error) { avoided = append(avoided, fmt.Sprint(address, " ", err)) }})
			if test.fails != "" {
				wantTLS(t, err, test.fails, wrong, byOther)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if skipped := !strings.HasPrefix(test.address, test.first); skipped != (len(avoided) == 1) {
				t.Errorf("avoided: %v", avoided)
			}
		})
	}
}

// TestClusterAddresses refuses a list with an invalid address.
func TestClusterAddresses(t *testing.T) {
	for _, address := range []string{"", ",", "https://a,", "https://a,b:8200"} {
		if _, err := transit.NewClient(transit.Config{Address: address}); err == nil {
			t.Errorf("no error for %q", address)
		}
	}
	_, err := transit.NewClient(transit.Config{Address: "https://a,http://b"})
	if !errors.Is(err, transit.ErrPlainHTTP) || strings.Contains(err.Error(), "https://a") {
		t.Errorf("plain HTTP of one server: %v", err)
	}
	if !transit.PlainHTTP("https://a,http://b") || transit.PlainHTTP("https://a, http://127.0.0.1:8200") {
		t.Error("PlainHTTP of a list")
	}
}

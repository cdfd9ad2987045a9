package transit_test

import (
	"crypto/tls"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

func front(t *testing.T, v *testenv.Vault, config *tls.Config) *httptest.Server {
	t.Helper()
	return testenv.Front(t, v, config, nil)
}

func write(t *testing.T, file string, text []byte) string {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// ask reads a key with a new client.
func try(t *testing.T, v *testenv.Vault, k ciphertext.Key, c transit.Config) error {
	t.Helper()
	c.RetryFor = 10 * time.Second
	client, err := transit.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Session("", transit.StaticToken(v.RootToken)).Key(t.Context(), k)
	return err
}

// wantTLS checks that the error is about certificates, final, and contains all texts.
func wantTLS(t *testing.T, err error, texts ...string) {
	t.Helper()
	var e *transit.Error
	if !errors.Is(err, transit.ErrTLS) || !errors.Is(err, transit.ErrUnreachable) || !errors.As(err, &e) || e.Transient {
		t.Errorf("got %v", err)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not contain %q", err, text)
		}
	}
}

// TestPrivateCA takes the CA from a file and from a directory, which may be a Kubernetes
// volume, and rejects other CAs.
func TestPrivateCA(t *testing.T) {
	v := testenv.SharedVault(t)
	k := newKey(t, v, true)
	ca, other := testenv.NewCA(t, "vault"), testenv.NewCA(t, "other")
	address := front(t, v, &tls.Config{Certificates: []tls.Certificate{ca.Serving(t, "127.0.0.1").TLS(t)}}).URL

	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "ca.crt"), append(other.PEM(), ca.PEM()...))
	wrong := write(t, filepath.Join(dir, "wrong.crt"), other.PEM())
	volume := filepath.Join(dir, "volume")
	// The previous content of the volume may still exist in another directory.
	for version, text := range map[string][]byte{"..2025_01_01": other.PEM(), "..2026_01_01": ca.PEM()} {
		if err := os.MkdirAll(filepath.Join(volume, version), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(volume, version, "ca.crt"), text)
	}
	write(t, filepath.Join(volume, "README"), []byte("no certificate"))
	for link, to := range map[string]string{"..data": "..2026_01_01", "ca.crt": "..data/ca.crt",
		"dangling.crt": "..data/dangling.crt"} {
		if err := os.Symlink(to, filepath.Join(volume, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := try(t, v, k, transit.Config{Address: address, CACert: file}); err != nil {
		t.Errorf("from a file: %v", err)
	}
	if err := try(t, v, k, transit.Config{Address: address, CAPath: volume}); err != nil {
		t.Errorf("from a directory: %v", err)
	}
	before := front(t, v, &tls.Config{Certificates: []tls.Certificate{other.Serving(t, "127.0.0.1").TLS(t)}}).URL
	wantTLS(t, try(t, v, k, transit.Config{Address: before, CAPath: volume}), "certificate signed by unknown authority")
	wantTLS(t, try(t, v, k, transit.Config{Address: address, CACert: wrong}), "certificate signed by unknown authority")
	wantTLS(t, try(t, v, k, transit.Config{Address: address}), "certificate signed by unknown authority")
	if err := try(t, v, k, transit.Config{Address: address, Insecure: true}); err != nil {
		t.Errorf("insecure: %v", err)
	}
	// The client ignores the environment of the process.
	t.Setenv("VAULT_SKIP_VERIFY", "true")
	wantTLS(t, try(t, v, k, transit.Config{Address: address, CACert: wrong}), "certificate signed by unknown authority")
	t.Setenv("VAULT_SKIP_VERIFY", "")
	t.Setenv("VAULT_CACERT", file)
	wantTLS(t, try(t, v, k, transit.Config{Address: address}), "certificate signed by unknown authority")

	for name, c := range map[string]transit.Config{
		"missing":                        {CACert: filepath.Join(dir, "nowhere")},
		"has no certificate in PEM":      {CACert: filepath.Join(volume, "README")},
		"has no file with a certificate": {CAPath: filepath.Join(t.TempDir())},
	} {
		c.Address = address
		if _, err := transit.NewClient(c); err == nil ||
			!strings.Contains(err.Error(), "reading the CA certificates: ") || name != "missing" &&
			!strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPlainAndTLS connects with https to an http server and the other way round.
func TestPlainAndTLS(t *testing.T) {
	v := testenv.SharedVault(t)
	k := newKey(t, v, true)
	wantTLS(t, try(t, v, k, transit.Config{Address: strings.Replace(v.Address, "http://", "https://", 1)}),
		"server gave HTTP response to HTTPS client")
	ca := testenv.NewCA(t, "vault")
	secured := front(t, v, &tls.Config{Certificates: []tls.Certificate{ca.Serving(t, "127.0.0.1").TLS(t)}})
	if err := try(t, v, k, transit.Config{Address: strings.Replace(secured.URL, "https://", "http://", 1)}); !errors.Is(
		err, transit.ErrNotVault) {
		t.Errorf("http to an https server: %v", err)
	}
}

// TestClientCertificate connects to a server that requires a client certificate.
func TestClientCertificate(t *testing.T) {
	v := testenv.SharedVault(t)
	k := newKey(t, v, true)
	ca, other := testenv.NewCA(t, "vault"), testenv.NewCA(t, "other")
	address := front(t, v, &tls.Config{
		Certificates: []tls.Certificate{ca.Serving(t, "127.0.0.1").TLS(t)},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	}).URL
	c := transit.Config{Address: address, CACert: write(t, filepath.Join(t.TempDir(), "ca.crt"), ca.PEM())}
	wantTLS(t, try(t, v, k, c), "certificate required", "no client certificate is set")

	good := c
	good.ClientCert, good.ClientKey = ca.Client(t, "provider").Write(t, t.TempDir())
	if err := try(t, v, k, good); err != nil {
		t.Error(err)
	}
	foreign := c
	foreign.ClientCert, foreign.ClientKey = other.Client(t, "provider").Write(t, t.TempDir())
	wantTLS(t, try(t, v, k, foreign), "remote error: tls", "the client certificate is "+foreign.ClientCert)
	expired := c
	expired.ClientCert, expired.ClientKey = ca.Expired(t, time.Now().Add(-time.Minute), "provider").Write(t, t.TempDir())
	wantTLS(t, try(t, v, k, expired), "remote error: tls", "the client certificate in "+expired.ClientCert+" expired at ")

	mixed := good
	mixed.ClientKey = foreign.ClientKey
	if _, err := transit.NewClient(mixed); err == nil || !strings.Contains(err.Error(), mixed.ClientCert) ||
		!strings.Contains(err.Error(), "does not match") {
		t.Errorf("key of another certificate: %v", err)
	}
}

// TestServerName connects to a server that selects its certificate by the requested name,
// which the certificate must contain.
func TestServerName(t *testing.T) {
	v := testenv.SharedVault(t)
	k := newKey(t, v, true)
	ca := testenv.NewCA(t, "vault")
	byName := map[string]tls.Certificate{
		"vault.example": ca.Serving(t, "vault.example").TLS(t),
		"wiki.example":  ca.Serving(t, "wiki.example").TLS(t),
		"old.example":   ca.Expired(t, time.Now().Add(-time.Minute), "old.example").TLS(t),
	}
	address := front(t, v, &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if found, ok := byName[hello.ServerName]; ok {
			return &found, nil
		}
		wiki := byName["wiki.example"]
		return &wiki, nil
	}}).URL
	c := transit.Config{Address: address, CACert: write(t, filepath.Join(t.TempDir(), "ca.crt"), ca.PEM())}
	named := func(name string) transit.Config { c := c; c.TLSServerName = name; return c }
	if err := try(t, v, k, named("vault.example")); err != nil {
		t.Error(err)
	}
	wantTLS(t, try(t, v, k, c), "127.0.0.1")
	wantTLS(t, try(t, v, k, named("other.example")), "wiki.example", "other.example")
	wantTLS(t, try(t, v, k, named("old.example")), "certificate has expired")
}

// TestCertificatesAreReplaced replaces CA and client certificate during the life of a
// client.
func TestCertificatesAreReplaced(t *testing.T) {
	v := testenv.SharedVault(t)
	k := newKey(t, v, true)
	ca, next := testenv.NewCA(t, "vault"), testenv.NewCA(t, "vault")
	current := ca // the CA of the server
	server := front(t, v, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{
			Certificates: []tls.Certificate{current.Serving(t, "127.0.0.1").TLS(t)},
			ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: current.Pool(),
		}, nil
	}})
	dir := t.TempDir()
	c := transit.Config{Address: server.URL, CACert: write(t, filepath.Join(dir, "ca.crt"), ca.PEM()),
		RetryFor: 10 * time.Second}
	c.ClientCert, c.ClientKey = ca.Client(t, "provider").Write(t, dir)
	client, err := transit.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	read := func() error {
		server.CloseClientConnections()
		_, err := client.Session("", transit.StaticToken(v.RootToken)).Key(t.Context(), k)
		return err
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	current = next
	wantTLS(t, read(), "unknown authority")
	// During the change the key does not match the certificate.
	write(t, c.CACert, next.PEM())
	replaced := next.Client(t, "provider")
	write(t, c.ClientCert, replaced.Certificate)
	wantTLS(t, read(), "unknown authority", "newer certificates are not used", "does not match")
	write(t, c.ClientKey, replaced.Key)
	if err := read(); err != nil {
		t.Errorf("after the change: %v", err)
	}
}

// TestIPv6 connects to a Vault that listens at an IPv6 address only.
func TestIPv6(t *testing.T) {
	v := testenv.NewVaultWith(t, testenv.VaultOptions{Listen: "[::1]:0"})
	if !strings.HasPrefix(v.Address, "http://[::1]:") {
		t.Fatalf("address of Vault: %s", v.Address)
	}
	k := newKey(t, v, true)
	if err := try(t, v, k, transit.Config{Address: v.Address}); err != nil {
		t.Error(err)
	}
	v.Stop()
	_, err := asRoot(t, v, transit.Config{Address: v.Address}).Key(t.Context(), k)
	if !errors.Is(err, transit.ErrUnreachable) ||
		!strings.Contains(err.Error(), "at "+v.Address+": cannot reach Vault: dial tcp [::1]:") {
		t.Errorf("got %v", err)
	}
}

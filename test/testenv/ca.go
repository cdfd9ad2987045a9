package testenv

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A CA is the certificate authority of one test, for proxies in front of a Vault and for
// clients.
type CA struct{ authority *authority }

// NewCA creates a CA.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	a, err := newAuthority(name)
	if err != nil {
		t.Fatal(err)
	}
	return &CA{a}
}

// PEM returns its certificate.
func (c *CA) PEM() []byte { return c.authority.pem() }

// Pool returns a pool with only its certificate.
func (c *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.authority.certificate)
	return pool
}

// A Certificate is the certificate of a server or a client, with its key.
type Certificate struct {
	Certificate, Key []byte // in PEM
}

// Serving creates a certificate for a server with exactly these names, which can be IP
// addresses.
func (c *CA) Serving(t testing.TB, names ...string) Certificate {
	t.Helper()
	return c.issue(t, time.Time{}, x509.ExtKeyUsageServerAuth, names...)
}

// Client creates a certificate for a client.
func (c *CA) Client(t testing.TB, name string) Certificate {
	t.Helper()
	return c.issue(t, time.Time{}, x509.ExtKeyUsageClientAuth, name)
}

// Expired creates a certificate for a server or a client that expired at the given time.
func (c *CA) Expired(t testing.TB, at time.Time, names ...string) Certificate {
	t.Helper()
	return c.issue(t, at, x509.ExtKeyUsageAny, names...)
}

func (c *CA) issue(t testing.TB, end time.Time, usage x509.ExtKeyUsage, names ...string) Certificate {
	t.Helper()
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: names[0]},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{usage},
		NotAfter:    end,
	}
	if !end.IsZero() {
		template.NotBefore = end.Add(-time.Hour)
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	certificate, key, err := issue(template, c.authority)
	if err != nil {
		t.Fatal(err)
	}
	text, err := keyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	return Certificate{certificatePEM(certificate), text}
}

// TLS returns the certificate for a TLS configuration.
func (c Certificate) TLS(t testing.TB) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(c.Certificate, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// Write writes the certificate and its key to a directory, replaces existing ones, and
// returns their files.
func (c Certificate) Write(t testing.TB, dir string) (certificate, key string) {
	t.Helper()
	certificate, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for file, text := range map[string][]byte{certificate: c.Certificate, key: c.Key} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

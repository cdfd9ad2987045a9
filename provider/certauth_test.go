package provider

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"testing"

	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// TestCertAuthMount verifies that a class cannot use the provider's TLS identity, even if the
// operator allows the cert auth mount and Vault accepts the provider's certificate there.
func TestCertAuthMount(t *testing.T) {
	e := newEnvIn(t, testenv.NewVaultWith(t, testenv.VaultOptions{
		TLS: true, Mounts: []string{"mounts/transit", "auth/jwt", "auth/cert"},
	}))
	ca := testenv.NewCA(t, "nodes")
	node := ca.Client(t, "node-0")
	e.Write("auth/cert/certs/nodes", map[string]any{
		"certificate": string(ca.PEM()), "token_policies": []string{e.policy},
	})
	roots, err := os.ReadFile(e.Vault.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	direct := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: pool, Certificates: []tls.Certificate{node.TLS(t)},
	}}}
	response, err := direct.Post(e.Vault.Address+"/v1/auth/cert/login", "application/json", bytes.NewReader([]byte("{}")))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("Vault does not accept the certificate: HTTP %d", response.StatusCode)
	}

	entries := e.entries(t, "v")
	s := serve(t, e.Vault.Address, func(c *Config) {
		c.Vault.CACert = e.Vault.CAFile
		c.Vault.ClientCert, c.Vault.ClientKey = node.Write(t, t.TempDir())
		c.AllowedAuthMounts = append(c.AllowedAuthMounts, "cert")
	})
	s.mountOne(t, e.params(), entries, "v")
	for _, role := range []string{e.namespace, "nodes"} {
		_, err = s.Mount(t.Context(), mountRequest(e.params("vaultAuthMountPath", "cert", "roleName", role), entries))
		wantError(t, err, failure.LoginIdentityMismatch)
	}
}

package main

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/async"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// TestTLSAndIPv6 uses a Vault at an IPv6 address, behind a proxy that selects its
// certificate by name and requires a client certificate, and serves the program's pages at
// IPv6 addresses. It tests the flags, the environment, and a directory of CAs.
func TestTLSAndIPv6(t *testing.T) {
	const authMount = "secured"
	f, entry := newFixture(t, authMount)

	ca := testenv.NewCA(t, "vault")
	named, other := ca.Serving(t, "vault.example").TLS(t), ca.Serving(t, "wiki.example").TLS(t)
	front := testenv.Front(t, f.Vault, &tls.Config{
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName == "vault.example" {
				return &named, nil
			}
			return &other, nil
		},
	}, testenv.ListenIPv6(t))
	cas := t.TempDir()
	caFile := filepath.Join(cas, "ca.crt")
	if err := os.WriteFile(caFile, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	certificate, key := ca.Client(t, "provider").Write(t, t.TempDir())

	for name, set := range map[string]struct {
		flags []string
		env   map[string]string
	}{
		"flags": {flags: []string{"--vault-addr=" + front.URL, "--vault-ca-cert=" + caFile,
			"--vault-client-cert=" + certificate,
			"--vault-client-key=" + key, "--vault-tls-server-name=vault.example"}},
		"environment": {env: map[string]string{"VAULT_ADDR": front.URL, "VAULT_CAPATH": cas, "VAULT_CLIENT_CERT": certificate,
			"VAULT_CLIENT_KEY": key, "VAULT_TLS_SERVER_NAME": "vault.example"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			endpoint := filepath.Join(dir, "p.sock")
			health, metrics := freeIPv6(t), freeIPv6(t)
			ctx, cancel := context.WithCancel(t.Context())
			var stdout, stderr async.Buffer
			ended := make(chan int, 1)
			go func() {
				ended <- run(ctx,
					append([]string{"--endpoint=" + endpoint, "--version-key-file=" + filepath.Join(dir, "key"),
						"--vault-auth-mount=" + authMount,
						"--health-addr=" + health, "--metrics-addr=" + metrics}, set.flags...), getenv(set.env), &stdout, &stderr)
			}()
			defer func() {
				cancel()
				if code := <-ended; code != 0 {
					t.Errorf("code %d: %s", code, stderr.String())
				}
			}()
			async.Wait(t, "readiness", func() bool { code, _ := get(health, "/readyz"); return code == 200 })
			resp, err := dial(t, endpoint).Mount(t.Context(), mountRequest(f.Key, f.Key, podToken(), entry))
			if err != nil || len(resp.Files) != 1 || string(resp.Files[0].Contents) != "c4nary" {
				t.Errorf("got %v, %v", resp, err)
			}
			if code, text := get(metrics, "/metrics"); code != 200 ||
				!strings.Contains(text, `mounts_total{reason="OK",result="success"} 1`) {
				t.Errorf("metrics: %d", code)
			}
		})
	}
}

func freeIPv6(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatalf("this test needs the IPv6 loopback address: %v", err)
	}
	defer l.Close()
	return l.Addr().String()
}

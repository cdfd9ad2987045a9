package main

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestTLSAndIPv6: a Vault at an address of IPv6, behind a proxy that chooses its
// certificate by name and wants one of the client's; and the program's own pages at
// addresses of IPv6. With the flags, with the environment, and with a folder of CAs.
func TestTLSAndIPv6(t *testing.T) {
	v := testenv.SharedVault(t)
	issuer, err := testenv.NewJWTIssuer()
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string]map[string]any{
		"transit/keys/secured":     {"derived": true},
		"sys/policies/acl/secured": {"policy": `path "transit/decrypt/secured" { capabilities = ["update"] }`},
		"sys/auth/secured":         {"type": "jwt"},
	} {
		if _, err := v.Write(t.Context(), path, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.TrustIssuer(t.Context(), "secured", issuer); err != nil {
		t.Fatal(err)
	}
	if err := v.AllowLogin(t.Context(), testenv.Role{Mount: "secured", Namespace: "demo", ServiceAccount: "app",
		Policies: []string{"secured"}}); err != nil {
		t.Fatal(err)
	}
	plain, err := transit.NewClient(transit.Config{Address: v.Address})
	if err != nil {
		t.Fatal(err)
	}
	made, err := plain.Session("", transit.StaticToken(v.RootToken)).
		Encrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: "secured"},
			[]transit.Item{{Data: []byte("value"), Context: []byte("strict:demo/s/x")}})
	if err != nil {
		t.Fatal(err)
	}

	ca := testenv.NewCA(t, "vault")
	named, other := ca.Serving(t, "vault.example").TLS(t), ca.Serving(t, "wiki.example").TLS(t)
	front := testenv.Front(t, v, &tls.Config{
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
			var stdout, stderr output
			ended := make(chan int, 1)
			go func() {
				ended <- run(ctx,
					append([]string{"--endpoint=" + endpoint, "--version-key-file=" + filepath.Join(dir, "key"),
						"--vault-auth-mount=secured",
						"--health-addr=" + health, "--metrics-addr=" + metrics}, set.flags...), getenv(set.env), &stdout, &stderr)
			}()
			defer func() {
				cancel()
				if code := <-ended; code != 0 {
					t.Errorf("code %d: %s", code, stderr.String())
				}
			}()
			waitFor(t, "readiness", func() bool { code, _ := get(health, "/readyz"); return code == 200 })
			conn, err := grpc.NewClient("unix:"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithAuthority("localhost"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			resp, err := v1alpha1.NewCSIDriverProviderClient(conn).Mount(t.Context(), &v1alpha1.MountRequest{
				Attributes: text(map[string]string{
					"roleName": "app", "secretName": "s", "transitKey": "secured", "csi.storage.k8s.io/pod.namespace": "demo",
					"csi.storage.k8s.io/pod.name": "app-0", "csi.storage.k8s.io/pod.uid": "1",
					"csi.storage.k8s.io/serviceAccount.name": "app",
					"csi.storage.k8s.io/serviceAccount.tokens": text(map[string]any{"vault": map[string]string{
						"token": issuer.PodToken("demo", "app-0", "1", "app", "vault", time.Hour)}}),
				}),
				Secrets: text(map[string]string{"x": string(made[0].Data)}),
			})
			if err != nil || len(resp.Files) != 1 || string(resp.Files[0].Contents) != "value" {
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
		t.Fatalf("this test needs the loopback address of IPv6: %v", err)
	}
	defer l.Close()
	return l.Addr().String()
}

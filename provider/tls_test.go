package provider

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// TestUntrustedVault verifies that certificate errors are reported immediately, as errors
// that the operator must fix.
func TestUntrustedVault(t *testing.T) {
	e := newEnv(t)
	entries := e.entries(t, "v")
	ca, other := testenv.NewCA(t, "vault"), testenv.NewCA(t, "other")
	address := testenv.Front(t, e.Vault, &tls.Config{
		Certificates: []tls.Certificate{ca.Serving(t, "127.0.0.1").TLS(t)}, ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs: ca.Pool(),
	}, nil).URL
	file := filepath.Join(t.TempDir(), "ca.crt")
	for name, test := range map[string]struct {
		ca     *testenv.CA
		client func() testenv.Certificate
		texts  []string
	}{
		"all well": {ca, func() testenv.Certificate { return ca.Client(t, "provider") }, nil},
		"wrong CA": {other, func() testenv.Certificate { return ca.Client(t, "provider") },
			[]string{"signed by unknown authority", "--vault-ca-cert"}},
		"no client certificate": {ca, nil, []string{"certificate required", "--vault-client-cert"}},
		"expired certificate": {ca, func() testenv.Certificate {
			return ca.Expired(t, time.Now().Add(-time.Hour), "provider")
		}, []string{"expired at"}},
		"client of another's CA": {ca, func() testenv.Certificate { return other.Client(t, "provider") },
			[]string{"remote error: tls"}},
		"both from another's CAs": {other, func() testenv.Certificate { return other.Client(t, "provider") },
			[]string{"signed by unknown authority"}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, test.ca.PEM(), 0o600); err != nil {
				t.Fatal(err)
			}
			s := serve(t, address, func(c *Config) {
				c.Vault.CACert = file
				if test.client != nil {
					c.Vault.ClientCert, c.Vault.ClientKey = test.client().Write(t, t.TempDir())
				}
			})
			if test.texts == nil {
				s.mountOne(t, e.params(), entries, "v")
				return
			}
			_, err := s.Mount(t.Context(), mountRequest(e.params(), entries))
			wantError(t, err, failure.VaultUntrusted,
				append(test.texts, "the connection to Vault at "+address+" is not trusted")...)
		})
	}
}

// TestIPv6 uses Vault and the API server at IPv6 addresses, which a class may contain
// too.
func TestIPv6(t *testing.T) {
	e := newEnv(t)
	kube := e.withAPIServer()
	kube.TrustAPIServer()
	e.allowLogin(testenv.Role{})
	kube.CreateSecret(e.ciphertextSecret("x", "v"))
	kube.AllowGet("app", "matrix")

	ca := testenv.NewCA(t, "vault")
	vault := testenv.Front(t, e.Vault, &tls.Config{Certificates: []tls.Certificate{ca.Serving(t, "::1").TLS(t)}},
		testenv.ListenIPv6(t)).URL
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	address := forward(t, testenv.ListenIPv6(t), strings.TrimPrefix(kube.API.Address, "https://"))
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	config := InCluster(func(name string) string {
		return map[string]string{"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}[name]
	})
	config.TLSClientConfig = rest.TLSClientConfig{CAFile: kube.API.CAFile}
	k, err := NewSecretReader(config)
	if err != nil {
		t.Fatal(err)
	}
	api, uid := kube.API.PodToken(t, e.namespace, "app-0", "app", "", time.Hour)
	jwt, _ := kube.API.PodToken(t, e.namespace, "app-0", "app", "vault", time.Hour)
	params := e.params("vaultAuthMountPath", "", class.AttributePodUID, uid, class.AttributeTokens,
		tokensJSON(map[string]token{
			"": {api, time.Time{}}, "vault": {jwt, time.Time{}},
		}))
	s := serve(t, e.Vault.Address, func(c *Config) {
		c.SecretReader, c.Vault.CACert, c.AllowedAddresses = k, file, []string{vault}
	})
	for _, address := range []string{vault, vault + "/", strings.Replace(vault, "[::1]", "[0:0:0:0:0:0:0:1]", 1),
		strings.Replace(vault, "https", "HTTPS", 1)} {
		s.mountOne(t, merged(params, "vaultAddress", address), nil, "v")
	}
	_, err = s.Mount(t.Context(),
		mountRequest(merged(params, "vaultAddress", strings.Replace(vault, "[::1]", "::1", 1)), nil))
	wantError(t, err, failure.InvalidParameters, "vaultAddress: Forbidden")
	_, err = s.Mount(t.Context(), mountRequest(merged(params, "vaultAddress", vault, "secretName", "absent"), nil))
	wantError(t, err, failure.SecretForbidden, "from https://[::1]:"+port)

	dead := testenv.ListenIPv6(t)
	dead.Close()
	down := serve(t, "https://"+dead.Addr().String(), within(time.Second))
	_, err = down.Mount(t.Context(),
		mountRequest(e.params(), map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", "v")}))
	wantError(t, err, failure.VaultUnreachable, "Vault at https://"+dead.Addr().String()+" cannot be reached",
		"dial tcp "+dead.Addr().String()+": connect: connection refused")
}

// forward forwards the bytes of each connection, and returns its address.
func forward(t *testing.T, l net.Listener, to string) string {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer from.Close()
				there, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer there.Close()
				go func() {
					defer there.Close()
					io.Copy(there, from)
				}()
				io.Copy(from, there)
			}()
		}
	}()
	return l.Addr().String()
}

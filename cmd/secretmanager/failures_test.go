package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/relay"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// TestCommandFailures causes each failure of the command line in the catalog, with a real Vault and a real API server;
// proxies cause what those do not do on demand. Each has its reason at the beginning of the message, exit code 1,
// and leaks nothing.
func TestCommandFailures(t *testing.T) {
	const plaintext = "c4nary-plaintext"
	encrypt := []string{"encrypt", "matrix", "--from-literal", "a=" + plaintext}
	withKey := func(u *user) []string { return append(encrypt, "--transit-key", u.Namespace) }
	edit := func(*user) []string { return []string{"edit", "matrix"} }
	vaultAnswers := func(path string, status int, text string) func(*user) []string {
		return func(u *user) []string {
			u.env["VAULT_ADDR"] = answering(u.t, u.Vault.Address, nil, "", path, status, text)
			return withKey(u)
		}
	}
	causes := map[*failure.Reason]func(u *user) []string{
		failure.PlainHTTP: func(u *user) []string {
			u.env["VAULT_ADDR"] = "http://vault.invalid:8200"
			return withKey(u)
		},
		failure.InvalidSpec: func(u *user) []string { return append(withKey(u), "--from-literal", "b=") },
		failure.SecretExists: func(u *user) []string {
			u.create("matrix", map[string][]byte{"a": []byte(plaintext)}, nil)
			return withKey(u)
		},
		failure.SecretConflict: func(u *user) []string {
			u.apiAnswers(http.MethodPost, http.StatusConflict, "AlreadyExists")
			return withKey(u)
		},
		failure.SecretChanged: func(u *user) []string {
			dir := u.t.TempDir()
			for name, value := range map[string]string{"mine": plaintext, "theirs": plaintext + "2"} {
				text := u.must("", "encrypt", "matrix", "--from-literal", "a="+value, "--transit-key", u.Namespace,
					"--dry-run=client", "-o", "yaml")
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					u.t.Fatal(err)
				}
			}
			u.env["KUBE_EDITOR"] = fmt.Sprintf(`f() { echo "a: new" >> "$1"; sed -i '/%s/d' "$1"; cp %s/theirs %s/mine; }; f`,
				plaintext, dir, dir)
			return []string{"edit", "-f", filepath.Join(dir, "mine")}
		},
		failure.NotConvertible: func(u *user) []string {
			u.create("matrix", map[string][]byte{"a": []byte(plaintext)}, func(s *corev1.Secret) {
				s.Annotations = map[string]string{"argocd.argoproj.io/tracking-id": "shop:/Secret:" + u.Namespace + "/matrix"}
			})
			return []string{"encrypt", "matrix", "--from-secret", "matrix", "--replace", "--transit-key", u.Namespace}
		},
		failure.SecretManaged: func(u *user) []string {
			u.must("", withKey(u)...)
			u.change("matrix", func(s *corev1.Secret) { s.Annotations["argocd.argoproj.io/tracking-id"] = "shop:x" })
			return withKey(u)
		},
		failure.NotVerified: vaultAnswers("/rewrap/", http.StatusBadRequest,
			`{"data": {"batch_results": [{"error": "cipher: message authentication failed"}]}}`),
		failure.VaultForbidden: func(u *user) []string {
			u.env["VAULT_TOKEN"] = u.tokenWithoutRights()
			return withKey(u)
		},
		failure.VaultTokenInvalid: vaultAnswers("/", http.StatusForbidden,
			`{"errors": ["permission denied", "invalid token"]}`),
		failure.VaultSealed:      vaultAnswers("/", http.StatusServiceUnavailable, `{"errors": ["Vault is sealed"]}`),
		failure.VaultRateLimited: vaultAnswers("/", http.StatusTooManyRequests, `{"errors": ["rate limit quota exceeded"]}`),
		failure.NotVault:         vaultAnswers("/", http.StatusOK, "<html>"+plaintext),
		failure.VaultError:       vaultAnswers("/", http.StatusInternalServerError, `{"errors": ["internal error"]}`),
		failure.VaultUnreachable: func(u *user) []string {
			u.env["VAULT_ADDR"] = "http://127.0.0.1:1"
			return withKey(u)
		},
		failure.VaultUntrusted: func(u *user) []string {
			certificate := testenv.NewCA(u.t, "nobody's").Serving(u.t, "127.0.0.1").TLS(u.t)
			u.env["VAULT_ADDR"] = testenv.Front(u.t, u.Vault, &tls.Config{Certificates: []tls.Certificate{certificate}}, nil).URL
			return withKey(u)
		},
		failure.APIServerForbidden: func(u *user) []string { return append(withKey(u), "--as", "nobody") },
		failure.APIServerUnavailable: func(u *user) []string {
			u.kubeconfig = writeKubeconfig(u.t, "http://127.0.0.1:1")
			return withKey(u)
		},
		failure.KeyNotFound: func(u *user) []string {
			u.must("", withKey(u)...)
			u.change("matrix", func(s *corev1.Secret) { s.Labels[ciphertext.LabelTransitKey] = u.Namespace + "-gone" })
			return edit(u)
		},
		failure.CiphertextMismatch: func(u *user) []string {
			u.must("", withKey(u)...)
			u.change("matrix", func(s *corev1.Secret) { s.Data["b"] = s.Data["a"] })
			return edit(u)
		},
		failure.KeyVersionRetired: func(u *user) []string {
			u.must("", withKey(u)...)
			u.Write("transit/keys/"+u.Namespace+"/rotate", nil)
			u.Write("transit/keys/"+u.Namespace+"/config", map[string]any{"min_decryption_version": 2})
			return edit(u)
		},
		failure.KeyVersionNotFound: func(u *user) []string {
			u.must("", withKey(u)...)
			u.change("matrix", func(s *corev1.Secret) {
				s.Data["a"] = []byte(strings.Replace(string(s.Data["a"]), ":v1:", ":v9:", 1))
			})
			return edit(u)
		},
	}
	for _, reason := range failure.All(failure.CommandLine) {
		cause := causes[reason]
		if cause == nil {
			t.Errorf("nothing here causes %s", reason)
			continue
		}
		t.Run(reason.String(), func(t *testing.T) {
			t.Parallel()
			u := newUser(t)
			args := cause(u)
			code, stdout, stderr := u.run("", args...)
			if code != cli.ExitFailed || !strings.HasPrefix(stderr, "error: "+reason.String()+": ") ||
				strings.Count(stderr, reason.String()) != 1 {
				t.Errorf("exit code %d: %s", code, stderr)
			}
			for _, secret := range []string{
				plaintext, base64.StdEncoding.EncodeToString([]byte(plaintext)), "vault:v", u.env["VAULT_TOKEN"],
			} {
				if secret != "root" && strings.Contains(stdout+stderr, secret) {
					t.Errorf("%q came out in %s%s", secret, stdout, stderr)
				}
			}
		})
	}
}

// create creates a plaintext Secret in the namespace of the user.
func (u *user) create(name string, data map[string][]byte, change func(*corev1.Secret)) {
	u.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
	if change != nil {
		change(s)
	}
	if _, err := u.Kube.CoreV1().Secrets(u.Namespace).Create(u.t.Context(), s, metav1.CreateOptions{}); err != nil {
		u.t.Fatal(err)
	}
}

// change changes a stored Secret.
func (u *user) change(name string, change func(*corev1.Secret)) {
	u.t.Helper()
	s := u.secret(name)
	change(s)
	if _, err := u.Kube.CoreV1().Secrets(u.Namespace).Update(u.t.Context(), s, metav1.UpdateOptions{}); err != nil {
		u.t.Fatal(err)
	}
}

// tokenWithoutRights returns a Vault token that may do nothing with keys.
func (u *user) tokenWithoutRights() string {
	u.t.Helper()
	response, err := u.Vault.Do(context.WithoutCancel(u.t.Context()), http.MethodPost, "auth/token/create",
		u.Vault.RootToken, map[string]any{"policies": []string{"default"}})
	if err != nil {
		u.t.Fatal(err)
	}
	return response.Auth.ClientToken
}

// apiAnswers has the API server respond to the requests of a method with an error.
func (u *user) apiAnswers(method string, status int, reason string) {
	u.t.Helper()
	transport, err := rest.TransportFor(u.API.Config)
	if err != nil {
		u.t.Fatal(err)
	}
	text := fmt.Sprintf(`{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": %q, "code": %d}`,
		reason, status)
	u.kubeconfig = writeKubeconfig(u.t, answering(u.t, u.API.Config.Host, transport, method, "/secrets", status, text))
}

// answering returns the address of a proxy that responds to the requests of a method to a path itself.
func answering(t *testing.T, address string, transport http.RoundTripper, method, path string, status int,
	text string) string {
	t.Helper()
	server, err := relay.New(address, transport)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if method != "" && r.Method != method || !strings.Contains(r.URL.Path, path) {
			server.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// writeKubeconfig returns the path of a kubeconfig for a server that asks for no credentials.
func writeKubeconfig(t *testing.T, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	config := api.Config{
		Clusters:       map[string]*api.Cluster{"c": {Server: server}},
		Contexts:       map[string]*api.Context{"c": {Cluster: "c"}},
		CurrentContext: "c",
	}
	if err := clientcmd.WriteToFile(config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

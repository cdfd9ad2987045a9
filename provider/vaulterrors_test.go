package provider

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/relay"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// faulty is a proxy of a real Vault that answers by itself where fault returns true.
func faulty(t testing.TB, v *testenv.Vault, fault func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	proxy, err := relay.New(v.Address, transport)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fault(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// hold keeps a request until its client gives up.
func hold(r *http.Request) {
	io.Copy(io.Discard, r.Body) // or the server does not see the client go
	<-r.Context().Done()
}

// trickle answers with a byte now and then, for as long as anybody reads.
func trickle(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	for r.Context().Err() == nil {
		io.WriteString(w, " ")
		w.(http.Flusher).Flush()
		time.Sleep(10 * time.Millisecond)
	}
}

func isLogin(r *http.Request) bool   { return strings.HasSuffix(r.URL.Path, "/login") }
func isDecrypt(r *http.Request) bool { return strings.Contains(r.URL.Path, "/decrypt/") }

// TestVaultFailures has what Vault, or something in its place, can answer. Each
// must be an error with a final code, and give nothing away.
func TestVaultFailures(t *testing.T) {
	e := newEnv(t)
	old := e.encrypt(t, ciphertext.Strict, "matrix", "x", canaryPlaintext)
	otherEntry := e.encrypt(t, ciphertext.Strict, "matrix", "y", canaryPlaintext)
	otherSecret := e.encrypt(t, ciphertext.Strict, "trix", "x", canaryPlaintext)
	otherNamespace := e.encryptWith(t, e.key, ciphertext.Strict.Context("elsewhere", "matrix", "x"), canaryPlaintext)
	inNamespace := e.encrypt(t, ciphertext.Namespace, "matrix", "x", canaryPlaintext)
	good := map[string]string{"x": old}
	dead := deadAddress(t)

	html := func(w http.ResponseWriter) { fmt.Fprint(w, "<html>"+canaryPlaintext+"</html>") }
	direct := e.vault.Address
	tests := []struct {
		name    string
		address string
		params  map[string]string
		entries map[string]string
		reason  *failure.Reason
		texts   []string
	}{
		{"moved to another entry", direct, e.params(), map[string]string{"x": otherEntry}, failure.CiphertextMismatch,
			[]string{`entry "x": cannot be decrypted as strict:` + e.namespace + "/matrix/x with transit/keys/" +
				e.key.Name, "another namespace, Secret or entry", "message authentication failed", "cannot be copied"}},
		{"moved to another Secret", direct, e.params(), map[string]string{"x": otherSecret}, failure.CiphertextMismatch,
			[]string{`entry "x": cannot be decrypted as strict:`, "nodePublishSecretRef names the same Secret as secretName"}},
		{"moved to another namespace", direct, e.params(), map[string]string{"x": otherNamespace},
			failure.CiphertextMismatch, []string{`entry "x": cannot be decrypted as strict:`}},
		{"another scope", direct, e.params("scope", "namespace"), good, failure.CiphertextMismatch,
			[]string{`entry "x": cannot be decrypted as namespace:namespace ` + e.namespace}},
		{"made for another scope", direct, e.params(), map[string]string{"x": inNamespace}, failure.CiphertextMismatch,
			[]string{`entry "x": cannot be decrypted as strict:`}},
		{"cluster scope", direct, e.params("scope", "cluster"), good, failure.CiphertextMismatch,
			[]string{`entry "x": cannot be decrypted with scope cluster`}},
		{"no scope with a derived key", direct, e.params("scope", "none"), good, failure.DecryptFailed,
			[]string{"missing 'context' for key derivation", "scope none is for a key that is not derived"}},
		{"one bad entry of several", direct, e.params(),
			map[string]string{"x": old, "z": otherEntry, "zz": otherSecret}, failure.CiphertextMismatch,
			[]string{`entry "z": cannot be decrypted`, `entry "zz": cannot be decrypted`}},
		{"too new version", direct, e.params(), map[string]string{"x": "vault:v99:" + old[len("vault:v1:"):]},
			failure.KeyVersionNotFound, []string{`entry "x": the key has no such version`, "too new"}},
		{"key that the policy does not give", direct, e.params("transitKey", "another"), good, failure.DecryptDenied,
			[]string{"permission denied", `"update" on transit/decrypt/another`, `role "` + e.namespace + `"`}},
		{"wrong service account", direct, e.params(class.AttributeAccount, "intruder"), good,
			failure.LoginDenied, []string{`role "` + e.namespace + `"`, e.namespace + "/intruder", `audience "vault"`,
				"auth/jwt", "HTTP 400"}},
		{"wrong role", direct, e.params("roleName", "nobody"), good, failure.LoginDenied,
			[]string{`role "nobody"`, "vault read auth/jwt/role/nobody"}},
		{"role that a shell would run", direct, e.params("roleName", "x;id$IFS-u"), good, failure.LoginDenied,
			[]string{"`vault read 'auth/jwt/role/x;id$IFS-u'`"}},
		{"mount that a shell would run", faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool {
			if isDecrypt(r) {
				w.WriteHeader(http.StatusNotFound)
				fmt.Fprint(w, `{"errors":[]}`)
			}
			return isDecrypt(r)
		}), e.params("transitMount", "$(id)"), good, failure.KeyNotFound, []string{"`vault list '$(id)/keys'`"}},
		{"wrong audience", direct,
			e.params("audience", "team", class.AttributeTokens, e.vaultToken(e.namespace, "app", "team")), good,
			failure.LoginDenied, []string{`audience "team"`, "invalid audience"}},
		{"no such auth mount", direct, e.params("vaultAuthMountPath", "nowhere"), good, failure.LoginDenied,
			[]string{"auth/nowhere"}},
		{"not there", "http://" + dead, e.params(), good, failure.VaultUnreachable,
			[]string{"Vault at http://" + dead + " cannot be reached within 1s", "connection refused", "network policies"}},
		{"login held", faulty(t, e.vault, func(_ http.ResponseWriter, r *http.Request) bool {
			if isLogin(r) {
				hold(r)
			}
			return isLogin(r)
		}), e.params(), good, failure.VaultUnreachable,
			[]string{"logging in", "cannot be reached within 1s", "did not answer in time"}},
		{"decrypt held", faulty(t, e.vault, func(_ http.ResponseWriter, r *http.Request) bool {
			if isDecrypt(r) {
				hold(r)
			}
			return isDecrypt(r)
		}), e.params(), good, failure.VaultUnreachable,
			[]string{"decrypting", "cannot be reached within 1s", "did not answer in time"}},
		{"a decrypt that trickles", faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool {
			if isDecrypt(r) {
				trickle(w, r)
			}
			return isDecrypt(r)
		}), e.params(), good, failure.VaultUnreachable,
			[]string{"decrypting", "cannot be reached within 1s", "did not answer in time"}},
		{"a login that trickles", faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool {
			trickle(w, r)
			return true
		}), e.params(), good, failure.VaultUnreachable,
			[]string{"logging in", "cannot be reached within 1s", "did not answer in time"}},
		{"HTML instead of a login",
			faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool { html(w); return true }), e.params(), good,
			failure.NotVault, []string{"unexpected response, not from Vault's API", "login page"}},
		{"HTML instead of a decrypt", faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool {
			if isDecrypt(r) {
				html(w)
			}
			return isDecrypt(r)
		}), e.params(), good, failure.NotVault, []string{"decrypting", "unexpected response, not from Vault's API"}},
		{"HTML error", faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(http.StatusNotFound)
			html(w)
			return true
		}), e.params(), good, failure.AuthMountNotFound, []string{"HTTP 404", "is the address of Vault itself"}},
		{"200 without auth", faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool {
			fmt.Fprint(w, `{"data": null}`)
			return true
		}), e.params(), good, failure.NotVault, []string{"it has no token"}},
		{"fewer results", faulty(t, e.vault, dropResult(t, e.vault)), e.params(),
			map[string]string{"x": old, "y": otherEntry}, failure.NotVault, []string{"1 results for 2 items"}},
		{"too many requests", faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, `{"errors": ["rate limit quota exceeded"]}`)
			return true
		}), e.params(), good, failure.VaultRateLimited, []string{"rate limit quota exceeded", "quotas"}},
		{"words with a token in them", faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool {
			var in struct{ JWT string }
			json.NewDecoder(r.Body).Decode(&in)
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"errors": ["no hvs.CAESIJc4naryc4naryc4nary, no %s, no %s"]}`, canaryCiphertext, in.JWT)
			return true
		}), e.params(), good, failure.LoginDenied, []string{"no (removed), no (removed), no (removed)"}},
		{"token that ends at once", faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool {
			if isDecrypt(r) {
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprint(w, `{"errors": ["permission denied", "invalid token"]}`)
			}
			return isDecrypt(r)
		}), e.params(), good, failure.VaultTokenExpired, []string{"invalid token", "token_ttl"}},
	}
	secrets := append([]string{e.jwt, old, otherEntry, otherSecret, otherNamespace, "c4naryc4nary"}, canaries...)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, test.address, within(time.Second),
				func(c *Config) { c.AllowedAuthMounts = []string{"jwt", "nowhere"} })
			began := time.Now()
			resp, err := s.Mount(t.Context(), mountRequest(test.params, test.entries))
			wantError(t, err, test.reason, test.texts...)
			if resp != nil {
				t.Error("an answer beside the error")
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			clean(t, secrets, err.Error(), s.log.String())
			if n := strings.Count(s.log.String(), "mount failed"); n != 1 {
				t.Errorf("%d lines in the log of one mount:\n%s", n, s.log)
			}
		})
	}
}

func TestNoSuchKey(t *testing.T) {
	e := newEnv(t)
	e.write(t, "sys/policies/acl/"+e.policy,
		map[string]any{"policy": `path "transit/decrypt/*" { capabilities = ["update"] }
path "nowhere/*" { capabilities = ["update"] }`})
	entries := map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", canaryPlaintext)}
	s := serve(t, e.vault.Address)
	_, err := s.Mount(t.Context(), mountRequest(e.params("transitKey", "gone"), entries))
	wantError(t, err, failure.KeyNotFound, "transit/keys/gone", "encryption key not found", "transitKey")
	_, err = s.Mount(t.Context(), mountRequest(e.params("transitMount", "nowhere"), entries))
	wantError(t, err, failure.KeyNotFound, "nowhere/keys/", "vault list nowhere/keys")
}

func TestRetiredVersion(t *testing.T) {
	e := newEnv(t)
	entries := map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", canaryPlaintext)}
	e.write(t, e.key.String()+"/rotate", nil)
	e.write(t, e.key.String()+"/config", map[string]any{"min_decryption_version": 2})
	s := serve(t, e.vault.Address)
	_, err := s.Mount(t.Context(), mountRequest(e.params(), entries))
	wantError(t, err, failure.KeyVersionRetired, `entry "x": its key version has been retired`, "too old",
		"min_decryption_version", "rewrapped")
}

func TestSealedVault(t *testing.T) {
	e := newEnvIn(t, testenv.NewVault(t))
	entries := map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", canaryPlaintext)}
	if err := e.vault.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := serve(t, e.vault.Address, within(time.Second))
	_, err := s.Mount(t.Context(), mountRequest(e.params(), entries))
	wantError(t, err, failure.VaultSealed, "is sealed and was not unsealed within 1s", "Vault is sealed", "vault status")

	// While a mount waits, Vault may come back.
	waiting := serve(t, e.vault.Address, within(time.Minute))
	done := make(chan error, 1)
	go func() {
		_, err := waiting.Mount(t.Context(), mountRequest(e.params(), entries))
		done <- err
	}()
	if err := e.vault.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// dropResult takes the last result out of a batch answer of the real Vault.
func dropResult(t testing.TB, v *testenv.Vault) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !isDecrypt(r) {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		req, err := http.NewRequest(r.Method, v.Address+r.URL.Path, bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return false
		}
		req.Header = r.Header.Clone()
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			return false
		}
		defer resp.Body.Close()
		var answer struct {
			Data struct {
				Results []json.RawMessage `json:"batch_results"`
			} `json:"data"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || len(answer.Data.Results) != 2 {
			t.Errorf("Vault answered %d results, %v", len(answer.Data.Results), err)
			return false
		}
		w.WriteHeader(http.StatusOK)
		fmt.Fprintf(w, `{"data": {"batch_results": [%s]}}`, answer.Data.Results[0])
		return true
	}
}

// deadAddress is one where nobody listens any more.
func deadAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

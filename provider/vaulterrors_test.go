package provider

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// faulty is a proxy to a real Vault. It responds itself to requests for which fault returns true.
func (e *env) faulty(fault func(http.ResponseWriter, *http.Request) bool) string {
	return e.VaultProxy(func(w http.ResponseWriter, r *http.Request, vault http.Handler) {
		if !fault(w, r) {
			vault.ServeHTTP(w, r)
		}
	})
}

// hold keeps a request until its client cancels it.
func hold(r *http.Request) {
	io.Copy(io.Discard, r.Body) // otherwise the server does not notice that the client disconnected
	<-r.Context().Done()
}

// trickle sends one byte at a time until the client disconnects.
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

// vaultFailures returns the requests that a real Vault denies.
func (e *failureEnv) vaultFailures(t *testing.T) []failureTest {
	old := e.good["x"]
	one := map[string]string{"x": old}
	x := func(text string) map[string]string { return map[string]string{"x": text} }
	otherEntry := e.encryptSecret(t, "matrix", "y", canaryPlaintext)
	otherSecret := e.encryptSecret(t, "trix", "x", canaryPlaintext)
	otherNamespace := e.Encrypt(e.key, ciphertext.Strict.Context("elsewhere", "matrix", "x"), canaryPlaintext)
	inNamespace := e.encrypt(t, ciphertext.Namespace, "matrix", "x", canaryPlaintext)
	retired := ciphertext.Key{Mount: e.key.Mount, Name: e.key.Name + "-retired"}
	e.Write(retired.String(), map[string]any{"derived": true})
	ofRetired := e.Encrypt(retired, ciphertext.Strict.Context(e.namespace, "matrix", "x"), canaryPlaintext)
	e.Write(retired.String()+"/rotate", nil)
	e.Write(retired.String()+"/config", map[string]any{"min_decryption_version": 2})
	tokenRole := "hvs." + rand.Text() // a Vault token in the wrong parameter
	e.leaks.add("role that looks like a token", tokenRole)

	return []failureTest{
		fails("mounted", nil, e.mount(e.good)),
		fails("moved to another entry", failure.CiphertextMismatch, e.mount(x(otherEntry)),
			`entry "x": cannot be decrypted as strict:`+e.namespace+"/matrix/x with transit/keys/"+e.key.Name,
			"another namespace, Secret or entry", "message authentication failed", "cannot be copied"),
		fails("moved to another Secret", failure.CiphertextMismatch, e.mount(x(otherSecret)),
			`entry "x": cannot be decrypted as strict:`, "nodePublishSecretRef names the same Secret as secretName"),
		fails("moved to another namespace", failure.CiphertextMismatch, e.mount(x(otherNamespace)),
			`entry "x": cannot be decrypted as strict:`),
		fails("another scope", failure.CiphertextMismatch, e.mount(one, "scope", "namespace"),
			`entry "x": cannot be decrypted as namespace:namespace `+e.namespace),
		fails("made for another scope", failure.CiphertextMismatch, e.mount(x(inNamespace)),
			`entry "x": cannot be decrypted as strict:`),
		fails("cluster scope", failure.CiphertextMismatch, e.mount(one, "scope", "cluster"),
			`entry "x": cannot be decrypted with scope cluster`),
		fails("no scope with a derived key", failure.DecryptFailed, e.mount(one, "scope", "none"),
			"missing 'context' for key derivation", "scope none is for a key that is not derived"),
		fails("one bad entry of several", failure.CiphertextMismatch,
			e.mount(map[string]string{"x": old, "z": otherEntry, "zz": otherSecret}),
			`entry "z": cannot be decrypted`, `entry "zz": cannot be decrypted`),
		fails("too new version", failure.KeyVersionNotFound, e.mount(x("vault:v99:"+strings.TrimPrefix(old, "vault:v1:"))),
			`entry "x": the key has no such version`, "too new").untilTimeout(),
		fails("retired version", failure.KeyVersionRetired, e.mount(x(ofRetired), "transitKey", retired.Name),
			`entry "x": its key version has been retired`, "too old", "min_decryption_version", "rewrapped"),
		fails("no such key", failure.KeyNotFound, e.mount(one, "transitKey", e.key.Name+"-gone"),
			"transit/keys/"+e.key.Name+"-gone", "encryption key not found", "transitKey"),
		fails("no such mount", failure.KeyNotFound, e.mount(one, "transitMount", "nowhere"),
			"nowhere/keys/", "vault list nowhere/keys"),
		fails("key that the policy does not give", failure.DecryptDenied, e.mount(one, "transitKey", "another"),
			"permission denied", `"update" on transit/decrypt/another`, `role "`+e.namespace+`"`),
		fails("wrong service account", failure.LoginDenied, e.mount(one, class.AttributeAccount, "intruder"),
			`role "`+e.namespace+`"`, e.namespace+"/intruder", `audience "vault"`, "auth/jwt", "HTTP 400"),
		fails("wrong role", failure.LoginDenied, e.mount(one, "roleName", "nobody"),
			`role "nobody"`, "vault read auth/jwt/role/nobody"),
		fails("role that a shell would run", failure.LoginDenied, e.mount(one, "roleName", "x;id$IFS-u"),
			"`vault read 'auth/jwt/role/x;id$IFS-u'`"),
		fails("role that looks like a token", failure.LoginDenied, e.mount(one, "roleName", tokenRole)),
		fails("wrong audience", failure.LoginDenied,
			e.mount(one, "audience", "team", class.AttributeTokens, e.vaultToken(e.namespace, "app", "team")),
			`audience "team"`, "invalid audience"),
		fails("no such auth mount", failure.LoginDenied, e.mount(one, "vaultAuthMountPath", "nowhere"), "auth/nowhere").
			with(func(c *Config) { c.AllowedAuthMounts = []string{"jwt", "nowhere"} }),
	}
}

// proxyFailures returns responses that a proxy in front of Vault may send.
func (e *failureEnv) proxyFailures(t *testing.T) []failureTest {
	var lagging atomic.Int32
	one := e.mount(map[string]string{"x": e.good["x"]})
	all := func(*http.Request) bool { return true }
	answers := func(when func(*http.Request) bool, code int, text string) string {
		return e.proxy(t, when, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(code)
			fmt.Fprint(w, text)
		})
	}
	results := func(result string) string {
		return answers(isDecrypt, 200, `{"data": {"batch_results": [`+result+`]}}`)
	}
	held := func(_ http.ResponseWriter, r *http.Request) { hold(r) }
	const html, unexpected = "<html>" + canaryPlaintext + "</html>", "unexpected response, not from Vault's API"
	const plaintext = `{"plaintext": "` + canaryPlaintext + `"}`
	dead := deadAddress(t)
	untrusted := testenv.Front(t, e.Vault,
		&tls.Config{Certificates: []tls.Certificate{testenv.NewCA(t, "nobody's").Serving(t, "127.0.0.1").TLS(t)}}, nil).URL

	tests := []failureTest{
		fails("not there", failure.VaultUnreachable, one, "Vault at http://"+dead+" cannot be reached within 1s",
			"connection refused", "network policies").at("http://"+dead).untilTimeout().
			counting(requests("login", "none"), map[string]float64{"logins_total{result=failure}": 1}),
		fails("login held", failure.VaultUnreachable, one, "logging in", "cannot be reached within 1s",
			"no response from Vault in time").at(e.proxy(t, isLogin, held)).untilTimeout(),
		fails("decrypt held", failure.VaultUnreachable, one, "decrypting", "cannot be reached within 1s",
			"no response from Vault in time").at(e.proxy(t, isDecrypt, held)).untilTimeout(),
		fails("decrypt that trickles", failure.VaultUnreachable, one, "decrypting", "cannot be reached within 1s",
			"no response from Vault in time").at(e.proxy(t, isDecrypt, trickle)).untilTimeout(),
		fails("login that trickles", failure.VaultUnreachable, one, "logging in", "cannot be reached within 1s",
			"no response from Vault in time").at(e.proxy(t, all, trickle)).untilTimeout(),
		fails("sealed", failure.VaultSealed, one).at(answers(all, 503, `{"errors": ["Vault is sealed"]}`)).untilTimeout(),
		fails("untrusted", failure.VaultUntrusted, one).at(untrusted),

		fails("HTML instead of a login", failure.NotVault, one, unexpected, "login page").at(answers(all, 200, html)),
		fails("HTML instead of a decrypt", failure.NotVault, one, "decrypting", unexpected).
			at(answers(isDecrypt, 200, html)),
		fails("HTML error", failure.AuthMountNotFound, one, "HTTP 404", "is the address of Vault itself").
			at(answers(all, 404, html)),
		fails("200 without auth", failure.NotVault, one, "it has no token").
			at(answers(isLogin, 200, `{"data": "`+canaryPlaintext+`"}`)),
		fails("login as nobody", failure.LoginIdentityMismatch, one).
			at(answers(isLogin, 200, `{"auth": {"client_token": "t"}}`)),
		fails("half an answer", failure.NotVault, one).
			at(answers(isDecrypt, 200, `{"data": {"batch_results": [{"plaintext": "`+canaryPlaintext)),
		fails("results of another type", failure.NotVault, one).at(results(`{"plaintext": ["` + canaryPlaintext + `"]}`)),
		fails("fewer results", failure.NotVault, e.mount(e.good), "1 results for 2 items").at(results(plaintext)),
		fails("more results", failure.NotVault, one).at(results(plaintext + ", " + plaintext)),
		fails("result that is not base64", failure.DecryptFailed, one).
			at(results(`{"plaintext": "` + canaryPlaintext + `-!"}`)),
		fails("result that is an error with everything in it", failure.DecryptFailed, one).
			at(results(`{"error": "no ` + e.good["x"] + `"}`)),

		fails("standby that lags", nil, one).at(e.proxy(t,
			func(r *http.Request) bool { return isDecrypt(r) && lagging.Add(1) < 3 },
			func(w http.ResponseWriter, _ *http.Request) {
				answerJSON(w, 400, `{"data": {"batch_results": [{"error": "version is too new"}]}}`)
			})),
		fails("rate limit", failure.VaultRateLimited, one, "rate limit quota exceeded", "quotas").
			at(answers(all, 429, `{"errors": ["rate limit quota exceeded"]}`)).untilTimeout(),
		fails("token that ends at once", failure.VaultTokenExpired, one, "invalid token", "token_ttl").
			at(answers(isDecrypt, 403, `{"errors": ["permission denied", "invalid token"]}`)),
		fails("mount that a shell would run", failure.KeyNotFound,
			e.mount(map[string]string{"x": e.good["x"]}, "transitMount", "$(id)"), "`vault list '$(id)/keys'`").
			at(answers(isDecrypt, 404, `{"errors":[]}`)),
		fails("bug", failure.Internal, one, "bug in the provider", "nil pointer").at("http://" + dead).
			breaking(func(s *served) { s.provider.vaults["http://"+dead] = nil }),
	}
	for _, test := range []struct {
		request string
		when    func(*http.Request) bool
		code    int
		reason  *failure.Reason
	}{
		{"login", isLogin, 400, failure.LoginDenied}, {"login", isLogin, 403, failure.LoginDenied},
		{"login", isLogin, 404, failure.AuthMountNotFound},
		{"decrypt", isDecrypt, 400, failure.DecryptFailed}, {"decrypt", isDecrypt, 403, failure.DecryptDenied},
		{"decrypt", isDecrypt, 404, failure.KeyNotFound}, {"decrypt", isDecrypt, 429, failure.VaultRateLimited},
		{"decrypt", isDecrypt, 500, failure.VaultError},
	} {
		row := fails(fmt.Sprintf("%s refused with everything in it, HTTP %d", test.request, test.code), test.reason,
			one).at(e.proxy(t, test.when, repeatRequest(test.code)))
		if test.code == 429 || test.code == 500 {
			row = row.untilTimeout().counting(requests("login", "2xx"), map[string]float64{
				"logins_total{result=success}": 1,
				fmt.Sprintf("vault_requests_total{operation=decrypt,status_class=%dxx}", test.code/100): 1,
			})
		} else {
			row.texts = []string{"(removed)"}
		}
		tests = append(tests, row)
	}
	return tests
}

// repeatRequest responds with an error that repeats the whole request.
func repeatRequest(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			JWT   string
			Batch []struct{ Ciphertext string } `json:"batch_input"`
		}
		json.NewDecoder(r.Body).Decode(&in)
		words := []string{"no " + in.JWT, "no " + r.Header.Get("X-Vault-Token"), "no " + canaryVaultToken}
		for _, item := range in.Batch {
			words = append(words, "no "+item.Ciphertext)
		}
		w.WriteHeader(code)
		fmt.Fprint(w, toJSON(map[string]any{"errors": words}))
	}
}

func TestSealedVault(t *testing.T) {
	e := newEnvIn(t, testenv.NewVault(t))
	entries := map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", canaryPlaintext)}
	if err := e.Vault.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := serve(t, e.Vault.Address, within(time.Second))
	_, err := s.Mount(t.Context(), mountRequest(e.params(), entries))
	wantError(t, err, failure.VaultSealed, "is sealed and was not unsealed within 1s", "Vault is sealed", "vault status")

	// Vault may recover while a mount waits.
	waiting := serve(t, e.Vault.Address, within(time.Minute))
	done := make(chan error, 1)
	go func() {
		_, err := waiting.Mount(t.Context(), mountRequest(e.params(), entries))
		done <- err
	}()
	if err := e.Vault.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// deadAddress returns an address without a listener.
func deadAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

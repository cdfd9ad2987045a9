package provider

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

// inlineAuth sets the auth mounts with inline authentication.
func inlineAuth(mounts ...string) func(*Config) {
	return func(c *Config) {
		c.InlineAuth = mounts
		c.AllowedAuthMounts = append(c.AllowedAuthMounts, mounts...)
	}
}

// storedTokens returns the accessors of all tokens that the Vault stores.
func (e *env) storedTokens(t testing.TB) []any {
	t.Helper()
	response, err := e.Vault.Do(t.Context(), "LIST", "auth/token/accessors", e.Vault.RootToken, nil)
	if err != nil {
		t.Fatal(err)
	}
	keys, _ := response.Data["keys"].([]any)
	return keys
}

// serviceTokens gives the role of the mount tokens that Vault stores.
func (e *env) serviceTokens(t testing.TB, mount string) {
	t.Helper()
	role, err := e.Vault.Read(t.Context(), "auth/"+mount+"/role/"+e.namespace)
	if err != nil {
		t.Fatal(err)
	}
	role["token_type"] = "service"
	e.Write("auth/"+mount+"/role/"+e.namespace, role)
}

// TestOpenBaoInlineAuth mounts with one request that contains the login. It stores no token, where a login does.
func TestOpenBaoInlineAuth(t *testing.T) {
	for _, mount := range []string{"jwt", "kubernetes"} {
		t.Run(mount, func(t *testing.T) {
			e := newEnv(t)
			jwt, uid := e.jwt, "uid-0"
			if mount == "kubernetes" {
				kube := e.withAPIServer()
				kube.TrustAPIServer()
				e.allowLogin(testenv.Role{})
				jwt, uid = kube.API.PodToken(t, e.namespace, "app-0", "app", "vault", time.Hour)
			}
			e.serviceTokens(t, mount)
			c := counting(t, e)
			params := e.params("vaultAuthMountPath", mount, class.AttributePodUID, uid, class.AttributeTokens,
				tokensJSON(map[string]token{"vault": {jwt, tokenExpiry}}))
			entries := e.entries(t, "v")

			before := len(e.storedTokens(t))
			s := serve(t, c.address, cached, inlineAuth(mount))
			was := series(t, s.provider)
			s.mountOne(t, params, entries, "v")
			c.want(t, "one request", 0, 1)
			if c.tokens[0] != "" {
				t.Error("the request has a Vault token")
			}
			counted := since(t, s.provider, was)
			delete(counted, "republish_cache_bytes")
			delete(counted, "audit_records_total{result=written}") // which may be later
			if diff := cmp.Diff(map[string]float64{
				"mounts_total{reason=OK,result=success}": 1, "mount_duration_seconds{source=vault}": 1,
				"vault_requests_total{operation=decrypt,status_class=2xx}": 1, "logins_total{result=success}": 1,
				"vault_request_duration_seconds{operation=decrypt}": 1,
				"republish_cache_entries":                           1, "republish_cache_misses_total": 1,
			}, counted); diff != "" {
				t.Errorf("series (-want +counted):\n%s", diff)
			}
			s.mountOne(t, params, entries, "v")
			c.want(t, "the response is repeated", 0, 1)
			s.mountOne(t, params, e.entries(t, "w"), "w")
			c.want(t, "another value", 0, 2)
			if n := len(e.storedTokens(t)) - before; n != 0 {
				t.Errorf("%d tokens are stored", n)
			}
			if n := s.provider.logins.count(); n != 0 {
				t.Errorf("%d Vault tokens are cached", n)
			}

			// A mount that is not in the list logs in first.
			serve(t, c.address, inlineAuth("other")).mountOne(t, params, entries, "v")
			c.want(t, "a login and a decrypt", 1, 3)
			if n := len(e.storedTokens(t)) - before; n != 1 {
				t.Errorf("%d tokens are stored by a login", n)
			}
		})
	}
}

// TestOpenBaoInlineAuthOfManyEntries verifies that each batch of a large Secret is a request with a login.
func TestOpenBaoInlineAuthOfManyEntries(t *testing.T) {
	e := newEnv(t)
	c := counting(t, e)
	items := make([]transit.Item, 250)
	for i := range items {
		items[i] = transit.Item{Data: fmt.Append(nil, "v", i),
			Context: ciphertext.Strict.Context(e.namespace, "matrix", fmt.Sprint("x", i))}
	}
	results, err := e.Root.Encrypt(t.Context(), e.key, items)
	if err != nil {
		t.Fatal(err)
	}
	entries, want := map[string]string{}, map[string]file{}
	for i, result := range results {
		entries[fmt.Sprint("x", i)] = string(result.Data)
		want[fmt.Sprint("x", i)] = file{0o644, fmt.Sprint("v", i)}
	}
	resp, err := serve(t, c.address, inlineAuth("jwt")).Mount(t.Context(), mountRequest(e.params(), entries))
	if diff := cmp.Diff(want, filesOf(resp)); err != nil || diff != "" {
		t.Errorf("%v, files (-want +got):\n%s", err, diff)
	}
	c.want(t, "three batches", 0, 3)
}

// TestOpenBaoInlineFailures repeats the failures of mounts. Where the server names no cause, the message has both.
func TestOpenBaoInlineFailures(t *testing.T) {
	e := newFailureEnv(t)
	tests := e.vaultFailures(t)
	for i := range tests {
		configure := tests[i].configure
		tests[i].configure = func(c *Config) {
			if configure != nil {
				configure(c)
			}
			c.InlineAuth = c.AllowedAuthMounts
		}
		if tests[i].reason == failure.DecryptDenied {
			tests[i].reason = failure.InlineAuthDenied
			tests[i].texts = append(tests[i].texts, "vault read auth/jwt/role/"+e.namespace, "OpenBao 2.4 or later")
		}
	}
	e.run(t, tests)
}

// inlineFailures returns failures of mounts with inline authentication at a Vault, which ignores the login, and of
// proxies in front of it.
func (e *failureEnv) inlineFailures(t *testing.T) []failureTest {
	one := e.mount(map[string]string{"x": e.good["x"]})
	ignored := map[string]float64{"logins_total{result=success}": 0, "logins_total{result=denied}": 0,
		"vault_requests_total{operation=decrypt,status_class=4xx}": 2, "login_cache_misses_total": 0}
	tests := []failureTest{
		fails("inline login at Vault", failure.InlineAuthDenied, one, "permission denied", "the login in the same request",
			`"update" on transit/decrypt/`+e.key.Name, "the role has service account app, its namespace",
			"OpenBao 2.4 or later", "--vault-inline-auth").counting(ignored),
	}
	for i := range tests {
		tests[i] = tests[i].with(inlineAuth("jwt"))
	}
	for _, code := range []int{400, 403, 404} {
		for marked, reason := range map[bool]*failure.Reason{true: failure.LoginDenied, false: failure.InlineAuthDenied} {
			switch {
			case code == 404 && marked:
				reason = failure.AuthMountNotFound
			case code == 404:
				reason = failure.KeyNotFound
			case code == 400 && !marked:
				reason = failure.DecryptFailed
			}
			address := e.proxy(t, isDecrypt, repeatHeaders(code, marked))
			tests = append(tests, fails(fmt.Sprintf("inline login, all headers repeated, HTTP %d, login %t", code, marked),
				reason, one, "(removed)").with(func(c *Config) {
				c.Vault.Address, c.InlineAuth = address, []string{"jwt"}
			}))
		}
	}
	return tests
}

// repeatHeaders responds with an error that repeats the headers of the request, and is marked as one of the login.
func repeatHeaders(code int, login bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var words []string
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			words = append(words, name+": "+strings.Join(r.Header[name], ", "))
		}
		if login {
			w.Header().Set("X-Vault-Inline-Auth-Failed", "true")
		}
		w.WriteHeader(code)
		fmt.Fprint(w, toJSON(map[string]any{"errors": words}))
	}
}

// TestInlineAuthMounts verifies that each auth mount of the list must be one that a class may name.
func TestInlineAuthMounts(t *testing.T) {
	for _, test := range []struct{ mount, text string }{
		{"other", `may name the auth mount "other"`}, {"", "it is empty"}, {"a//b", "empty part"}, {"j*", "wildcards"},
		{"+", "wildcards"}, {"kubernetes", ""}, {"/team/jwt/", ""},
	} {
		_, err := New(Config{Vault: transit.Config{Address: "https://v"}, InlineAuth: []string{test.mount},
			AllowedAuthMounts: []string{"team/jwt", "j*", "+"}, VersionKey: make([]byte, versionKeySize)})
		if (err == nil) != (test.text == "") || err != nil && !strings.Contains(err.Error(), test.text) {
			t.Errorf("%q: %v", test.mount, err)
		}
	}
}

// TestOpenBaoInlineAudit verifies what docs/audit.md says about the audit log: with inline authentication the line
// of the login names the pod, and the line of the decrypt has only what OpenBao verified.
func TestOpenBaoInlineAudit(t *testing.T) {
	v := testenv.NewVault(t)
	e := newEnvIn(t, v)
	log := auditVault(t, v)
	serve(t, v.Address, inlineAuth("jwt")).mountOne(t, e.params(), e.entries(t, "v"), "v")
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]vaultAuditLine{} // the last of each kind
	for line := range strings.Lines(string(text)) {
		var l vaultAuditLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		lines[l.Type+" "+l.Request.Path] = l
	}
	login, decrypt := lines["response auth/jwt/login"], lines["response "+e.key.Mount+"/decrypt/"+e.key.Name]
	for header, want := range map[string]string{"namespace": e.namespace, "pod": "app-0", "secret": "matrix",
		"node": "node-0"} {
		if got := login.header(header); got != want {
			t.Errorf("the login has the %s %q, want %q", header, got, want)
		}
	}
	if n := len(decrypt.Request.Headers); n != 0 {
		t.Errorf("the decrypt has %d headers: docs/audit.md says that it has none", n)
	}
	if decrypt.Auth.Metadata["service_account_namespace"] != e.namespace ||
		decrypt.Auth.Metadata["service_account_name"] != "app" {
		t.Errorf("the decrypt has the metadata %v", decrypt.Auth.Metadata)
	}
	if decrypt.Auth.ClientToken == "" || decrypt.Auth.ClientToken != login.Auth.ClientToken ||
		decrypt.Request.ID == login.Request.ID {
		t.Errorf("the client token does not connect %+v with %+v", login, decrypt)
	}
	var leaks leakDetector
	leaks.add("token of the pod", e.jwt)
	leaks.check(t, "OpenBao's audit log", string(text))
}

package provider

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/clock"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

// counter is a proxy to a real Vault that counts requests, and records what they
// contain.
type counter struct {
	address string

	mu                       sync.Mutex
	logins, decrypts, others int
	jwts, tokens             []string
}

func counting(t testing.TB, e *env) *counter {
	t.Helper()
	c := &counter{}
	c.address = e.faulty(func(_ http.ResponseWriter, r *http.Request) bool {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case isLogin(r):
			var in struct{ JWT string }
			json.Unmarshal(body, &in)
			c.logins, c.jwts = c.logins+1, append(c.jwts, in.JWT)
		case isDecrypt(r):
			c.decrypts, c.tokens = c.decrypts+1, append(c.tokens, r.Header.Get("X-Vault-Token"))
		default:
			c.others++
		}
		return false
	})
	return c
}

// want checks the numbers of requests so far.
func (c *counter) want(t testing.TB, when string, logins, decrypts int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.logins != logins || c.decrypts != decrypts || c.others != 0 {
		t.Errorf("%s: %d logins, %d decrypts and %d others; want %d and %d", when, c.logins, c.decrypts, c.others,
			logins, decrypts)
	}
}

// entries returns a Secret with one entry x.
func (e *env) entries(t testing.TB, plaintext string) map[string]string {
	t.Helper()
	return map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", plaintext)}
}

// mountOne mounts and checks the content of file x.
func (s *served) mountOne(t testing.TB, params, entries map[string]string, want string) {
	t.Helper()
	resp, err := s.Mount(t.Context(), mountRequest(params, entries))
	if err != nil {
		t.Error(err)
		return
	}
	if got := filesOf(resp); len(got) != 1 || got["x"].Content != want {
		t.Errorf("files %v", got)
	}
}

// setRole writes the role of the env with changed settings.
func (e *env) setRole(t testing.TB, more map[string]any) {
	t.Helper()
	data := map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_subject": testenv.Subject(e.namespace, "app"),
		"bound_audiences": "vault", "token_policies": e.policy, "token_type": "batch", "token_ttl": "20m"}
	for k, v := range more {
		data[k] = v
	}
	e.Write("auth/jwt/role/"+e.namespace, data)
}

func TestVaultTokenIsShared(t *testing.T) {
	e := newEnv(t)
	c := counting(t, e)
	s := serve(t, c.address)
	entries := e.entries(t, "v")
	var wait sync.WaitGroup
	for i := range 16 {
		wait.Go(func() {
			pod := fmt.Sprint("app-", i%4)
			s.mountOne(t, e.params(class.AttributePodName, pod, class.AttributePodUID, pod), entries, "v")
		})
	}
	wait.Wait()
	c.want(t, "4 volumes of each of 4 pods at once", 4, 16)
	s.mountOne(t, e.params(class.AttributePodName, "app-1", class.AttributePodUID, "app-1"), entries, "v")
	c.want(t, "one more", 4, 17)
	s.mountOne(t, e.params(class.AttributeTokens, e.vaultToken(e.namespace, "app", "vault")), entries, "v")
	c.want(t, "another token of the pod", 5, 18)
}

// TestVaultTokenOfCluster verifies that a cluster whose first server is down is used as one Vault, also by a class that
// names one of its addresses: Vault tokens are shared, and records and series do not depend on the server.
func TestVaultTokenOfCluster(t *testing.T) {
	e := newEnv(t)
	c := counting(t, e)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + listener.Addr().String()
	listener.Close()
	s := serve(t, dead+", "+c.address+"/", cached)
	entries := e.entries(t, "v")
	s.mountOne(t, e.params(), entries, "v")
	c.want(t, "no address", 1, 1)
	for _, address := range []string{c.address, dead} {
		s.mountOne(t, e.params("vaultAddress", address), entries, "v")
	}
	c.want(t, "each of its addresses", 1, 3)
	if n := strings.Count(s.log.String(), "avoiding a server of Vault"); n != 1 {
		t.Errorf("%d warnings of a server that is down", n)
	}
	for _, line := range strings.Split(strings.TrimSpace(s.audit.String()), "\n") {
		if !strings.Contains(line, fmt.Sprintf(`"vaultAddress":%q`, dead+","+c.address)) {
			t.Errorf("record: %s", line)
		}
	}
}

// TestVaultTokenOfAnotherToken verifies that a Vault token is used only for the service account
// token that requested it, even if the claims of another token are the same.
func TestVaultTokenOfAnotherToken(t *testing.T) {
	e := newEnv(t)
	c := counting(t, e)
	direct := e.Vault.Address
	s := serve(t, c.address, cached, func(c *Config) {
		c.AllowedAddresses, c.AllowedAuthMounts = []string{direct}, []string{"jwt", "kubernetes"}
	})
	entries := e.entries(t, "v")
	e.allowLogin(testenv.Role{Mount: "jwt", Name: e.namespace + "-2"})
	e.allowLogin(testenv.Role{Mount: "jwt", Name: e.namespace + "-3", Audience: "team"})
	s.mountOne(t, e.params(), entries, "v")
	c.want(t, "the first", 1, 1)
	s.mountOne(t, e.params("roleName", e.namespace+"-2"), entries, "v")
	c.want(t, "another role", 2, 2)
	s.mountOne(t, e.params("roleName", e.namespace+"-3", "audience", "team", class.AttributeTokens,
		e.vaultToken(e.namespace, "app", "team")), entries, "v")
	c.want(t, "another audience", 3, 3)
	s.mountOne(t, e.params("vaultAddress", direct), entries, "v")
	c.want(t, "another address", 3, 3)
	s.mountOne(t, e.params(), entries, "v")
	c.want(t, "the first again", 3, 4)

	// The claims of the accepted token, with another signature.
	claims, err := base64.RawURLEncoding.DecodeString(strings.Split(e.jwt, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var same map[string]any
	if err := json.Unmarshal(claims, &same); err != nil {
		t.Fatal(err)
	}
	forgery := func(jwt string) string { return tokensJSON(map[string]token{"vault": {jwt, time.Time{}}}) }
	logins := 3
	for name, params := range map[string]map[string]string{
		"another service account":     e.params(class.AttributeAccount, "other"),
		"another namespace":           e.params(class.AttributePodNamespace, "other"),
		"another auth mount":          e.params("vaultAuthMountPath", "kubernetes"),
		"a role that does not exist":  e.params("roleName", "nobody"),
		"a forged token of the pod":   e.params(class.AttributeTokens, forgery(forged(same))),
		"a token with more behind it": e.params(class.AttributeTokens, forgery(e.jwt+"AA")),
	} {
		t.Run(name, func(t *testing.T) {
			// A cached response of the same volume is not used.
			s.mountOne(t, e.params(), entries, "v")
			c.mu.Lock()
			decrypts := c.decrypts
			c.mu.Unlock()
			_, err := s.Mount(t.Context(), mountRequest(params, entries))
			wantError(t, err, failure.LoginDenied, "logging in to Vault")
			logins++
			c.want(t, name, logins, decrypts)
		})
	}
	t.Run("an unsigned token", func(t *testing.T) {
		unsigned := "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString(claims) + "."
		_, err := s.Mount(t.Context(), mountRequest(e.params(class.AttributeTokens, forgery(unsigned)), entries))
		wantError(t, err, failure.TokenInvalid, "is not a Kubernetes service account token")
	})
}

// forged returns a token with an invalid signature.
func forged(claims map[string]any) string {
	segment := func(v any) string { return base64.RawURLEncoding.EncodeToString([]byte(toJSON(v))) }
	return segment(map[string]any{"alg": "ES256"}) + "." + segment(claims) + "." +
		base64.RawURLEncoding.EncodeToString(make([]byte, 64))
}

// TestLoginKey verifies that every part of the key changes it, and nothing else does.
func TestLoginKey(t *testing.T) {
	type input struct {
		r   request
		jwt string
	}
	base := func() *input {
		return &input{request{
			pod: pod{"demo", "app-0", "uid-0", "app"},
			Class: class.Class{
				Role: "r", AuthMount: "jwt", Audience: "vault", VaultNamespace: "team", VaultAddress: "https://v",
			},
		}, "a.b.c"}
	}
	p := plainProvider(t)
	key := func(change func(*input)) digest {
		i := base()
		change(i)
		return p.loginKey(&i.r, i.jwt)
	}
	first := key(func(*input) {})
	for name, change := range map[string]func(*input){
		"address":         func(i *input) { i.r.VaultAddress = "https://w" },
		"Vault namespace": func(i *input) { i.r.VaultNamespace = "" },
		"auth mount":      func(i *input) { i.r.AuthMount = "kubernetes" },
		"role":            func(i *input) { i.r.Role = "s" },
		"token":           func(i *input) { i.jwt = "a.b.d" },
		"other cut":       func(i *input) { i.r.Role, i.jwt = "ra", ".b.c" },
	} {
		if key(change) == first {
			t.Errorf("another %s has the same key", name)
		}
	}
	for name, change := range map[string]func(*input){
		"key":  func(i *input) { i.r.Key = ciphertext.Key{Mount: "m", Name: "k"} },
		"file": func(i *input) { i.r.Secret, i.r.target, i.r.className = "s", "/t", "c" },
	} {
		if key(change) != first {
			t.Errorf("another %s has another Vault token", name)
		}
	}
	if p = plainProvider(t); key(func(*input) {}) == first {
		t.Error("two processes compute the same digests")
	}
}

func TestLoginBound(t *testing.T) {
	now := clock.Now()
	l := logins{now: func() clock.Reading { return now }}
	client, err := transit.NewClient(transit.Config{Address: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	get := func(role string) *transit.LoginSource {
		key := digest(sha256.Sum256([]byte(role)))
		return l.get(key, now.Wall.Add(time.Hour),
			func() *transit.LoginSource { return client.NewLoginSource(transit.Login{Role: role}) })
	}
	kept := get("kept")
	for i := range 2 * maxLogins {
		now = now.Add(time.Millisecond)
		get(fmt.Sprint(i))
		if get("kept") != kept {
			t.Fatalf("the login in use was evicted at number %d", i)
		}
	}
	if len(l.sources) != maxLogins {
		t.Errorf("%d sources", len(l.sources))
	}
	// None of them has a token: after a while only the one in use remains.
	for range 2 {
		now = now.Add(loginGrace)
		get("new")
	}
	if len(l.sources) != 1 {
		t.Errorf("%d sources after two minutes", len(l.sources))
	}
}

// TestLoginLifetime verifies that a Vault token is used for less than 15 minutes, and
// not after the service account token expires, whatever its lease duration.
func TestLoginLifetime(t *testing.T) {
	e := newEnv(t)
	e.setRole(t, map[string]any{"token_ttl": "24h"})
	c := counting(t, e)
	s := serve(t, c.address)
	began, now := time.Now(), clock.Now()
	s.provider.logins.now = func() clock.Reading { return now }
	s.provider.now = func() time.Time { return now.Wall }
	entries := e.entries(t, "v")
	s.mountOne(t, e.params(), entries, "v")
	for range 12 { // use does not extend the lifetime
		now = now.Add(time.Minute)
		s.mountOne(t, e.params(), entries, "v")
	}
	c.want(t, "after 12 minutes", 1, 13)
	now = now.Add(time.Minute)
	s.mountOne(t, e.params(), entries, "v")
	c.want(t, "after 13 minutes", 2, 14)

	short := e.params(class.AttributeTokens,
		tokensJSON(
			map[string]token{"vault": {fixture.Issuer().PodToken(e.namespace, "app-0", "uid-0", "app", "vault", 20*time.Minute),
				time.Time{}}}))
	s.mountOne(t, short, entries, "v")
	c.want(t, "with a token that ends in 7 minutes", 3, 15)
	if n := s.provider.logins.count(); n != 2 {
		t.Errorf("%d Vault tokens", n)
	}
	// The token was issued by the real clock, which has gone on.
	now = now.Add(7*time.Minute + time.Since(began))
	_, err := s.Mount(t.Context(), mountRequest(short, entries))
	wantError(t, err, failure.TokenExpired, "expired at")
	s.mountOne(t, e.params(), entries, "v") // triggers a sweep
	if n := s.provider.logins.count(); n != 1 {
		t.Errorf("%d Vault tokens after one service account token expired", n)
	}
	now.Wall = now.Wall.Add(-time.Hour) // the clock is set back
	now.Mono += 13 * time.Minute
	s.mountOne(t, e.params(), entries, "v")
	c.want(t, "after another 13 minutes, with a clock that was set back", 4, 17)
}

// TestRevokedAccess verifies what docs/runbook.md states under "Take access away now".
func TestRevokedAccess(t *testing.T) {
	e := newEnv(t)
	e.setRole(t, map[string]any{"token_ttl": "24h"})
	s := serve(t, e.Vault.Address, cached)
	now := clock.Now()
	read := func() clock.Reading { return now }
	s.provider.logins.now, s.provider.responses.now = read, read
	s.provider.now = func() time.Time { return now.Wall }
	entries := e.entries(t, "old")
	refused := func(reason *failure.Reason, params, entries map[string]string) {
		t.Helper()
		_, err := s.Mount(t.Context(), mountRequest(params, entries))
		wantError(t, err, reason)
	}
	s.mountOne(t, e.params(), entries, "old")

	if err := e.Vault.Delete(t.Context(), "auth/jwt/role/"+e.namespace); err != nil {
		t.Fatal(err)
	}
	refused(failure.LoginDenied, e.params(class.AttributePodUID, "uid-1"), entries) // a new pod, immediately
	s.mountOne(t, e.params(), entries, "old")                                       // a running pod, unchanged
	for range 15 {
		now = now.Add(time.Minute)
		s.mountOne(t, e.params(), entries, "old")
	}
	refused(failure.LoginDenied, e.params(), e.entries(t, "new")) // a changed value, after 15 minutes
	refused(failure.LoginDenied, e.params(), entries)             // the old response is dropped

	e.setRole(t, nil)
	s.mountOne(t, e.params(), entries, "old")
	for range 60 {
		now = now.Add(time.Minute)
		if _, err := s.Mount(t.Context(), mountRequest(e.params(), entries)); err != nil {
			break
		}
	}
	if _, err := s.Mount(t.Context(), mountRequest(e.params(), entries)); err == nil {
		t.Error("an unchanged response is cached for more than an hour")
	}

	// A policy affects existing tokens immediately.
	e = newEnv(t)
	s = serve(t, e.Vault.Address, cached)
	s.mountOne(t, e.params(), e.entries(t, "old"), "old")
	e.Write("sys/policies/acl/"+e.policy,
		map[string]any{"policy": `path "transit/decrypt/nothing" { capabilities = ["update"] }`})
	refused(failure.DecryptDenied, e.params(), e.entries(t, "new"))
	refused(failure.DecryptDenied, e.params(class.AttributePodUID, "uid-1"), e.entries(t, "old"))
}

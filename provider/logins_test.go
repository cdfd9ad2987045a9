package provider

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/clock"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

// counter is a proxy of a real Vault that counts requests, and keeps what they
// show.
type counter struct {
	address string

	mu                       sync.Mutex
	logins, decrypts, others int
	jwts, tokens             []string
}

func counting(t testing.TB, v *testenv.Vault) *counter {
	t.Helper()
	c := &counter{}
	c.address = faulty(t, v, func(_ http.ResponseWriter, r *http.Request) bool {
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

// want checks how many requests there have been.
func (c *counter) want(t testing.TB, when string, logins, decrypts int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.logins != logins || c.decrypts != decrypts || c.others != 0 {
		t.Errorf("%s: %d logins, %d decrypts and %d others; want %d and %d", when, c.logins, c.decrypts, c.others, logins, decrypts)
	}
}

// entries is a Secret of one entry x.
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

func (e *env) vaultToken(namespace, account, audience string) string {
	return tokensJSON(map[string]token{audience: {issuer().Token(namespace, account, audience, time.Hour), time.Time{}}})
}

// setRole writes the role of the env with something else than usual.
func (e *env) setRole(t testing.TB, more map[string]any) {
	t.Helper()
	data := map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_subject": testenv.Subject(e.namespace, "app"),
		"bound_audiences": "vault", "token_policies": e.policy, "token_type": "batch", "token_ttl": "20m"}
	for k, v := range more {
		data[k] = v
	}
	e.write(t, "auth/jwt/role/"+e.namespace, data)
}

func TestVaultTokenIsShared(t *testing.T) {
	e := newEnv(t)
	c := counting(t, e.vault)
	s := serve(t, c.address)
	entries := e.entries(t, "v")
	var wait sync.WaitGroup
	for i := range 16 {
		wait.Go(func() {
			pod := fmt.Sprint("app-", i%4)
			s.mountOne(t, e.params(keyPodName, pod, keyPodUID, pod, keyTokens, e.vaultToken(e.namespace, "app", "vault")), entries, "v")
		})
	}
	wait.Wait()
	c.want(t, "16 pods at once", 1, 16)
	s.mountOne(t, e.params(), entries, "v")
	c.want(t, "one more", 1, 17)
}

// TestVaultTokenOfAnotherIdentity: what Vault allows one, the others have to ask
// it for.
func TestVaultTokenOfAnotherIdentity(t *testing.T) {
	e := newEnv(t)
	c := counting(t, e.vault)
	direct := e.vault.Address
	s := serve(t, c.address, func(c *Config) { c.AllowedAddresses = []string{direct} })
	entries := e.entries(t, "v")
	for _, role := range []testenv.Role{
		{Mount: "jwt", Name: e.namespace + "-2", Namespace: e.namespace, ServiceAccount: "app", Policies: []string{e.policy}},
		{Mount: "jwt", Name: e.namespace + "-3", Namespace: e.namespace, ServiceAccount: "app", Policies: []string{e.policy}, Audience: "team"},
	} {
		if err := e.vault.AllowLogin(t.Context(), role); err != nil {
			t.Fatal(err)
		}
	}
	s.mountOne(t, e.params(), entries, "v")
	c.want(t, "the first", 1, 1)
	s.mountOne(t, e.params("roleName", e.namespace+"-2"), entries, "v")
	c.want(t, "another role", 2, 2)
	s.mountOne(t, e.params("roleName", e.namespace+"-3", "audience", "team", keyTokens, e.vaultToken(e.namespace, "app", "team")), entries, "v")
	c.want(t, "another audience", 3, 3)
	s.mountOne(t, e.params("vaultAddress", direct), entries, "v")
	c.want(t, "another address", 3, 3)
	claims := issuer().Claims(e.namespace, "app", "vault", time.Hour)
	claims["kubernetes.io"].(map[string]any)["serviceaccount"].(map[string]any)["uid"] = "new"
	s.mountOne(t, e.params(keyTokens, tokensJSON(map[string]token{"vault": {issuer().Sign(claims), time.Time{}}})), entries, "v")
	c.want(t, "a service account that was made anew", 4, 4)
	s.mountOne(t, e.params(), entries, "v")
	c.want(t, "the first again", 4, 5)

	logins := 4
	for name, params := range map[string]map[string]string{
		"another service account":  e.params(keyServiceAccount, "other", keyTokens, e.vaultToken(e.namespace, "other", "vault")),
		"another namespace":        e.params(keyPodNamespace, "other", keyTokens, e.vaultToken("other", "app", "vault")),
		"another auth mount":       e.params("vaultAuthMountPath", "kubernetes"),
		"a role that is not there": e.params("roleName", "nobody"),
		// The kubelet says that the pod is somebody else's than the token does.
		"another's token in a pod of app":                     e.params(keyTokens, e.vaultToken(e.namespace, "other", "vault")),
		"a forged token of app in a pod of another":           e.params(keyServiceAccount, "other", keyTokens, tokensJSON(map[string]token{"vault": {forged(issuer().Claims(e.namespace, "app", "vault", time.Hour)), time.Time{}}})),
		"a forged token of app in a pod of another namespace": e.params(keyPodNamespace, "other", keyTokens, tokensJSON(map[string]token{"vault": {forged(issuer().Claims(e.namespace, "app", "vault", time.Hour)), time.Time{}}})),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Mount(t.Context(), mountRequest(params, entries))
			wantError(t, err, codes.PermissionDenied, "logging in to Vault")
			logins++
			c.want(t, name, logins, 5)
		})
	}
	s.mountOne(t, e.params(), entries, "v")
	c.want(t, "the first, after all", logins, 6)
}

// forged is a token that nobody signed.
func forged(claims map[string]any) string {
	segment := func(v any) string { return base64.RawURLEncoding.EncodeToString([]byte(toJSON(v))) }
	return segment(map[string]any{"alg": "none"}) + "." + segment(claims) + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64))
}

// TestIdentity: no input of the key is left out, and nothing else is in it.
func TestIdentity(t *testing.T) {
	type input struct {
		r   request
		ns  string
		sa  string
		uid string
	}
	base := func() *input {
		return &input{
			request{pod: pod{"demo", "app-0", "uid-0", "app"}, role: "r", authMount: "jwt", audience: "vault", vaultNamespace: "team", vaultAddress: "https://v"},
			"demo", "app", "sa-uid",
		}
	}
	get := func(i *input) (identity, bool) {
		return identityOf(&i.r, forged(map[string]any{"kubernetes.io": map[string]any{
			"namespace": i.ns, "serviceaccount": map[string]any{"name": i.sa, "uid": i.uid}}}))
	}
	first, ok := get(base())
	if !ok {
		t.Fatal("no identity")
	}
	other := map[string]func(*input){
		"address":         func(i *input) { i.r.vaultAddress = "https://w" },
		"Vault namespace": func(i *input) { i.r.vaultNamespace = "" },
		"auth mount":      func(i *input) { i.r.authMount = "kubernetes" },
		"role":            func(i *input) { i.r.role = "s" },
		"audience":        func(i *input) { i.r.audience = "" },
		"namespace":       func(i *input) { i.r.pod.namespace, i.ns = "other", "other" },
		"service account": func(i *input) { i.r.pod.serviceAccount, i.sa = "other", "other" },
		"uid":             func(i *input) { i.uid = "other" },
	}
	if n := reflect.TypeFor[identity]().NumField(); n != len(other) {
		t.Errorf("an identity has %d parts, and %d are tested", n, len(other))
	}
	for name, change := range other {
		i := base()
		change(i)
		if id, ok := get(i); !ok || id == first {
			t.Errorf("another %s: %v, the same: %v", name, ok, id == first)
		}
	}
	for name, change := range map[string]func(*input){
		"pod":  func(i *input) { i.r.pod.name, i.r.pod.uid = "app-1", "uid-1" },
		"key":  func(i *input) { i.r.key = transit.Key{Mount: "m", Name: "k"} },
		"file": func(i *input) { i.r.secret, i.r.target, i.r.class = "s", "/t", "c" },
	} {
		i := base()
		change(i)
		if id, ok := get(i); !ok || id != first {
			t.Errorf("another %s has another Vault token", name)
		}
	}
	for name, change := range map[string]func(*input){
		"namespace that is not the pod's":       func(i *input) { i.ns = "other" },
		"service account that is not the pod's": func(i *input) { i.sa = "other" },
		"no namespace":                          func(i *input) { i.ns, i.r.pod.namespace = "", "" },
		"no service account":                    func(i *input) { i.sa, i.r.pod.serviceAccount = "", "" },
		"no uid":                                func(i *input) { i.uid = "" },
		"endless uid":                           func(i *input) { i.uid = strings.Repeat("u", 1<<20) },
	} {
		i := base()
		change(i)
		if _, ok := get(i); ok {
			t.Errorf("%s: it is shared", name)
		}
	}
	for _, jwt := range []string{"", "..", "a.b.c", "a." + base64.RawURLEncoding.EncodeToString([]byte("[]")) + ".c", strings.TrimSuffix(forged(nil), "."), strings.Repeat(".", 1000)} {
		if _, ok := identityOf(&base().r, jwt); ok {
			t.Errorf("%q is shared", clip(jwt, 50))
		}
	}
}

func TestVaultTokenNearItsEnd(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.setRole(t, map[string]any{"token_ttl": "5s"})
	c := counting(t, e.vault)
	s := serve(t, c.address)
	entries := e.entries(t, "v")
	s.mountOne(t, e.params(), entries, "v")
	s.mountOne(t, e.params(), entries, "v")
	c.want(t, "at once", 1, 2)
	time.Sleep(4600 * time.Millisecond) // in its last tenth, or after its end
	newer := issuer().Token(e.namespace, "app", "vault", time.Hour)
	s.mountOne(t, e.params(keyTokens, tokensJSON(map[string]token{"vault": {newer, time.Time{}}})), entries, "v")
	c.want(t, "near the end", 2, 3) // no request with the old one
	if c.jwts[0] != e.jwt || c.jwts[1] != newer {
		t.Error("a login did not show the token that came last")
	}
}

func TestVaultTokenThatIsGone(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.setRole(t, map[string]any{"token_type": "service"})
	c := counting(t, e.vault)
	s := serve(t, c.address)
	entries := e.entries(t, "v")
	s.mountOne(t, e.params(), entries, "v")
	e.write(t, "auth/token/revoke", map[string]any{"token": c.tokens[0]})
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() { s.mountOne(t, e.params(), entries, "v") })
	}
	wait.Wait()
	// Each of the eight may have tried the old one first; there is one new one.
	if c.logins != 2 || c.decrypts < 1+8+1 || c.decrypts > 1+8+8 {
		t.Errorf("%d logins and %d decrypts", c.logins, c.decrypts)
	}
}

// TestVaultTokenOfFewUses: one that ends with its first use costs a mount
// no more than a login.
func TestVaultTokenOfFewUses(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.setRole(t, map[string]any{"token_type": "service", "token_num_uses": 1})
	s := serve(t, e.vault.Address)
	entries := e.entries(t, "v")
	for range 3 {
		s.mountOne(t, e.params(), entries, "v")
	}
}

func TestVaultRestarted(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"batch", "service"} {
		t.Run(kind, func(t *testing.T) {
			e := newEnvIn(t, testenv.NewVault(t))
			e.setRole(t, map[string]any{"token_type": kind})
			s := serve(t, e.vault.Address)
			entries := e.entries(t, "v")
			s.mountOne(t, e.params(), entries, "v")
			if err := e.vault.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.mountOne(t, e.params(), entries, "v")
		})
	}
}

// TestMendedRole: what an operator puts right acts with the next mount, whatever
// is in memory.
func TestMendedRole(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	s := serve(t, e.vault.Address)
	entries := e.entries(t, "v")
	mend := func(when string, data map[string]any, texts ...string) {
		t.Helper()
		_, err := s.Mount(t.Context(), mountRequest(e.params(), entries))
		wantError(t, err, codes.PermissionDenied, texts...)
		e.setRole(t, data)
	}
	e.setRole(t, map[string]any{"bound_subject": "nobody"})
	mend("a login that is refused", map[string]any{"token_policies": "default"}, "logging in to Vault")
	mend("a token with a policy too few", nil, "decrypting", `"update" on transit/decrypt/`)
	s.mountOne(t, e.params(), entries, "v")
}

// TestLoginRefusedInTheMiddle: the token has ended and Vault gives no other. The
// message is about the login.
func TestLoginRefusedInTheMiddle(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.setRole(t, map[string]any{"token_type": "service"})
	c := counting(t, e.vault)
	s := serve(t, c.address)
	entries := e.entries(t, "v")
	s.mountOne(t, e.params(), entries, "v")
	e.setRole(t, map[string]any{"bound_subject": "nobody"})
	e.write(t, "auth/token/revoke", map[string]any{"token": c.tokens[0]})
	_, err := s.Mount(t.Context(), mountRequest(e.params(), entries))
	wantError(t, err, codes.PermissionDenied, "logging in to Vault", "bound to it")
}

func TestLoginsAreBounded(t *testing.T) {
	now := clock.Now()
	l := logins{now: func() clock.Reading { return now }}
	client, err := transit.NewClient(transit.Config{Address: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	get := func(role string) *transit.LoginSource {
		return l.get(identity{role: role}, func() *transit.LoginSource { return client.NewLoginSource(transit.Login{Role: role}) })
	}
	kept := get("kept")
	for i := range 2 * maxLogins {
		now = now.Add(time.Millisecond)
		get(fmt.Sprint(i))
		if get("kept") != kept {
			t.Fatalf("the one in use went with the %dth", i)
		}
	}
	if len(l.sources) != maxLogins {
		t.Errorf("%d sources", len(l.sources))
	}
	// None of them has a token: after a while only the one that is asked for stays.
	for range 2 {
		now = now.Add(loginGrace)
		get("new")
	}
	if len(l.sources) != 1 {
		t.Errorf("%d sources after two minutes", len(l.sources))
	}
}

// TestUnusedLogins: a source goes when its token has ended, or when nobody has
// asked for a long time.
func TestUnusedLogins(t *testing.T) {
	e := newEnv(t)
	s := serve(t, e.vault.Address)
	now := clock.Now()
	s.provider.logins.now = func() clock.Reading { return now }
	entries := e.entries(t, "v")
	count := func() int {
		l := &s.provider.logins
		l.get(identity{}, func() *transit.LoginSource { return nil }) // has it sweep
		l.drop(l.sources[identity{}])
		return len(l.sources)
	}
	s.mountOne(t, e.params(), entries, "v")
	now = now.Add(50 * time.Minute) // by our clock alone: its token is good
	if n := count(); n != 1 {
		t.Errorf("%d of one in use", n)
	}
	now = now.Add(15 * time.Minute)
	if n := count(); n != 0 {
		t.Errorf("%d of one that nobody asked for", n)
	}
}

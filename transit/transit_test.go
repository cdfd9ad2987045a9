package transit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// client returns a client of a real Vault and a session as root.
func client(t *testing.T, v *testenv.Vault) (*transit.Client, *transit.Session) {
	t.Helper()
	c, err := transit.NewClient(transit.Config{Address: v.Address, CACert: v.CAFile, RetryFor: -1})
	if err != nil {
		t.Fatal(err)
	}
	return c, c.Session("", transit.StaticToken(v.RootToken))
}

// newKey creates a transit key with the name of the test.
func newKey(t *testing.T, v *testenv.Vault, derived bool) ciphertext.Key {
	t.Helper()
	name := strings.NewReplacer("/", "-", " ", "-").Replace(t.Name())
	if _, err := v.Write(t.Context(), "transit/keys/"+name, map[string]any{"derived": derived}); err != nil {
		t.Fatal(err)
	}
	return ciphertext.Key{Mount: "transit", Name: name}
}

// one returns the result of a batch of one.
func one(t *testing.T, results []transit.Result, err error) ([]byte, error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 1 {
		t.Fatalf("%d results for one item", len(results))
	}
	return results[0].Data, results[0].Err
}

func TestRoundTrip(t *testing.T) {
	v := testenv.SharedVault(t)
	_, s := client(t, v)
	for _, derived := range []bool{true, false} {
		t.Run(fmt.Sprintf("derived %v", derived), func(t *testing.T) {
			k := newKey(t, v, derived)
			var items []transit.Item
			for i := range 250 { // more than one batch
				it := transit.Item{Data: []byte(strings.Repeat("\x00\xff\r\n", i))}
				if derived {
					it.Context = ciphertext.Strict.Context("demo", "matrix", fmt.Sprint(i))
				}
				items = append(items, it)
			}
			encrypted, err := s.Encrypt(t.Context(), k, items)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Rotate(t.Context(), k); err != nil {
				t.Fatal(err)
			}
			current := make([]transit.Item, len(items))
			for i, r := range encrypted {
				if version, err := ciphertext.Version(r.Data); version != 1 || err != nil || r.Err != nil {
					t.Fatalf("item %d: version %d, %v, %v", i, version, err, r.Err)
				}
				if len(r.Data) > ciphertext.Size(len(items[i].Data)) {
					t.Errorf("ciphertext of %d bytes has %d, Size returns %d", len(items[i].Data), len(r.Data),
						ciphertext.Size(len(items[i].Data)))
				}
				current[i] = transit.Item{Data: r.Data, Context: items[i].Context}
			}
			rewrapped, err := s.Rewrap(t.Context(), k, current)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range rewrapped {
				if version, _ := ciphertext.Version(r.Data); version != 2 {
					t.Fatalf("item %d: version %d after rewrap, %v", i, version, r.Err)
				}
				current[i].Data = r.Data
			}
			decrypted, err := s.Decrypt(t.Context(), k, current)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range decrypted {
				if r.Err != nil || string(r.Data) != string(items[i].Data) {
					t.Errorf("item %d decrypts to %d bytes, %v", i, len(r.Data), r.Err)
				}
			}
		})
	}
}

func TestLargestItem(t *testing.T) {
	v := testenv.SharedVault(t)
	_, s := client(t, v)
	k := newKey(t, v, true)
	c := ciphertext.Strict.Context("a", "b", "c")
	plain := make([]byte, 785_000) // just below 1 MiB as ciphertext, the limit of a Secret
	encrypted, err := s.Encrypt(t.Context(), k, []transit.Item{{Data: plain, Context: c}})
	text, err := one(t, encrypted, err)
	if err != nil {
		t.Fatal(err)
	}
	decrypted, err := s.Decrypt(t.Context(), k, []transit.Item{{Data: text, Context: c}})
	if got, err := one(t, decrypted, err); err != nil || len(got) != len(plain) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestScopeBindsCiphertext(t *testing.T) {
	v := testenv.SharedVault(t)
	_, s := client(t, v)
	k := newKey(t, v, true)
	for _, c := range []struct {
		scope     ciphertext.Scope
		locations map[[3]string]bool // whether it decrypts there
	}{
		{ciphertext.Strict, map[[3]string]bool{{"demo", "matrix", "token"}: true, {"other", "matrix", "token"}: false,
			{"demo", "other", "token"}: false, {"demo", "matrix", "other"}: false}},
		{ciphertext.Namespace,
			map[[3]string]bool{{"demo", "matrix", "token"}: true, {"other", "matrix", "token"}: false,
				{"demo", "other", "other"}: true}},
		{ciphertext.Cluster, map[[3]string]bool{{"other", "other", "other"}: true}},
	} {
		encrypted, err := s.Encrypt(t.Context(), k,
			[]transit.Item{{Data: []byte("x"), Context: c.scope.Context("demo", "matrix", "token")}})
		text, err := one(t, encrypted, err)
		if err != nil {
			t.Fatal(err)
		}
		for location, decrypts := range c.locations {
			results, err := s.Decrypt(t.Context(),
				k, []transit.Item{{Data: text, Context: c.scope.Context(location[0], location[1], location[2])}})
			_, err = one(t, results, err)
			if decrypts && err != nil || !decrypts && !errors.Is(err, transit.ErrMismatch) {
				t.Errorf("%s, at %v: %v", c.scope, location, err)
			}
		}
	}
}

func TestVaultErrors(t *testing.T) {
	v := testenv.SharedVault(t)
	c, s := client(t, v)
	k := newKey(t, v, true)
	location := ciphertext.Strict.Context("demo", "matrix", "token")
	encrypted, err := s.Encrypt(t.Context(), k, []transit.Item{{Data: []byte("x"), Context: location}})
	text, err := one(t, encrypted, err)
	if err != nil {
		t.Fatal(err)
	}
	good := transit.Item{Data: text, Context: location}
	tooNew := transit.Item{Data: []byte(strings.Replace(string(text), ":v1:", ":v9:", 1)), Context: location}
	// Decrypt waits for a version that is too new.
	soon, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	t.Cleanup(cancel)

	t.Run("a bad item among good ones", func(t *testing.T) {
		results, err := s.Decrypt(soon, k, []transit.Item{good, tooNew, {Data: text, Context: []byte("x")}, good})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []error{nil, transit.ErrTooNew, transit.ErrMismatch, nil} {
			if !errors.Is(results[i].Err, want) {
				t.Errorf("item %d: %v; want %v", i, results[i].Err, want)
			}
		}
	})
	t.Run("only bad items", func(t *testing.T) {
		soon, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		results, err := s.Decrypt(soon, k, []transit.Item{tooNew})
		if _, err := one(t, results, err); !errors.Is(err, transit.ErrTooNew) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("retired", func(t *testing.T) {
		info, err := s.Rotate(t.Context(), k)
		if err != nil || info.Latest != 2 {
			t.Fatalf("latest %d, %v", info.Latest, err)
		}
		if err := s.SetMinDecryptionVersion(t.Context(), k, info, 2); err != nil {
			t.Fatal(err)
		}
		for name, call := range map[string]func() ([]transit.Result, error){
			"decrypt": func() ([]transit.Result, error) { return s.Decrypt(t.Context(), k, []transit.Item{good}) },
			"rewrap":  func() ([]transit.Result, error) { return s.Rewrap(t.Context(), k, []transit.Item{good}) },
		} {
			results, err := call()
			if _, err := one(t, results, err); !errors.Is(err, transit.ErrTooOld) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("no such key", func(t *testing.T) {
		missing := ciphertext.Key{Mount: "transit", Name: "no-such-key"}
		if _, err := s.Decrypt(t.Context(), missing, []transit.Item{good}); !errors.Is(err, transit.ErrNotFound) {
			t.Errorf("decrypt: %v", err)
		}
		if _, err := s.Key(t.Context(), missing); !errors.Is(err, transit.ErrNotFound) {
			t.Errorf("read: %v", err)
		}
	})
	t.Run("no such engine", func(t *testing.T) {
		if _, err := s.Decrypt(t.Context(), ciphertext.Key{Mount: "nowhere", Name: "k"},
			[]transit.Item{good}); !errors.Is(err, transit.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("invalid token", func(t *testing.T) {
		bad := c.Session("", transit.StaticToken("hvs.not-a-token"))
		_, err := bad.Key(t.Context(), k)
		want := transit.ErrInvalidToken
		if strings.HasPrefix(t.Name(), "TestOpenBao") { // OpenBao denies the request
			want = transit.ErrDenied
		}
		if !errors.Is(err, want) || strings.Contains(err.Error(), "not-a-token") {
			t.Errorf("got %v", err)
		}
	})
}

func TestKey(t *testing.T) {
	v := testenv.SharedVault(t)
	_, s := client(t, v)
	k := newKey(t, v, true)
	info, err := s.Key(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if !info.Derived || info.Latest != 1 || info.MinDecryptionVersion != 1 || info.Type != "aes256-gcm96" {
		t.Errorf("a new key: %+v", info)
	}
	if age := info.Age(time.Now()); age < 0 || age > 10*time.Minute || info.Created[1].IsZero() {
		t.Errorf("a new key is %v old, created %v", age, info.Created)
	}
}

// TestKeyTypes checks which keys can encrypt for a location, whatever their type is called.
func TestKeyTypes(t *testing.T) {
	f := fixture.NewTransit(t)
	types := map[string][2]bool{"aes128-gcm96": {true, true}, "chacha20-poly1305": {true, true},
		"rsa-2048": {true, false}, "ed25519": {false, true}, "hmac": {false, false}}
	if strings.HasPrefix(t.Name(), "TestOpenBao") {
		types["xchacha20-poly1305"] = [2]bool{true, true}
	}
	for kind, want := range types {
		key := ciphertext.Key{Mount: "transit", Name: f.Key + "-" + kind}
		f.Write(key.String(), map[string]any{"type": kind, "key_size": map[string]int{"hmac": 32}[kind]})
		info, err := f.Root.Key(t.Context(), key)
		if got := [2]bool{info.SupportsEncryption, info.SupportsDerivation}; err != nil || got != want || info.Type != kind {
			t.Errorf("%s: encryption and derivation %v, want %v (%v)", kind, got, want, err)
		}
	}
}

func TestLogin(t *testing.T) {
	v := testenv.NewVault(t)
	f := fixture.In(t, v)
	f.TrustIssuer()
	c, root := client(t, v)
	k := newKey(t, v, false)
	role := testenv.Role{Mount: "jwt", Namespace: "demo", ServiceAccount: "app",
		Policies: []string{f.Policy(`path "transit/decrypt/*" { capabilities = ["update"] }`)}}
	f.AllowLogin(role)
	as := func(serviceAccount, audience string, ttl time.Duration) *transit.Session {
		return c.Session("", c.NewLoginSource(transit.Login{Mount: "jwt", Role: "app",
			JWT: func() (string, error) { return fixture.Issuer().Token("demo", serviceAccount, audience, ttl), nil }}))
	}
	encrypted, err := root.Encrypt(t.Context(), k, []transit.Item{{Data: []byte("x")}})
	text, err := one(t, encrypted, err)
	if err != nil {
		t.Fatal(err)
	}
	items := []transit.Item{{Data: text}}

	app := as("app", "vault", time.Hour)
	results, err := app.Decrypt(t.Context(), k, items)
	if got, err := one(t, results, err); err != nil || string(got) != "x" {
		t.Errorf("the app: %q, %v", got, err)
	}
	if _, err := app.Rewrap(t.Context(), k, items); !errors.Is(err, transit.ErrDenied) {
		t.Errorf("rewrap without the right: %v", err)
	}
	for name, s := range map[string]*transit.Session{
		"another service account": as("other", "vault", time.Hour),
		"another audience":        as("app", "elsewhere", time.Hour),
		"an expired token":        as("app", "vault", -time.Hour),
	} {
		if _, err := s.Decrypt(t.Context(), k, items); !errors.Is(err, transit.ErrDenied) ||
			!strings.Contains(err.Error(), `role "app"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The session logs in again if its Vault token was revoked, or lost in a restore of
	// Vault.
	f.Write("auth/jwt/role/app", map[string]any{"role_type": "jwt", "user_claim": "sub",
		"bound_subject": testenv.Subject("demo", "app"), "bound_audiences": "vault", "token_policies": role.Policies,
		"token_type": "service"})
	source := c.NewLoginSource(transit.Login{Mount: "jwt", Role: "app",
		JWT: func() (string, error) { return fixture.Issuer().Token("demo", "app", "vault", time.Hour), nil }})
	first, err := source.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.Write("auth/token/revoke", map[string]any{"token": first})
	results, err = c.Session("", source).Decrypt(t.Context(), k, items)
	if _, err := one(t, results, err); err != nil {
		t.Errorf("after its token was revoked: %v", err)
	}
}

func TestSealedVault(t *testing.T) {
	v := testenv.NewVault(t)
	_, s := client(t, v)
	k := newKey(t, v, false)
	if err := v.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Key(t.Context(), k); !errors.Is(err, transit.ErrSealed) {
		t.Errorf("sealed: %v", err)
	}
	if err := v.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Key(t.Context(), k); err != nil {
		t.Errorf("unsealed: %v", err)
	}
}

func TestTLS(t *testing.T) {
	v := testenv.NewVaultWith(t, testenv.VaultOptions{TLS: true})
	_, s := client(t, v)
	if _, err := s.Key(t.Context(), newKey(t, v, false)); err != nil {
		t.Errorf("with its CA: %v", err)
	}
	c, err := transit.NewClient(transit.Config{Address: v.Address})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Session("", transit.StaticToken(v.RootToken)).Key(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"})
	if !errors.Is(err, transit.ErrUnreachable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without its CA: %v", err)
	}
}

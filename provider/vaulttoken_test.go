package provider

import (
	"sync"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

func TestVaultTokenNearExpiry(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.setRole(t, map[string]any{"token_ttl": "5s"})
	c := counting(t, e)
	s := serve(t, c.address)
	entries := e.entries(t, "v")
	s.mountOne(t, e.params(), entries, "v")
	s.mountOne(t, e.params(), entries, "v")
	c.want(t, "at once", 1, 2)
	time.Sleep(4600 * time.Millisecond) // in the last tenth of its lifetime, or after it
	s.mountOne(t, e.params(), entries, "v")
	c.want(t, "near the end", 2, 3) // no request with the old token
	if c.jwts[0] != e.jwt || c.jwts[1] != e.jwt {
		t.Error("a login did not send the token of the pod")
	}
}

func TestRevokedVaultToken(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.setRole(t, map[string]any{"token_type": "service"})
	c := counting(t, e)
	s := serve(t, c.address)
	entries := e.entries(t, "v")
	s.mountOne(t, e.params(), entries, "v")
	e.Write("auth/token/revoke", map[string]any{"token": c.tokens[0]})
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() { s.mountOne(t, e.params(), entries, "v") })
	}
	wait.Wait()
	// Each of the eight mounts may have tried the old token first; all share one new token.
	if c.logins != 2 || c.decrypts < 1+8+1 || c.decrypts > 1+8+8 {
		t.Errorf("%d logins and %d decrypts", c.logins, c.decrypts)
	}
}

// TestVaultTokenOfFewUses verifies that a token that expires after its first use costs a mount
// no more than one login.
func TestVaultTokenOfFewUses(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.setRole(t, map[string]any{"token_type": "service", "token_num_uses": 1})
	s := serve(t, e.Vault.Address)
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
			s := serve(t, e.Vault.Address)
			entries := e.entries(t, "v")
			s.mountOne(t, e.params(), entries, "v")
			if err := e.Vault.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.mountOne(t, e.params(), entries, "v")
		})
	}
}

// TestFixedRole verifies that a fix by an operator takes effect with the next mount, whatever is cached.
func TestFixedRole(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	s := serve(t, e.Vault.Address)
	entries := e.entries(t, "v")
	fix := func(reason *failure.Reason, data map[string]any) {
		t.Helper()
		_, err := s.Mount(t.Context(), mountRequest(e.params(), entries))
		wantError(t, err, reason)
		e.setRole(t, data)
	}
	e.setRole(t, map[string]any{"bound_subject": "nobody"})
	fix(failure.LoginDenied, map[string]any{"token_policies": "default"})
	fix(failure.DecryptDenied, nil)
	s.mountOne(t, e.params(), entries, "v")
}

// TestLoginRefusedAfterExpiry verifies that after the token expired and Vault denies a new one,
// the message is about the login.
func TestLoginRefusedAfterExpiry(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.setRole(t, map[string]any{"token_type": "service"})
	c := counting(t, e)
	s := serve(t, c.address)
	entries := e.entries(t, "v")
	s.mountOne(t, e.params(), entries, "v")
	e.setRole(t, map[string]any{"bound_subject": "nobody"})
	e.Write("auth/token/revoke", map[string]any{"token": c.tokens[0]})
	_, err := s.Mount(t.Context(), mountRequest(e.params(), entries))
	wantError(t, err, failure.LoginDenied, "logging in to Vault", "bound to it")
}

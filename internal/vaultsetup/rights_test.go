package vaultsetup

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// TestRights tries each operation as each identity: only the listed ones are allowed.
func TestRights(t *testing.T) {
	f, c, s := setup(t)
	s.Retire, s.Trim = true, true
	apply(t, c, s)
	plain := s
	plain.Rotator = &Grant{Account: Account{s.Key.Name, "plain"}, Role: s.Key.Name + "-plain"}
	plain.Retire = false
	apply(t, c, plain)
	lister := plain
	lister.Rotator = &Grant{Account: Account{s.Key.Name, "lister"}, Role: s.Key.Name + "-lister"}
	lister.Patterns = true
	apply(t, c, lister)
	other := s
	other.Key.Name += "-other"
	other.App = &Grant{Account: Account{s.Key.Name, "other"}}
	apply(t, c, other)

	encrypted := ciphertextOf(f, s.Key)
	context64 := encrypted["context"]
	key := s.Key.Name
	operations := []struct {
		name, method, path string
		body               map[string]any
	}{
		{"read the key", "GET", "transit/keys/" + key, nil},
		{"encrypt", "PUT", "transit/encrypt/" + key, map[string]any{"plaintext": "aHVudGVyMg==", "context": context64}},
		{"decrypt", "PUT", "transit/decrypt/" + key, encrypted},
		{"rewrap", "PUT", "transit/rewrap/" + key, encrypted},
		{"rotate", "PUT", "transit/keys/" + key + "/rotate", map[string]any{}},
		{"retire", "PUT", "transit/keys/" + key + "/config", map[string]any{"min_decryption_version": 1}},
		{"set the oldest version that encrypts", "PUT", "transit/keys/" + key + "/config",
			map[string]any{"min_encryption_version": 1}},
		{"trim", "PUT", "transit/keys/" + key + "/trim", map[string]any{"min_available_version": 1}},

		{"encrypt with a missing key", "PUT", "transit/encrypt/" + key + "-mistyped",
			map[string]any{"plaintext": "aHVudGVyMg=="}},
		{"rewrap with another key", "PUT", "transit/rewrap/elsewhere", encrypted},
		{"allow to delete the key", "PUT", "transit/keys/" + key + "/config", map[string]any{"deletion_allowed": true}},
		{"make the key exportable", "PUT", "transit/keys/" + key + "/config",
			map[string]any{"min_decryption_version": 1, "exportable": true}},
		{"back the key up", "GET", "transit/backup/" + key, nil},
		{"export the key", "GET", "transit/export/encryption-key/" + key, nil},
		{"delete the key", "DELETE", "transit/keys/" + key, nil},
		{"list keys", "GET", "transit/keys?list=true", nil},
		{"get a data key", "PUT", "transit/datakey/plaintext/" + key, map[string]any{"context": context64}},
		{"look its own token up", "GET", "auth/token/lookup-self", nil},
	}
	allowed := func(t *testing.T, token string) (may []string) {
		for _, op := range operations {
			var body any
			if op.body != nil {
				body = op.body
			}
			_, err := f.Vault.Do(t.Context(), op.method, op.path, token, body)
			var refused *testenv.VaultError
			switch {
			case err == nil:
				may = append(may, op.name)
			case !errors.As(err, &refused) || refused.Status != http.StatusForbidden:
				t.Errorf("%s: want HTTP 403, got %v", op.name, err)
			}
		}
		slices.Sort(may)
		return may
	}
	for _, identity := range []struct {
		name  string
		grant *Grant
		may   []string
	}{
		{"app", s.App, []string{"decrypt"}},
		{"author", s.Author, []string{"encrypt", "read the key", "rewrap"}},
		{"rotator", plain.Rotator, []string{"read the key", "rewrap", "rotate"}},
		{"rotator of patterns", lister.Rotator, []string{"list keys", "read the key", "rewrap", "rotate"}},
		{"retiring rotator", s.Rotator,
			[]string{"read the key", "retire", "rewrap", "rotate", "set the oldest version that encrypts"}},
		{"app of another key", other.App, nil},
	} {
		t.Run(identity.name, func(t *testing.T) {
			auth := login(f, identity.grant)
			if auth.TokenType != "batch" || auth.LeaseDuration > 900 || slices.Contains(auth.Policies, "default") {
				t.Errorf("the token is of type %s, lives %d s, and has policies %v", auth.TokenType, auth.LeaseDuration,
					auth.Policies)
			}
			if diff := cmp.Diff(identity.may, allowed(t, auth.ClientToken)); diff != "" {
				t.Errorf("allowed operations, -want +got:\n%s", diff)
			}
		})
	}
	t.Run("person who trims", func(t *testing.T) {
		answer, err := f.Vault.Do(t.Context(), "POST", "auth/token/create", f.Vault.RootToken,
			map[string]any{"policies": []string{s.trimPolicy().Name}, "no_default_policy": true})
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"read the key", "set the oldest version that encrypts", "trim"}
		if diff := cmp.Diff(want, allowed(t, answer.Auth.ClientToken)); diff != "" {
			t.Errorf("allowed operations, -want +got:\n%s", diff)
		}
	})
}

// ciphertextOf returns the body of a request to decrypt or rewrap.
func ciphertextOf(f *fixture.Transit, key ciphertext.Key) map[string]any {
	f.T.Helper()
	context := []byte("strict:n/s/e")
	return map[string]any{"ciphertext": f.Encrypt(key, context, "hunter2"),
		"context": base64.StdEncoding.EncodeToString(context)}
}

// TestLogin checks that only the service account of a role can log in.
func TestLogin(t *testing.T) {
	f, c, s := setup(t)
	apply(t, c, s)
	ns := s.Key.Name
	for name, jwt := range map[string]string{
		"other service account": fixture.Issuer().Token(ns, "author", "vault", time.Hour),
		"other namespace":       fixture.Issuer().Token("x"+ns, "app", "vault", time.Hour),
		"other audience":        fixture.Issuer().Token(ns, "app", "https://kubernetes.default.svc", time.Hour),
		"expired":               fixture.Issuer().Token(ns, "app", "vault", -time.Hour),
	} {
		if _, err := f.Vault.Login(t.Context(), "jwt", s.App.RoleName(), jwt); err == nil {
			t.Errorf("%s: logged in", name)
		}
	}
	login(f, s.App)
}

// TestLoginKubernetes does the same at a kubernetes mount, with a real API server.
func TestLoginKubernetes(t *testing.T) {
	f, c, s := setup(t)
	cluster := f.With(testenv.SharedAPIServer(t))
	cluster.TrustAPIServer()
	server := cluster.API
	s.AuthMount, s.AuthType = "kubernetes", AuthKubernetes
	apply(t, c, s)
	ns := "setup-" + s.Key.Name
	s.App = &Grant{Account: Account{ns, "app"}}
	apply(t, c, s)
	server.CreateServiceAccount(t, ns, "app")
	server.CreateServiceAccount(t, ns, "other")
	for _, test := range []struct {
		account, audience string
		in                bool
	}{{"app", "vault", true}, {"app", "", false}, {"other", "vault", false}} {
		t.Run(fmt.Sprintf("%s for %q", test.account, test.audience), func(t *testing.T) {
			auth, err := f.Vault.Login(t.Context(), "kubernetes", s.App.RoleName(),
				server.ServiceAccountToken(t, ns, test.account, test.audience, time.Hour))
			if (err == nil) != test.in {
				t.Fatalf("error %v", err)
			}
			if err == nil && !slices.Equal(auth.Policies, []string{strings.ToLower(s.appPolicy().Name)}) {
				t.Errorf("policies %v", auth.Policies)
			}
		})
	}
}

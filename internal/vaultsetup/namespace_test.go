package vaultsetup

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/vault/api"

	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// TestPerNamespace uses one policy and one role for two namespaces: each app decrypts with
// the key of its own namespace only, at both types of auth mounts.
func TestPerNamespace(t *testing.T) {
	for _, authType := range []string{AuthJWT, AuthKubernetes} {
		t.Run(authType, func(t *testing.T) {
			f, c, s := setup(t)
			s.AuthMount, s.AuthType, s.PerNamespace = authType, authType, true
			s.Key.Mount = namespacesMount + "-" + s.Key.Name
			token := func(namespace, account string) string {
				return fixture.Issuer().Token(namespace, account, "vault", time.Hour)
			}
			if authType == AuthKubernetes {
				cluster := f.With(testenv.SharedAPIServer(t))
				cluster.TrustAPIServer()
				server := cluster.API
				token = func(namespace, account string) string {
					server.CreateServiceAccount(t, namespace, account)
					return server.ServiceAccountToken(t, namespace, account, "vault", time.Hour)
				}
			}
			var err error
			if s.Accessor, err = Accessor(t.Context(), c, authType); err != nil {
				t.Fatal(err)
			}
			base := s.Key.Name
			role := base + "-apps"
			setupOf := func(namespace string) Setup {
				one := s
				one.Key.Name, one.Author, one.Rotator = namespace, nil, nil
				one.App = &Grant{Account: Account{namespace, "app"}, Role: role}
				return one
			}
			a, b := setupOf("a-"+base), setupOf("b-"+base)
			apply(t, c, a)
			want := map[string]Outcome{
				"transit key " + b.Key.String():    Created,
				"policy " + b.authorPolicy().Name:  Created,
				"policy " + b.rotatorPolicy().Name: Created,
			}
			if diff := cmp.Diff(want, changed(apply(t, c, b))); diff != "" {
				t.Errorf("the second namespace, -want +got:\n%s", diff)
			}
			if got := changed(apply(t, c, a)); len(got) > 0 {
				t.Errorf("the first one again: %v", got)
			}

			ciphertexts := map[string]map[string]any{}
			for _, x := range []Setup{a, b} {
				ciphertexts[x.Key.Name] = ciphertextOf(f, x.Key)
			}
			for _, own := range []Setup{a, b} {
				auth, err := f.Vault.Login(t.Context(), authType, role, token(own.Key.Name, "app"))
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(auth.Policies, []string{own.appPolicy().Name}) || auth.TokenType != "batch" {
					t.Errorf("%s got a token of type %s with policies %v", own.Key.Name, auth.TokenType, auth.Policies)
				}
				for _, key := range []string{a.Key.Name, b.Key.Name} {
					path := own.Key.Mount + "/decrypt/" + key
					_, err := f.Vault.Do(t.Context(), http.MethodPut, path, auth.ClientToken, ciphertexts[key])
					var refused *testenv.VaultError
					switch {
					case key == own.Key.Name && err != nil:
						t.Errorf("the app of %s cannot decrypt with its own key: %v", own.Key.Name, err)
					case key != own.Key.Name && (!errors.As(err, &refused) || refused.Status != http.StatusForbidden):
						t.Errorf("the app of %s with key %s: %v", own.Key.Name, key, err)
					}
				}
			}
			if _, err := f.Vault.Login(t.Context(), authType, role, token(a.Key.Name, "other")); err == nil {
				t.Error("another service account logged in")
			}
		})
	}
}

func TestPerNamespaceChecks(t *testing.T) {
	_, c, s := setup(t)
	s.PerNamespace, s.Accessor, s.Key.Mount = true, AccessorPlaceholder, namespacesMount
	if _, err := Compare(t.Context(), c, s); err == nil ||
		!strings.Contains(err.Error(), "AUTH-MOUNT-ACCESSOR is not one") {
		t.Errorf("the placeholder was compared: %v", err)
	}
	s.Accessor = "auth_kubernetes_1+"
	if err := s.Check(); err == nil || !strings.Contains(err.Error(), "accessor of the auth mount: ") {
		t.Errorf("a wildcard as accessor: %v", err)
	}
	s.Accessor, s.Key.Name = "auth_kubernetes_1", "other"
	if err := s.Check(); err == nil || !strings.Contains(err.Error(), "it must have the name of the app's namespace") {
		t.Errorf("a key of another name: %v", err)
	}
}

// TestPerNamespaceKeyOfAnotherTeam checks that the pods of a namespace cannot decrypt with
// a key of the same name that another team made. Its creator chooses the name of a
// namespace.
func TestPerNamespaceKeyOfAnotherTeam(t *testing.T) {
	f, c, s := setup(t)
	var err error
	if s.Accessor, err = Accessor(t.Context(), c, s.AuthMount); err != nil {
		t.Fatal(err)
	}
	otherTeam := s
	otherTeam.Key.Name = s.Key.Name + "-payments"
	otherTeam.App = &Grant{Account: Account{s.Key.Name, "payments"}}
	otherTeam.Author, otherTeam.Rotator = nil, nil
	apply(t, c, otherTeam)
	encrypted := ciphertextOf(f, otherTeam.Key)

	s.PerNamespace = true
	s.App = &Grant{Account: Account{s.Key.Name, "app"}, Role: s.Key.Name + "-apps"}
	s.Author, s.Rotator = nil, nil
	tryApply := func(mount string) {
		t.Helper()
		s.Key.Mount = mount
		changes, err := Compare(t.Context(), c, s)
		if err != nil {
			return
		}
		t.Errorf("one key per namespace in %s, which has other keys, is not rejected", mount)
		for _, ch := range changes {
			if err := ch.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustNotDecrypt := func() {
		t.Helper()
		auth, err := f.Vault.Login(t.Context(), "jwt", s.App.RoleName(),
			fixture.Issuer().Token(otherTeam.Key.Name, "app", "vault", time.Hour))
		if err != nil {
			return // no role, no access
		}
		_, err = f.Vault.Do(t.Context(), http.MethodPut, "transit/decrypt/"+otherTeam.Key.Name, auth.ClientToken, encrypted)
		if refused := (*testenv.VaultError)(nil); !errors.As(err, &refused) || refused.Status != http.StatusForbidden {
			t.Errorf("a pod of namespace %s decrypts with the key of another team: %v", otherTeam.Key.Name, err)
		}
	}
	tryApply("transit")
	mustNotDecrypt()

	s.Key.Mount = namespacesMount + "-" + s.Key.Name
	apply(t, c, s)
	mustNotDecrypt()
}

// perNamespaceSetup returns a setup for one key per namespace, in a mount of its own.
func perNamespaceSetup(t *testing.T) (*fixture.Transit, *api.Client, Setup) {
	t.Helper()
	f, c, s := setup(t)
	var err error
	s.Accessor, err = Accessor(t.Context(), c, s.AuthMount)
	f.Must(err)
	s.PerNamespace, s.Key.Mount = true, namespacesMount+"-"+s.Key.Name
	s.App.Role = s.Key.Name + "-apps"
	return f, c, s
}

// TestPerNamespaceOtherKeys checks that a mount with another key is not used for one key
// per namespace, also if the key was created later.
func TestPerNamespaceOtherKeys(t *testing.T) {
	f, c, s := perNamespaceSetup(t)
	refused := func(c *api.Client, want ...string) {
		t.Helper()
		_, err := Compare(t.Context(), c, s)
		for _, text := range want {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%q is not in %v", text, err)
			}
		}
	}
	f.Write("sys/mounts/"+s.Key.Mount, map[string]any{"type": "transit"})
	if _, err := Compare(t.Context(), c, s); err != nil {
		t.Fatalf("a mount without keys: %v", err)
	}
	// Including a key of this namespace that was made for another purpose.
	for _, name := range []string{s.Key.Name, "payments", "Payments"} {
		key := s.Key.Mount + "/keys/" + name
		f.Write(key, map[string]any{"derived": true})
		refused(c, s.Key.Mount+" holds keys that were not made for a namespace ("+name+")")
		f.Write(key+"/config", map[string]any{"deletion_allowed": true})
		if _, err := f.Vault.Do(t.Context(), http.MethodDelete, key, f.Vault.RootToken, nil); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, c, s)
	if got := changed(apply(t, c, s)); len(got) > 0 {
		t.Errorf("the second time: %v", got)
	}
	f.Write(s.Key.Mount+"/keys/payments", map[string]any{"derived": true})
	refused(c, "(payments)")

	// A token that cannot list the keys cannot check them.
	token := f.Token(`path "sys/*" { capabilities = ["read", "sudo"] }
		path "auth/*" { capabilities = ["read"] }
		path "` + s.Key.Mount + `/keys/+" { capabilities = ["read"] }`)
	refused(client(f, token), "holds only keys of namespaces, which needs list on "+s.Key.Mount+
		"/keys: HTTP 403")

	// The mount is not used for the key of one team.
	s.PerNamespace = false
	refused(c, "is reserved for one key per namespace")
}

// TestPerNamespaceOfTwoClusters checks that another auth mount cannot use the same transit
// mount: a namespace of the same name in another cluster has another owner.
func TestPerNamespaceOfTwoClusters(t *testing.T) {
	_, c, s := perNamespaceSetup(t)
	apply(t, c, s)
	s.AuthMount, s.AuthType = "kubernetes", AuthKubernetes
	var err error
	if s.Accessor, err = Accessor(t.Context(), c, s.AuthMount); err != nil {
		t.Fatal(err)
	}
	if _, err := Compare(t.Context(), c, s); err == nil || !strings.Contains(err.Error(), "has another owner") {
		t.Errorf("two auth mounts share the keys of one mount: %v", err)
	}
}

// TestPerNamespaceUserClaim checks that a role is rejected that maps two namespaces to one
// entity: each could decrypt with the key of the other.
func TestPerNamespaceUserClaim(t *testing.T) {
	f, c, s := perNamespaceSetup(t)
	f.Write("auth/jwt/role/"+s.App.Role, map[string]any{
		"role_type": "jwt", "user_claim": "iss", "bound_audiences": "vault",
		"bound_claims":   map[string]any{"/kubernetes.io/serviceaccount/name": "app"},
		"claim_mappings": map[string]any{"/kubernetes.io/namespace": namespaceMetadata},
	})
	if _, err := Compare(t.Context(), c, s); err == nil || !strings.Contains(err.Error(), "user_claim is") {
		t.Errorf("error %v", err)
	}
}

package vaultsetup

import (
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/test/testenv"

	"github.com/google/go-cmp/cmp"
)

// One policy and one role serve two namespaces: each app decrypts with the key of
// its own namespace and not with the other's, at both kinds of auth mount.
func TestPerNamespace(t *testing.T) {
	for _, authType := range []string{AuthJWT, AuthKubernetes} {
		t.Run(authType, func(t *testing.T) {
			v, c, s := setup(t)
			s.AuthMount, s.AuthType, s.PerNamespace = authType, authType, true
			token := func(namespace, account string) string {
				return issuer().Token(namespace, account, "vault", time.Hour)
			}
			if authType == AuthKubernetes {
				server := testenv.SharedAPIServer(t)
				if err := v.TrustAPIServer(t.Context(), "kubernetes", server, server.ReviewerToken(t)); err != nil {
					t.Fatal(err)
				}
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
			of := func(namespace string) Setup {
				one := s
				one.Key.Name, one.Author, one.Rotator = namespace, nil, nil
				one.App = &Grant{Account: Account{namespace, "app"}, Role: role}
				return one
			}
			a, b := of("a-"+base), of("b-"+base)
			apply(t, c, a)
			want := map[string]Outcome{
				"transit key transit/keys/" + b.Key.Name: Created,
				"policy " + b.authorPolicy().Name:        Created,
				"policy " + b.rotatorPolicy().Name:       Created,
			}
			if diff := cmp.Diff(want, only(apply(t, c, b))); diff != "" {
				t.Errorf("the second namespace, -want +got:\n%s", diff)
			}
			if got := only(apply(t, c, a)); len(got) > 0 {
				t.Errorf("the first one again: %v", got)
			}

			ciphertexts := map[string]map[string]any{}
			context := base64.StdEncoding.EncodeToString([]byte("strict:n/s/e"))
			for _, x := range []Setup{a, b} {
				data, err := v.Write(t.Context(), "transit/encrypt/"+x.Key.Name, map[string]any{"plaintext": "aHVudGVyMg==", "context": context})
				if err != nil {
					t.Fatal(err)
				}
				ciphertexts[x.Key.Name] = map[string]any{"ciphertext": data["ciphertext"], "context": context}
			}
			for _, own := range []Setup{a, b} {
				auth, err := v.Login(t.Context(), authType, role, token(own.Key.Name, "app"))
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(auth.Policies, []string{own.appPolicy().Name}) || auth.TokenType != "batch" {
					t.Errorf("%s got a token of type %s with policies %v", own.Key.Name, auth.TokenType, auth.Policies)
				}
				for _, key := range []string{a.Key.Name, b.Key.Name} {
					_, err := v.Do(t.Context(), http.MethodPut, "transit/decrypt/"+key, auth.ClientToken, ciphertexts[key])
					var refused *testenv.VaultError
					switch {
					case key == own.Key.Name && err != nil:
						t.Errorf("the app of %s cannot decrypt with its own key: %v", own.Key.Name, err)
					case key != own.Key.Name && (!errors.As(err, &refused) || refused.Status != http.StatusForbidden):
						t.Errorf("the app of %s with key %s: %v", own.Key.Name, key, err)
					}
				}
			}
			if _, err := v.Login(t.Context(), authType, role, token(a.Key.Name, "other")); err == nil {
				t.Error("another service account logged in")
			}
		})
	}
}

func TestPerNamespaceChecks(t *testing.T) {
	_, c, s := setup(t)
	s.PerNamespace, s.Accessor = true, AccessorPlaceholder
	if _, err := Compare(t.Context(), c, s); err == nil || !strings.Contains(err.Error(), "AUTH-MOUNT-ACCESSOR is not one") {
		t.Errorf("the placeholder was compared: %v", err)
	}
	s.Accessor = "auth_kubernetes_1+"
	if err := s.Check(); err == nil || !strings.Contains(err.Error(), "accessor of the auth mount: ") {
		t.Errorf("a wildcard as accessor: %v", err)
	}
	s.Accessor, s.Key.Name = "auth_kubernetes_1", "other"
	if err := s.Check(); err == nil || !strings.Contains(err.Error(), "it has the name of the app's namespace") {
		t.Errorf("a key of another name: %v", err)
	}
}

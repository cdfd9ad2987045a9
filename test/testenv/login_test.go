package testenv_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// checkRefused checks that err is Vault's refusal of a login.
func checkRefused(t *testing.T, err error) {
	t.Helper()
	var response *testenv.VaultError
	if !errors.As(err, &response) || response.Status < 400 || response.Status > 403 {
		t.Errorf("got %v, want a VaultError of status 400 to 403", err)
	}
}

func TestKubernetesLogin(t *testing.T) {
	v, s := testenv.SharedVault(t), testenv.SharedAPIServer(t)
	s.CreateServiceAccount(t, "kubernetes-login", "app")
	s.CreateServiceAccount(t, "kubernetes-login", "other")
	if err := v.TrustAPIServer(t.Context(), "kubernetes", s, s.ReviewerToken(t)); err != nil {
		t.Fatal(err)
	}
	if err := v.AllowLogin(t.Context(), testenv.Role{Namespace: "kubernetes-login", ServiceAccount: "app",
		Policies: []string{"app"}}); err != nil {
		t.Fatal(err)
	}
	token := func(name, audience string) string {
		return s.ServiceAccountToken(t, "kubernetes-login", name, audience, 10*time.Minute)
	}

	auth, err := v.Login(t.Context(), "kubernetes", "app", token("app", "vault"))
	if err != nil {
		t.Fatal(err)
	}
	checkAuth(t, auth, "kubernetes-login")

	t.Run("another service account", func(t *testing.T) {
		_, err := v.Login(t.Context(), "kubernetes", "app", token("other", "vault"))
		checkRefused(t, err)
	})
	t.Run("another audience", func(t *testing.T) {
		_, err := v.Login(t.Context(), "kubernetes", "app", token("app", ""))
		checkRefused(t, err)
	})
}

func TestJWTLogin(t *testing.T) {
	v := testenv.SharedVault(t)
	issuer, err := testenv.NewJWTIssuer()
	if err != nil {
		t.Fatal(err)
	}
	if err := v.TrustIssuer(t.Context(), "jwt", issuer); err != nil {
		t.Fatal(err)
	}
	role := testenv.Role{Mount: "jwt", Namespace: "jwt-login", ServiceAccount: "app", Policies: []string{"app"}}
	if err := v.AllowLogin(t.Context(), role); err != nil {
		t.Fatal(err)
	}

	auth, err := v.Login(t.Context(), "jwt", "app", issuer.Token("jwt-login", "app", "vault", time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	checkAuth(t, auth, "jwt-login")

	stranger, err := testenv.NewJWTIssuer()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, token string }{
		{"another service account", issuer.Token("jwt-login", "other", "vault", time.Hour)},
		{"another namespace", issuer.Token("elsewhere", "app", "vault", time.Hour)},
		{"another audience", issuer.Token("jwt-login", "app", "api", time.Hour)},
		{"expired", issuer.Token("jwt-login", "app", "vault", -time.Hour)},
		{"another issuer's key", stranger.Token("jwt-login", "app", "vault", time.Hour)},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := v.Login(t.Context(), "jwt", "app", test.token)
			checkRefused(t, err)
		})
	}
}

// checkAuth checks a successful login.
func checkAuth(t *testing.T, auth *testenv.VaultAuth, namespace string) {
	t.Helper()
	if auth.TokenType != "batch" || auth.ClientToken == "" {
		t.Errorf("the login gave a token of type %q, want a batch token", auth.TokenType)
	}
	if got := auth.Metadata["service_account_namespace"]; got != namespace {
		t.Errorf("the login's service_account_namespace is %q, want %q", got, namespace)
	}
	found := false
	for _, policy := range auth.Policies {
		found = found || policy == "app"
	}
	if !found {
		t.Errorf("the login's policies are %v, want app among them", auth.Policies)
	}
}

func TestAllowLoginRejectsIncompleteRole(t *testing.T) {
	v := testenv.SharedVault(t)
	if err := v.AllowLogin(t.Context(), testenv.Role{Namespace: "only"}); err == nil {
		t.Error("a role without a service account was made")
	}
	if err := v.AllowLogin(t.Context(), testenv.Role{Mount: "nowhere", Namespace: "n", ServiceAccount: "s"}); err == nil {
		t.Error("a role at a mount that is not there was made")
	}
	_, err := v.Do(t.Context(), http.MethodGet, "sys/mounts", "wrong", nil)
	checkRefused(t, err)
}

package vaultsetup

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/vault/api"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func client(f *fixture.Transit, token string) *api.Client {
	f.T.Helper()
	conf := api.DefaultConfig()
	conf.Address, conf.MaxRetries = f.Vault.Address, 0
	c, err := api.NewClient(conf)
	f.Must(err)
	c.SetToken(token)
	return c
}

// setup returns a unique setup of the shared Vault, for the jwt mount.
func setup(t *testing.T) (*fixture.Transit, *api.Client, Setup) {
	t.Helper()
	f := fixture.NewTransit(t)
	f.TrustIssuer()
	name := strings.ReplaceAll(f.Key, "-", "") // as the names of roles depend on hyphens
	s := Setup{
		Key: ciphertext.Key{Mount: "transit", Name: name}, AuthMount: "jwt", AuthType: AuthJWT, Audience: "vault",
		App:     &Grant{Account: Account{name, "app"}},
		Author:  &Grant{Account: Account{name, "author"}},
		Rotator: &Grant{Account: Account{name, "rotator"}, Role: name + "-rotator"},
	}
	return f, client(f, f.Vault.RootToken), s
}

// apply applies the setup and returns the outcomes by kind and name.
func apply(t *testing.T, c *api.Client, s Setup) map[string]Outcome {
	t.Helper()
	changes, err := Compare(t.Context(), c, s)
	if err != nil {
		t.Fatal(err)
	}
	outcomes := map[string]Outcome{}
	for _, ch := range changes {
		if err := ch.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		outcomes[ch.Kind+" "+ch.Name] = ch.Outcome
	}
	return outcomes
}

// changed returns the outcomes that are not Unchanged.
func changed(outcomes map[string]Outcome) map[string]Outcome {
	for what, o := range outcomes {
		if o == Unchanged {
			delete(outcomes, what)
		}
	}
	return outcomes
}

func TestApplyTwice(t *testing.T) {
	for _, authType := range []string{AuthJWT, AuthKubernetes} {
		t.Run(authType, func(t *testing.T) {
			_, c, s := setup(t)
			s.AuthMount, s.AuthType = authType, authType
			if got, err := AuthType(t.Context(), c, s.AuthMount); got != authType {
				t.Errorf("auth/%s is of type %q (%v)", s.AuthMount, got, err)
			}
			name, roles := s.Key.Name, "role auth/"+authType+"/role/"
			want := map[string]Outcome{
				"secrets engine transit":               Unchanged,
				"transit key transit/keys/" + name:     Created,
				"policy secretmanager-app-" + name:     Created,
				"policy secretmanager-author-" + name:  Created,
				"policy secretmanager-rotator-" + name: Created,
				roles + name + "-app":                  Created,
				roles + name + "-author":               Created,
				roles + name + "-rotator":              Created,
			}
			if diff := cmp.Diff(want, apply(t, c, s)); diff != "" {
				t.Errorf("the first time, -want +got:\n%s", diff)
			}
			if got := changed(apply(t, c, s)); len(got) > 0 {
				t.Errorf("the second time: %v", got)
			}
			s.Retire = true
			want = map[string]Outcome{"policy secretmanager-retire-" + name: Created, roles + name + "-rotator": Changed}
			if diff := cmp.Diff(want, changed(apply(t, c, s))); diff != "" {
				t.Errorf("with retire, -want +got:\n%s", diff)
			}
			if got := changed(apply(t, c, s)); len(got) > 0 {
				t.Errorf("the second time: %v", got)
			}
			s.Retire = false
			if got := changed(apply(t, c, s)); len(got) > 0 {
				t.Errorf("without retire: %v", got)
			}
		})
	}
}

// TestApplyAdds checks that existing settings of the key and policies of the role stay,
// including those of an administrator.
func TestApplyAdds(t *testing.T) {
	f, c, s := setup(t)
	ctx := t.Context()
	s.Key.Mount = "mounted-" + s.Key.Name
	if got := apply(t, c, s); got["secrets engine "+s.Key.Mount] != Created {
		t.Errorf("the engine was not enabled: %v", got)
	}
	f.Write(s.Key.String()+"/config", map[string]any{"deletion_allowed": true})
	role := "auth/jwt/role/" + s.Rotator.RoleName()
	f.Write(role, map[string]any{"role_type": "jwt", "bound_claims_type": "glob",
		"token_policies": []string{"of-another-key", s.rotatorPolicy().Name}, "token_ttl": "7m"})

	second := s
	second.Key.Name += "-2"
	want := map[string]Outcome{
		"transit key " + second.Key.String(): Created,
		"policy " + second.appPolicy().Name:  Created, "policy " + second.authorPolicy().Name: Created,
		"policy " + second.rotatorPolicy().Name:  Created,
		"role auth/jwt/role/" + s.App.RoleName(): Changed, "role auth/jwt/role/" + s.Author.RoleName(): Changed,
		"role " + role: Changed,
	}
	if diff := cmp.Diff(want, changed(apply(t, c, second))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	data, err := f.Vault.Read(ctx, role)
	if err != nil {
		t.Fatal(err)
	}
	wantPolicies := []any{"of-another-key", s.rotatorPolicy().Name, second.rotatorPolicy().Name}
	if diff := cmp.Diff(wantPolicies, data["token_policies"]); diff != "" {
		t.Errorf("policies, -want +got:\n%s", diff)
	}
	if fmt.Sprint(data["token_ttl"]) != "420" ||
		data["bound_subject"] != testenv.Subject(s.Rotator.Account.Namespace, "rotator") ||
		data["token_type"] != "batch" || data["bound_claims_type"] != "glob" {
		t.Errorf("role: %v", data)
	}
	if got := changed(apply(t, c, s)); len(got) > 0 {
		t.Errorf("the first key again: %v", got)
	}
	if key, err := f.Vault.Read(ctx, s.Key.String()); err != nil || !isTrue(key["deletion_allowed"]) {
		t.Errorf("the key was changed: %v, %v", key, err)
	}
}

// TestApplyFixesPolicy checks that an edited policy is restored.
func TestApplyFixesPolicy(t *testing.T) {
	f, c, s := setup(t)
	apply(t, c, s)
	p := s.appPolicy()
	f.Write("sys/policies/acl/"+p.Name,
		map[string]any{"policy": strings.Replace(p.HCL(), "decrypt", "encrypt", 1)})
	if diff := cmp.Diff(map[string]Outcome{"policy " + p.Name: Changed}, changed(apply(t, c, s))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := changed(apply(t, c, s)); len(got) > 0 {
		t.Errorf("the second time: %v", got)
	}
}

func TestCompareRefuses(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(s *Setup, write func(path string, data map[string]any))
		want    []string
	}{
		{"role of others", func(s *Setup, write func(string, map[string]any)) {
			write("auth/jwt/role/"+s.App.RoleName(),
				map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault",
					"bound_subject": "system:serviceaccount:other:app"})
		}, []string{"exists and is bound to others", "bound_subject", "choose another role name"}},
		{"role without audience", func(s *Setup, write func(string, map[string]any)) {
			s.AuthMount, s.AuthType = "kubernetes", AuthKubernetes
			write("auth/kubernetes/role/"+s.App.RoleName(),
				map[string]any{"bound_service_account_names": "app", "bound_service_account_namespaces": s.App.Account.Namespace})
		}, []string{"is bound to others", `audience is [] and not ["vault"]`}},
		{"role for more namespaces", func(s *Setup, write func(string, map[string]any)) {
			s.AuthMount, s.AuthType = "kubernetes", AuthKubernetes
			write("auth/kubernetes/role/"+s.App.RoleName(),
				map[string]any{"bound_service_account_names": "app", "bound_service_account_namespaces": "*", "audience": "vault"})
		}, []string{"is bound to others", `bound_service_account_namespaces is ["*"]`}},
		{"role for namespaces with a label", func(s *Setup, write func(string, map[string]any)) {
			s.AuthMount, s.AuthType = "kubernetes", AuthKubernetes
			write("auth/kubernetes/role/"+s.App.RoleName(),
				map[string]any{"bound_service_account_names": "app", "bound_service_account_namespaces": s.App.Account.Namespace,
					"bound_service_account_namespace_selector": `{"matchLabels":{"a":"b"}}`, "audience": "vault"})
		}, []string{"is bound to others", "bound_service_account_namespace_selector is"}},
		{"policy of others", func(s *Setup, write func(string, map[string]any)) {
			write("sys/policies/acl/"+s.appPolicy().Name, map[string]any{"policy": `path "other" { capabilities = ["read"] }`})
		}, []string{"has another owner"}},
		{"other engine", func(s *Setup, _ func(string, map[string]any)) { s.Key.Mount = "cubbyhole" },
			[]string{`cubbyhole is a secrets engine of type "cubbyhole", not transit`}},
		{"key that does not encrypt", func(s *Setup, write func(string, map[string]any)) {
			write(s.Key.String(), map[string]any{"type": "ed25519"})
		}, []string{"is a key of type ed25519, which does not encrypt"}},
		{"several at once", func(s *Setup, write func(string, map[string]any)) {
			write(s.Key.String(), map[string]any{"type": "ed25519"})
			write("sys/policies/acl/"+s.appPolicy().Name, map[string]any{"policy": `path "other" { capabilities = ["read"] }`})
		}, []string{"does not encrypt", "has another owner"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, c, s := setup(t)
			test.prepare(&s, f.Write)
			_, err := Compare(t.Context(), c, s)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %q", want, err)
				}
			}
		})
	}
	t.Run("token without rights", func(t *testing.T) {
		f, _, s := setup(t)
		token := f.Token(`path "secret/none" { capabilities = ["read"] }`)
		_, err := Compare(t.Context(), client(f, token), s)
		if err == nil || !strings.Contains(err.Error(), "HTTP 403") ||
			!strings.Contains(err.Error(), "check that the Vault token") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("no auth mount", func(t *testing.T) {
		_, c, _ := setup(t)
		if _, err := AuthType(t.Context(), c, "nowhere"); !errors.Is(err, ErrNoAuthMount) {
			t.Errorf("error %v", err)
		}
		if _, err := AuthType(t.Context(), c, "token"); err == nil || !strings.Contains(err.Error(), `of type "token"`) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("no Vault", func(t *testing.T) {
		f, _, s := setup(t)
		c := client(f, "root")
		if err := c.SetAddress("http://127.0.0.1:1"); err != nil {
			t.Fatal(err)
		}
		if _, err := Compare(t.Context(), c, s); !errors.Is(err, transit.ErrUnreachable) {
			t.Errorf("error %v", err)
		}
	})
}

func TestKeyThatIsNotDerived(t *testing.T) {
	f, c, s := setup(t)
	f.Write(s.Key.String(), map[string]any{})
	changes, err := Compare(t.Context(), c, s)
	if err != nil {
		t.Fatal(err)
	}
	for _, ch := range changes {
		if ch.Kind == "transit key" && (ch.Outcome != Unchanged || !strings.Contains(ch.Note, "not derived")) {
			t.Errorf("%+v", ch)
		}
	}
}

// login logs in as a pod does.
func login(f *fixture.Transit, g *Grant) *testenv.VaultAuth {
	f.T.Helper()
	token := fixture.Issuer().Token(g.Account.Namespace, g.Account.Name, "vault", time.Hour)
	auth, err := f.Vault.Login(f.T.Context(), "jwt", g.RoleName(), token)
	f.Must(err)
	return auth
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// TestOpenBao repeats TestLogins with OpenBao.
func TestOpenBao(t *testing.T) { t.Run("Logins", TestLogins) }

// TestLogins verifies that the rotator can log in at both kinds of auth mounts, with a token
// for the audience of the role, and not with another audience.
func TestLogins(t *testing.T) {
	f := newFixture(t)
	policy := f.Policy(`
		path "transit/keys/KEY"   { capabilities = ["read"] }
		path "transit/rewrap/KEY" { capabilities = ["update"] }`)
	f.TrustAPIServer()
	f.TrustIssuer()
	const namespace, own = rotator.DefaultStateNamespace, "https://vault.example"
	signed := map[string]func(audience string) string{
		"kubernetes": func(audience string) string {
			return f.API.ServiceAccountToken(t, namespace, "rotator", audience, time.Hour)
		},
		"jwt": func(audience string) string { return fixture.Issuer().Token(namespace, "rotator", audience, time.Hour) },
	}
	for mount, sign := range signed {
		for _, audience := range []string{"vault", own} {
			role := testenv.Role{Mount: mount, Name: f.Key, Namespace: namespace, ServiceAccount: "rotator",
				Audience: audience, Policies: []string{policy}}
			f.AllowLogin(role)
			for _, has := range []string{"vault", own} {
				file := filepath.Join(t.TempDir(), "token")
				if err := os.WriteFile(file, []byte(sign(has)), 0o600); err != nil {
					t.Fatal(err)
				}
				code, _, stderr := call(t.Context(), nil, "--kubeconfig="+f.API.Kubeconfig, "--vault-addr="+f.Vault.Address,
					"--transit-key="+f.Key, "--dry-run",
					"--vault-role="+f.Key, "--vault-auth-mount="+mount, "--vault-token-file="+file)
				switch {
				case has == audience && code != 0:
					t.Errorf("%s with audience %s: code %d, %s", mount, has, code, stderr)
				case has != audience && (code != 1 || !strings.Contains(stderr, `role \"`+f.Key+`\" of auth/`+mount) ||
					!strings.Contains(stderr, "audience")):
					t.Errorf("%s with audience %s instead of %s: code %d, %s", mount, has, audience, code, stderr)
				}
			}
		}
	}
}

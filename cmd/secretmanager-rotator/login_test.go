package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// TestOpenBao repeats TestLogins with OpenBao.
func TestOpenBao(t *testing.T) { t.Run("Logins", TestLogins) }

// TestLogins verifies that the rotator can log in at both kinds of auth mounts, with a token
// for the audience of the role, and not with another audience.
func TestLogins(t *testing.T) {
	vault, api := testenv.SharedVault(t), testenv.SharedAPIServer(t)
	api.CreateServiceAccount(t, rotator.DefaultStateNamespace, "rotator")
	if err := api.CreateRotatorState(t.Context(), rotator.DefaultStateNamespace); err != nil {
		t.Fatal(err)
	}
	issuer, err := testenv.NewJWTIssuer()
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string]map[string]any{
		"transit/keys/logins": {"derived": true},
		"sys/policies/acl/logins": {"policy": `
			path "transit/keys/logins"   { capabilities = ["read"] }
			path "transit/rewrap/logins" { capabilities = ["update"] }`},
	} {
		if _, err := vault.Write(t.Context(), path, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := vault.TrustAPIServer(t.Context(), "kubernetes", api, api.ReviewerToken(t)); err != nil {
		t.Fatal(err)
	}
	if err := vault.TrustIssuer(t.Context(), "jwt", issuer); err != nil {
		t.Fatal(err)
	}
	const namespace, own = rotator.DefaultStateNamespace, "https://vault.example"
	signed := map[string]func(audience string) string{
		"kubernetes": func(audience string) string {
			return api.ServiceAccountToken(t, namespace, "rotator", audience, time.Hour)
		},
		"jwt": func(audience string) string { return issuer.Token(namespace, "rotator", audience, time.Hour) },
	}
	for mount, sign := range signed {
		for _, audience := range []string{"vault", own} {
			role := testenv.Role{Mount: mount, Name: "logins", Namespace: namespace, ServiceAccount: "rotator",
				Audience: audience, Policies: []string{"logins"}}
			if err := vault.AllowLogin(t.Context(), role); err != nil {
				t.Fatal(err)
			}
			for _, has := range []string{"vault", own} {
				file := filepath.Join(t.TempDir(), "token")
				if err := os.WriteFile(file, []byte(sign(has)), 0o600); err != nil {
					t.Fatal(err)
				}
				code, _, stderr := call(t.Context(), nil, "--kubeconfig="+api.Kubeconfig, "--vault-addr="+vault.Address,
					"--transit-key=logins", "--dry-run",
					"--vault-role=logins", "--vault-auth-mount="+mount, "--vault-token-file="+file)
				switch {
				case has == audience && code != 0:
					t.Errorf("%s with audience %s: code %d, %s", mount, has, code, stderr)
				case has != audience && (code != 1 || !strings.Contains(stderr, `role \"logins\" of auth/`+mount) ||
					!strings.Contains(stderr, "audience")):
					t.Errorf("%s with audience %s instead of %s: code %d, %s", mount, has, audience, code, stderr)
				}
			}
		}
	}
}

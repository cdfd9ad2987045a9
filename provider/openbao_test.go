package provider

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/status"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestOpenBao repeats other tests with OpenBao: kubernetes and jwt logins, the expiry of
// a token, and errors of a key.
func TestOpenBao(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"MountFromKubelet":        TestMountFromKubelet,
		"MountAsPod":              TestMountAsPod,
		"Scopes":                  TestScopes,
		"OneLoginOneBatch":        TestOneLoginOneBatch,
		"VaultTokenIsShared":      TestVaultTokenIsShared,
		"VaultTokenThatIsGone":    TestRevokedVaultToken,
		"VaultTokenOfFewUses":     TestVaultTokenOfFewUses,
		"VaultRestarted":          TestVaultRestarted,
		"MendedRole":              TestFixedRole,
		"LoginRefusedInTheMiddle": TestLoginRefusedAfterExpiry,
		"Failures": func(t *testing.T) {
			e := newFailureEnv(t)
			e.run(t, e.vaultFailures(t))
		},
		"SealedVault":              TestSealedVault,
		"VaultTokenOfAnother":      TestVaultTokenOfAnotherToken,
		"AudienceThatIsNotAllowed": TestAudience,
	} {
		t.Run(name, test)
	}
}

// TestOpenBaoNamespaces: OpenBao has the namespaces of Vault Enterprise. Mounts, roles
// and keys of the same name in two namespaces are different.
func TestOpenBaoNamespaces(t *testing.T) {
	e := newEnv(t) // in the root namespace
	v, c := e.Vault, counting(t, e)
	all := func(c *Config) {
		c.AllowedNamespaces = []string{e.namespace, e.namespace + "/sub", e.namespace + "/none"}
	}
	s := serve(t, c.address, cached, all)
	entries := map[string]map[string]string{"": e.entries(t, "of the root")}
	client, err := transit.NewClient(transit.Config{Address: v.Address})
	if err != nil {
		t.Fatal(err)
	}
	// The outer namespace has a unique name, and all names inside the namespaces are the same.
	top := e.namespace
	for _, namespace := range []string{top, top + "/sub"} {
		at := func(path string) string { return namespace + "/" + path }
		parent, child := "", namespace
		if namespace != top {
			parent, child = top+"/", "sub"
		}
		e.Write(parent+"sys/namespaces/"+child, map[string]any{})
		e.Write(at("sys/mounts/transit"), map[string]any{"type": "transit"})
		e.Write(at("sys/auth/jwt"), map[string]any{"type": "jwt"})
		e.Write(at("transit/keys/"+e.key.Name), map[string]any{"derived": true})
		e.Write(at("sys/policies/acl/"+e.policy),
			map[string]any{"policy": fmt.Sprintf(`path "transit/decrypt/%s" { capabilities = ["update"] }`, e.key.Name)})
		e.Write(at("auth/jwt/config"), map[string]any{"jwt_validation_pubkeys": []string{fixture.Issuer().PublicKeyPEM()},
			"bound_issuer": fixture.Issuer().Issuer})
		e.Write(at("auth/jwt/role/"+e.namespace), map[string]any{
			"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": e.policy,
			"token_type":    "batch",
			"bound_subject": testenv.Subject(e.namespace, "app"), "token_ttl": "20m",
		})
		results, err := client.Session(namespace, transit.StaticToken(v.RootToken)).Encrypt(t.Context(), e.key,
			[]transit.Item{{Data: []byte("of " + namespace), Context: ciphertext.Strict.Context(e.namespace, "matrix", "x")}})
		if err != nil {
			t.Fatal(err)
		}
		entries[namespace] = map[string]string{"x": string(results[0].Data)}
	}

	logins := 0
	for _, namespace := range []string{"", top, top + "/sub"} {
		want := "of " + namespace
		if namespace == "" {
			want = "of the root"
		}
		for range 2 {
			params := e.params("vaultNamespace", namespace, class.AttributePodUID,
				"uid-"+strings.ReplaceAll(namespace, "/", "-"))
			resp, err := s.Mount(t.Context(), mountRequest(params, entries[namespace]))
			if diff := cmp.Diff(map[string]file{"x": {0o644, want}}, filesOf(resp)); err != nil || diff != "" {
				t.Errorf("in %q: %v\n%s", namespace, err, diff)
			}
		}
		logins++
		c.want(t, "each namespace has a Vault token of its own", logins, logins)
	}
	// The flag applies to classes that set no namespace.
	byFlag := serve(t, v.Address, all, func(c *Config) { c.VaultNamespace = top + "/sub" })
	byFlag.mountOne(t, e.params(), entries[top+"/sub"], "of "+top+"/sub")
	byFlag.mountOne(t, e.params("vaultNamespace", top+"/"), entries[top], "of "+top)

	// The same volume with ciphertext of another namespace's key.
	for _, other := range []string{"", top + "/sub"} {
		_, err := s.Mount(t.Context(), mountRequest(e.params("vaultNamespace", top), entries[other]))
		wantError(t, err, failure.CiphertextMismatch, "cannot be decrypted")
	}
	_, err = s.Mount(t.Context(), mountRequest(e.params("vaultNamespace", top+"/none"), maps.Clone(entries[top])))
	wantTexts(t, err.Error(), "in Vault namespace "+top+"/none")
	if !failure.IsFinal(status.Code(err)) {
		t.Error(err)
	}
}

// TestAudience verifies that the token must have the audience of the role, and that
// the class selects the pod's token by its audience.
func TestAudience(t *testing.T) {
	e := newEnv(t)
	kube := e.withAPIServer()
	kube.TrustAPIServer()
	own := "https://vault." + e.namespace
	for _, mount := range []string{"kubernetes", "jwt"} {
		e.allowLogin(testenv.Role{Mount: mount, Audience: own})
	}
	s := serve(t, e.Vault.Address)
	entries := e.entries(t, "v")
	_, uid := kube.API.PodToken(t, e.namespace, "app-0", "app", "", time.Hour)
	for mount, signed := range map[string]func(audience string) string{
		"kubernetes": func(audience string) string {
			jwt, _ := kube.API.PodToken(t, e.namespace, "app-0", "app", audience, time.Hour)
			return jwt
		},
		"jwt": func(audience string) string {
			return fixture.Issuer().PodToken(e.namespace, "app-0", uid, "app", audience, time.Hour)
		},
	} {
		t.Run(mount, func(t *testing.T) {
			both := tokensJSON(map[string]token{"vault": {signed("vault"), time.Time{}}, own: {signed(own), time.Time{}}})
			s.mountOne(t, e.params("vaultAuthMountPath", mount, class.AttributePodUID, uid, "audience", own,
				class.AttributeTokens, both), entries, "v")
			byFlag := serve(t, e.Vault.Address, func(c *Config) { c.Audience = own })
			byFlag.mountOne(t, e.params("vaultAuthMountPath", mount, class.AttributePodUID, uid, class.AttributeTokens,
				both), entries, "v")
			_, err := s.Mount(t.Context(),
				mountRequest(e.params("vaultAuthMountPath", mount, class.AttributePodUID, uid, class.AttributeTokens,
					both), entries))
			wantError(t, err, failure.LoginDenied, "auth/"+mount, `(audience "vault")`, "audience")
			_, err = s.Mount(t.Context(),
				mountRequest(e.params("vaultAuthMountPath", mount, class.AttributePodUID, uid, "audience", "other",
					class.AttributeTokens, both), entries))
			wantError(t, err, failure.TokenMissing, `audience "other"`, own, "- audience: other")
		})
	}
}

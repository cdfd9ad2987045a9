package vaultsetup

import (
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// words returns the words of up to n letters of an alphabet.
func words(alphabet string, n int) []string {
	all, longest := []string{}, []string{""}
	for range n {
		var longer []string
		for _, w := range longest {
			for _, r := range alphabet {
				longer = append(longer, w+string(r))
			}
		}
		all, longest = append(all, longer...), longer
	}
	return all
}

// TestNamesAreDistinct checks all pairs of short names: different accounts never share a
// role, and different keys never a policy.
func TestNamesAreDistinct(t *testing.T) {
	named := map[string]string{}
	distinct := func(name, what string) {
		t.Helper()
		// Vault compares names of policies, and of roles of kubernetes mounts, in lower case.
		name = strings.ToLower(name)
		if other, taken := named[name]; taken && other != what {
			t.Errorf("%s and %s are both %s", other, what, name)
		}
		named[name] = what
	}
	for _, namespace := range append(words("a-b", 4), "namespaces", "per-namespace") {
		for _, name := range words("a-.", 4) {
			account := Account{namespace, name}
			if account.check() != nil {
				continue
			}
			distinct(account.RoleName(), "account "+account.String())
			distinct(NamespacesRoleName(name), "every account "+name)
			if err := ciphertext.CheckName(account.RoleName()); err != nil {
				t.Errorf("no class can name role %s: %v", account.RoleName(), err)
			}
		}
	}
	if len(named) < 500 {
		t.Fatalf("only %d roles", len(named))
	}
	clear(named)
	for _, mount := range append(words("aA-/", 4), ciphertext.DefaultTransitMount, "transit-namespaces",
		"transit/namespaces") {
		if checkMount(mount) != nil {
			continue
		}
		for _, name := range append(words("aA-.", 3), mount) {
			key := ciphertext.Key{Mount: mount, Name: name}
			for _, who := range []string{"app", "author", "rotator", "retire", "trim"} {
				if checkPart(name) == nil {
					distinct(policyName(who, key), who+" of "+key.String())
				}
			}
		}
		s := Setup{Key: ciphertext.Key{Mount: mount}, AuthMount: "kubernetes", PerNamespace: true}
		distinct(s.appPolicy().Name, "policy of all namespaces for "+mount)
		distinct(s.patternsPolicy().Name, "policy to list the keys of "+mount)
	}
	if len(named) < 5000 {
		t.Fatalf("only %d policies", len(named))
	}
}

func TestNames(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{Account{"demo", "matrix"}.RoleName(), "demo-matrix"},
		{Account{"demo", "matrix-api"}.RoleName(), "demo-matrix-api"},
		{Account{"team-a", "matrix"}.RoleName(), "team-a_matrix"},
		{NamespacesRoleName("app"), "namespaces_app"},
		{ClassRoleName(Account{"demo", "app"}, ciphertext.Key{Mount: "transit", Name: "demo"}), "demo-app"},
		{ClassRoleName(Account{"demo", "app"}, ciphertext.Key{Mount: "transit-namespaces", Name: "demo"}), "namespaces_app"},
		{policyName("app", ciphertext.Key{Mount: "transit", Name: "matrix"}), "secretmanager-app-matrix"},
		{policyName("app", ciphertext.Key{Mount: "transit", Name: "Matrix"}), "secretmanager-app-~matrix"},
		{policyName("app", ciphertext.Key{Mount: "teams/a", Name: "matrix"}), "secretmanager-app-teams/a/matrix"},
		{NamespacesMount("kubernetes"), "transit-namespaces"},
		{NamespacesMount("clusters/eu"), "transit-namespaces-clusters/eu"},
	} {
		if test.got != test.want {
			t.Errorf("%s, not %s", test.got, test.want)
		}
	}
	for mount, want := range map[string]bool{
		"transit": false, "transit-namespaces": true, "transit-namespaces-eu/1": true, "team/transit-namespaces": true,
		"namespaces": false,
	} {
		if IsNamespacesMount(mount) != want {
			t.Errorf("%s is reserved: %v", mount, !want)
		}
	}
	s := example()
	s.App.Role = "Demo-matrix"
	if err := s.Check(); err == nil ||
		!strings.Contains(err.Error(), `app role: "Demo-matrix" has upper case letters`) {
		t.Errorf("a role in upper case: %v", err)
	}
}

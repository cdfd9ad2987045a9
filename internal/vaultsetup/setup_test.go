package vaultsetup

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

var updateManifests = flag.Bool("update", false, "write manifests/vault instead of comparing with it")

func example() Setup {
	return Setup{
		Key:       ciphertext.Key{Mount: "transit", Name: "matrix"},
		AuthMount: "kubernetes", AuthType: AuthKubernetes, Audience: "vault",
		App:     &Grant{Account: Account{"demo", "matrix"}},
		Author:  &Grant{Account: Account{"ci", "deployer"}},
		Rotator: &Grant{Account: Account{"secretmanager-system", "secretmanager-rotator"}, Role: "secretmanager-rotator"},
		Retire:  true, Trim: true, Patterns: true,
	}
}

// TestManifestsAreCurrent compares the policies in manifests/vault, for users who keep them
// in Git.
func TestManifestsAreCurrent(t *testing.T) {
	dir := filepath.Join("..", "..", "manifests", "vault")
	want := map[string]bool{}
	for _, p := range example().Policies() {
		file := filepath.Join(dir, strings.TrimSuffix(strings.TrimPrefix(p.Name, "secretmanager-"), "-matrix")+".hcl")
		want[file] = true
		if *updateManifests {
			if err := os.WriteFile(file, []byte(p.HCL()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != p.HCL() {
			t.Errorf("%s differs from policy %s: go test ./internal/vaultsetup -update", file, p.Name)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !want[file] {
			t.Errorf("%s belongs to no policy", file)
		}
	}
}

func TestCheck(t *testing.T) {
	if err := example().Check(); err != nil {
		t.Fatalf("the example: %v", err)
	}
	for _, test := range []struct {
		name   string
		change func(*Setup)
		want   []string
	}{
		{"no key", func(s *Setup) { s.Key.Name = "" }, []string{"transit key: it is empty"}},
		// Each of these would grant more than the one key.
		{"glob in key", func(s *Setup) { s.Key.Name = "matrix*" }, []string{`transit key: "matrix*" must consist of`}},
		{"wildcard in mount", func(s *Setup) { s.Key.Mount = "team/+" }, []string{`transit mount: "+" must consist of`}},
		{"template in key", func(s *Setup) { s.Key.Name = "{{identity.entity.id}}" }, []string{"transit key: "}},
		{"quote in mount", func(s *Setup) { s.Key.Mount = `a" {} path "*` }, []string{"transit mount: "}},
		{"path in key", func(s *Setup) { s.Key.Name = "a/config" }, []string{"transit key: "}},
		{"key that is no label", func(s *Setup) { s.Key.Name = strings.Repeat("k", 64) },
			[]string{"cannot be the value of label secretmanager.io/transit-key"}},
		{"dots in auth mount", func(s *Setup) { s.AuthMount = "../sys" }, []string{"auth mount: "}},
		{"kind of auth mount", func(s *Setup) { s.AuthType = "approle" },
			[]string{`auth type: "approle" is neither kubernetes nor jwt`}},
		{"no audience", func(s *Setup) { s.Audience = "" }, []string{"audience: it is empty"}},
		{"star as service account", func(s *Setup) { s.App.Account = Account{"*", "*"} },
			[]string{`app: namespace "*"`, `service account "*"`}},
		{"one role for two", func(s *Setup) { s.App.Role = "secretmanager-rotator" },
			[]string{`rotator role: "secretmanager-rotator" is already the app role`}},
		{"several at once", func(s *Setup) { s.Key.Name, s.Audience, s.Author.Role = "", "", "a/b" },
			[]string{"transit key", "audience", "author role"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := example()
			test.change(&s)
			err := s.Check()
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
}

func TestParseAccount(t *testing.T) {
	if a, err := ParseAccount("ci/deployer"); err != nil || a != (Account{"ci", "deployer"}) {
		t.Errorf("%v, %v", a, err)
	}
	for _, bad := range []string{"", "deployer", "ci/", "/deployer", "CI/deployer", "ci/*", "a/b/c"} {
		if a, err := ParseAccount(bad); err == nil {
			t.Errorf("%q is %v", bad, a)
		}
	}
}

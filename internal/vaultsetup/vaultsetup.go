// Package vaultsetup has the configuration of Vault that SecretManager needs: a derived
// transit key, its policies, and the roles that grant them to service accounts. A
// [Setup] is written as vault commands ([Setup.WriteCommands]), written for Terraform
// ([Setup.WriteTerraform]), or applied to a Vault ([Compare]).
//
// The policies of a key separate its rights. Readers of Secrets can decrypt and nothing
// else. Authors can encrypt and cannot decrypt. The rotator rotates the key and rewraps
// ciphertext and never sees plaintext. Retiring key versions, which makes ciphertext
// unreadable, is a separate policy. So is deleting them, which only people do.
package vaultsetup

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// The types of auth mounts for service accounts.
const (
	AuthKubernetes = "kubernetes" // lets the API server review each token
	AuthJWT        = "jwt"        // verifies the signature of the token
)

// Account is a Kubernetes service account.
type Account struct {
	Namespace string
	Name      string
}

// String returns NAMESPACE/NAME.
func (a Account) String() string { return a.Namespace + "/" + a.Name }

// ParseAccount parses NAMESPACE/NAME.
func ParseAccount(s string) (Account, error) {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok {
		return Account{}, fmt.Errorf("%q is not of the form NAMESPACE/NAME", s)
	}
	a := Account{namespace, name}
	return a, a.check()
}

func (a Account) check() error {
	var errs []error
	for _, problem := range validation.IsDNS1123Label(a.Namespace) {
		errs = append(errs, fmt.Errorf("namespace %q: %s", a.Namespace, problem))
	}
	for _, problem := range validation.IsDNS1123Subdomain(a.Name) {
		errs = append(errs, fmt.Errorf("service account %q: %s", a.Name, problem))
	}
	return errors.Join(errs...)
}

// Grant lets a service account log in through a role.
type Grant struct {
	Account Account
	Role    string // default: [Account.RoleName]
}

// RoleName returns the name of the role.
func (g Grant) RoleName() string {
	if g.Role != "" {
		return g.Role
	}
	return g.Account.RoleName()
}

// Setup is the configuration of Vault for one transit key.
type Setup struct {
	Key       ciphertext.Key
	AuthMount string // path below auth/
	AuthType  string // AuthKubernetes or AuthJWT
	Audience  string // required audience of the service account tokens; never empty

	App     *Grant // reads the Secrets
	Author  *Grant // writes the Secrets
	Rotator *Grant // rotates; several keys may share its role
	Retire  bool   // the rotator may retire old key versions
	// Patterns lets the rotator list the keys of the mount, among which it finds those that
	// match a pattern of its --transit-key. It needs the policies of each of these keys too.
	Patterns bool
	Trim     bool // also the policy of the person who deletes retired key versions, which no role gets

	// PerNamespace gives the apps of all namespaces the same policy and role, which
	// allow each to decrypt with the key that has the name of its namespace. The key of
	// the setup is that of the app's namespace, in a mount for such keys only: see
	// [IsNamespacesMount].
	PerNamespace bool
	Accessor     string // of the auth mount, for PerNamespace; see [Accessor]
}

// AccessorPlaceholder is printed instead of the accessor of the auth mount if it is not
// known. It is never applied.
const AccessorPlaceholder = "AUTH-MOUNT-ACCESSOR"

// plain matches a part of a path without the characters that have a meaning in a policy
// ("*", "+", "{{").
var plain = regexp.MustCompile(`^\w([\w.-]*\w)?$`)

// Check reports whether the setup is valid. The error joins all problems.
func (s Setup) Check() error {
	var errs []error
	add := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	add("transit key", checkPart(s.Key.Name))
	if problems := validation.IsValidLabelValue(s.Key.Name); len(problems) > 0 {
		add("transit key", fmt.Errorf("%q cannot be the value of label %s: %s", s.Key.Name, ciphertext.LabelTransitKey,
			problems[0]))
	}
	add("transit mount", checkMount(s.Key.Mount))
	add("auth mount", checkMount(s.AuthMount))
	if s.AuthType != AuthKubernetes && s.AuthType != AuthJWT {
		add("auth type", fmt.Errorf("%q is neither %s nor %s", s.AuthType, AuthKubernetes, AuthJWT))
	}
	if s.Audience == "" {
		add("audience", errors.New("it is empty: the role would accept service account tokens for any audience"))
	}
	if s.PerNamespace {
		if s.App == nil || s.App.Account.Namespace != s.Key.Name {
			add("transit key", errors.New("with one key per namespace it must have the name of the app's namespace"))
		}
		add("accessor of the auth mount", checkPart(s.Accessor))
	}
	switch reserved := IsNamespacesMount(s.Key.Mount); {
	case s.PerNamespace && !reserved:
		add("transit mount", fmt.Errorf("%q may hold keys of other teams, and the owner of a namespace with the name of "+
			"a key would decrypt with that key: with one key per namespace use a separate mount, whose name begins with %s",
			s.Key.Mount, namespacesMount))
	case !s.PerNamespace && reserved:
		add("transit mount", fmt.Errorf("%q is reserved for one key per namespace: every pod of a namespace with the name "+
			"of a key may decrypt with that key. Use --per-namespace or another mount", s.Key.Mount))
	}
	roles := map[string]string{}
	for _, r := range []struct {
		what  string
		grant *Grant
	}{{"app", s.App}, {"author", s.Author}, {"rotator", s.Rotator}} {
		if r.grant == nil {
			continue
		}
		add(r.what, r.grant.Account.check())
		name := r.grant.RoleName()
		add(r.what+" role", checkRoleName(name))
		if other, taken := roles[name]; taken {
			add(r.what+" role", fmt.Errorf("%q is already the %s role: a shared role would have the rights of both", name,
				other))
		}
		roles[name] = r.what
	}
	return errors.Join(errs...)
}

func checkPart(s string) error {
	if s == "" {
		return errors.New("it is empty")
	}
	if !plain.MatchString(s) {
		return fmt.Errorf("%q must consist of letters, digits, and _ . - between them", s)
	}
	return nil
}

// checkRoleName rejects upper case: a kubernetes auth mount stores role names in lower
// case, so the name could be that of another role.
func checkRoleName(s string) error {
	if s != strings.ToLower(s) {
		return fmt.Errorf("%q has upper case letters, which Vault does not distinguish from lower case ones", s)
	}
	return checkPart(s)
}

func checkMount(s string) error {
	if err := ciphertext.CheckPath(s); err != nil {
		return err
	}
	for part := range strings.SplitSeq(s, "/") {
		if err := checkPart(part); err != nil {
			return err
		}
	}
	return nil
}

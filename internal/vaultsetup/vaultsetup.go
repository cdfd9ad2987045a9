// Package vaultsetup knows what SecretManager needs of a Vault: a derived
// transit key, the policies around it, and the roles through which service
// accounts get them. [Setup] is that as data. It is shown to people as policies
// and vault commands ([Setup.WriteCommands]) or put into a Vault ([Compare]).
//
// There are four policies to a key, and no two of them share a right that
// matters: whoever reads Secrets can decrypt and nothing else; whoever writes
// them can encrypt and cannot read back; the rotator renews both key and
// ciphertext and never sees plaintext; and raising the oldest version that
// still decrypts, which makes ciphertext unreadable, is a policy of its own.
package vaultsetup

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// The kinds of auth mount that log a service account in.
const (
	AuthKubernetes = "kubernetes" // asks the API server about each token
	AuthJWT        = "jwt"        // checks the token's signature by itself
)

// Account is a Kubernetes service account.
type Account struct {
	Namespace string
	Name      string
}

// String returns it as NAMESPACE/NAME.
func (a Account) String() string { return a.Namespace + "/" + a.Name }

// ParseAccount reads NAMESPACE/NAME.
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

// Setup is everything that one transit key needs.
type Setup struct {
	Key       ciphertext.Key
	AuthMount string // path below auth/
	AuthType  string // AuthKubernetes or AuthJWT
	Audience  string // that the service-account tokens must be made for; never empty

	App     *Grant // who reads the Secrets
	Author  *Grant // who writes them
	Rotator *Grant // who rotates; its role may be shared by several keys
	Retire  bool   // whether the rotator may also retire old key versions
	Trim    bool   // and delete them

	// PerNamespace gives the app of every namespace the same policy and role, by
	// which it can decrypt with the key of its own namespace's name and no other.
	// The key of this setup is then that of the app's namespace, in a mount that
	// holds only such keys: see [IsNamespacesMount].
	PerNamespace bool
	Accessor     string // of the auth mount, for PerNamespace; see [Accessor]
}

// AccessorPlaceholder stands in what is printed where the accessor of the auth
// mount is not known. It is never applied.
const AccessorPlaceholder = "AUTH-MOUNT-ACCESSOR"

// What Vault takes as a part of a path. A policy gives the characters that are
// left out here ("*", "+", "{{") a meaning.
var plain = regexp.MustCompile(`^\w([\w.-]*\w)?$`)

// Check reports all that is wrong with the setup, joined.
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
		add("audience", errors.New("it is empty: the role would take any service-account token, also those made for others"))
	}
	if s.PerNamespace {
		if s.App == nil || s.App.Account.Namespace != s.Key.Name {
			add("transit key", errors.New("with one key per namespace it has the name of the app's namespace"))
		}
		add("accessor of the auth mount", checkPart(s.Accessor))
	}
	switch reserved := IsNamespacesMount(s.Key.Mount); {
	case s.PerNamespace && !reserved:
		add("transit mount",
			fmt.Errorf("%q may hold keys of other teams, and the owner of a namespace with the name of a key "+
				"would decrypt with that key: with one key per namespace use a mount of its own, whose name begins with %s", s.Key.Mount, namespacesMount))
	case !s.PerNamespace && reserved:
		add("transit mount",
			fmt.Errorf("%q is reserved for one key per namespace: every pod of a namespace with the name of a key "+
				"may decrypt with that key. Use --per-namespace or another mount", s.Key.Mount))
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
			add(r.what+" role",
				fmt.Errorf("%q is the %s role already: one role for both would join rights that are apart for a reason",
					name, other))
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
		return fmt.Errorf("%q is not made of letters, digits, and _ . - between them", s)
	}
	return nil
}

// checkRoleName refuses upper case: a kubernetes auth mount stores the role in
// lower case, where it may be the role of others.
func checkRoleName(s string) error {
	if s != strings.ToLower(s) {
		return fmt.Errorf("%q has letters in upper case, which Vault does not tell from those in lower case", s)
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

package vaultsetup

import (
	"slices"
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// All namespaces and keys share the roles of an auth mount and the policies of a Vault.
// Different accounts or keys must never have the same name, or a change for one of them
// would grant rights to the other. TestNamesAreDistinct tests this.

// RoleName returns the name of the account's role: NAMESPACE-NAME, or NAMESPACE_NAME if
// the namespace has a hyphen.
//
// Neither part can contain "_". So a name with "_" splits there, and any other name at
// its first hyphen.
func (a Account) RoleName() string {
	if strings.Contains(a.Namespace, "-") {
		return a.Namespace + "_" + a.Name
	}
	return a.Namespace + "-" + a.Name
}

// NamespacesRoleName returns the name of the role that the service accounts of one name
// share in all namespaces. It is never that of an [Account], which has a hyphen before
// "_".
func NamespacesRoleName(serviceAccount string) string { return "namespaces_" + serviceAccount }

// namespacesMount begins the names of the transit mounts with one key per namespace.
const namespacesMount = "transit-namespaces"

// NamespacesMount returns the transit mount with one key for each namespace of the
// cluster that logs in at an auth mount.
func NamespacesMount(authMount string) string {
	if authMount == AuthKubernetes {
		return namespacesMount
	}
	return namespacesMount + "-" + authMount
}

// IsNamespacesMount reports whether a transit mount is reserved for one key per
// namespace: a part of its path begins with transit-namespaces. The name of a key in such
// a mount determines the namespace that decrypts with it, so the mount must not hold
// other keys. The rule depends on the name, as programs without access to Vault use it.
func IsNamespacesMount(mount string) bool {
	return slices.ContainsFunc(strings.Split(mount, "/"), func(part string) bool {
		return strings.HasPrefix(part, namespacesMount)
	})
}

// ClassRoleName returns the default role for a SecretProviderClass of the account that
// decrypts with the key.
func ClassRoleName(account Account, key ciphertext.Key) string {
	if IsNamespacesMount(key.Mount) && key.Name == account.Namespace {
		return NamespacesRoleName(account.Name)
	}
	return account.RoleName()
}

// policyName returns the name of a policy for a key: secretmanager-WHO-KEY, or
// secretmanager-WHO-MOUNT/KEY for a key outside the default mount. A key cannot contain
// a slash, and WHO is one word.
func policyName(who string, key ciphertext.Key) string {
	name := key.Name
	if key.Mount != ciphertext.DefaultTransitMount {
		name = key.Mount + "/" + name
	}
	return "secretmanager-" + who + "-" + lower(name)
}

// lower returns a name in lower case, in which Vault stores the names of policies, with
// "~" before each upper case letter. Names of mounts and keys cannot contain "~".
func lower(name string) string {
	var b strings.Builder
	for _, r := range name {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('~')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

package vaultsetup

import (
	"slices"
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// The roles of an auth mount and the policies of a Vault are shared by all
// namespaces and keys. Two that differ must never get one name, or what is done
// for one of them gives rights to the other. That is what the names in this file
// ensure; TestNamesAreDistinct tests it.

// RoleName returns the name of the account's role: NAMESPACE-NAME, and
// NAMESPACE_NAME where the namespace itself has a hyphen.
//
// Neither part can contain "_". So a name with "_" divides there, and any other
// name divides at its first hyphen.
func (a Account) RoleName() string {
	if strings.Contains(a.Namespace, "-") {
		return a.Namespace + "_" + a.Name
	}
	return a.Namespace + "-" + a.Name
}

// NamespacesRoleName returns the name of the role that the service accounts of one
// name share, in all namespaces. It is the role of no [Account]: what precedes
// "_" in such a name has a hyphen.
func NamespacesRoleName(serviceAccount string) string { return "namespaces_" + serviceAccount }

// namespacesMount begins the names of the transit mounts in which each namespace
// has a key of its own.
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
// namespace, which it is if a part of its path begins with transit-namespaces. In
// such a mount the name of a key alone decides which namespace decrypts with it,
// so it must not hold keys that were named for another reason. A rule about
// the name works for programs that cannot ask Vault.
func IsNamespacesMount(mount string) bool {
	return slices.ContainsFunc(strings.Split(mount, "/"), func(part string) bool {
		return strings.HasPrefix(part, namespacesMount)
	})
}

// ClassRoleName returns the role that a SecretProviderClass of the account names to
// decrypt with the key, if the role has its default name.
func ClassRoleName(account Account, key ciphertext.Key) string {
	if IsNamespacesMount(key.Mount) && key.Name == account.Namespace {
		return NamespacesRoleName(account.Name)
	}
	return account.RoleName()
}

// policyName returns the name of a policy for a key: secretmanager-WHO-KEY, or
// secretmanager-WHO-MOUNT/KEY for a key that is not in the default mount. A key
// cannot contain a slash, and who is one word.
func policyName(who string, key ciphertext.Key) string {
	name := key.Name
	if key.Mount != ciphertext.DefaultTransitMount {
		name = key.Mount + "/" + name
	}
	return "secretmanager-" + who + "-" + lower(name)
}

// lower returns a name in lower case, as Vault stores the names of policies, with
// "~" before each letter that was in upper case. The name of a mount or a key
// cannot contain "~".
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

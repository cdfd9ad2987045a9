package doctor

import (
	"slices"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
)

// namespaceAllowed reports whether the user or the operator of the provider configured the Vault
// namespace of the class.
func (c *classCheck) namespaceAllowed() bool {
	s := c.provider.settings
	return configured(c.VaultNamespace,
		append([]string{c.Options.VaultNamespace, s.VaultNamespace}, s.AllowedNamespaces...))
}

// refuseNamespace returns the finding for a Vault namespace that only the class names: credentials
// must not be sent there.
func (c *classCheck) refuseNamespace() (f result.Finding, refused bool) {
	if c.namespaceAllowed() {
		return result.Finding{}, false
	}
	f = result.Unknownf("the class names Vault namespace %q, which %s: no credentials are sent there", c.VaultNamespace,
		c.notConfigured("--vault-allowed-namespaces")).
		WithAdvice("if you trust it, set VAULT_NAMESPACE to it")
	f.Blocks = true
	return f, true
}

// refuseAuthMount returns the finding for an auth mount that only the class names.
func (c *classCheck) refuseAuthMount() (f result.Finding, refused bool) {
	if f, refused := c.refuseNamespace(); refused {
		return f, true
	}
	s := c.provider.settings
	if configured(c.AuthMount, append([]string{c.Options.AuthMount, s.AuthMount}, s.AllowedAuthMounts...)) {
		return result.Finding{}, false
	}
	f = result.Unknownf("the class names auth mount %q, which %s: no credentials are sent there", c.AuthMount,
		c.notConfigured("--vault-allowed-auth-mounts")).
		WithAdvice("if you trust it, name it with --auth-mount")
	f.Blocks = true
	return f, true
}

// configured reports whether a path is one of paths, which may have slashes around them.
func configured(path string, paths []string) bool {
	return slices.ContainsFunc(paths, func(p string) bool { return strings.Trim(p, "/") == path })
}

func (c *classCheck) notConfigured(flag string) string {
	if c.provider.set == nil {
		return "the settings of the provider may allow, but they cannot be read"
	}
	return "the operator of the provider has not allowed (" + flag + ")"
}

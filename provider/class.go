package provider

import (
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Class is what the parameters of a SecretProviderClass come to, with the
// provider's defaults where they say nothing.
type Class struct {
	Role           string
	Secret         string // name of the ciphertext Secret
	Key            transit.Key
	Scope          ciphertext.Scope
	Entries        []string // that objects take, in its order; nil: every entry there is
	AuthMount      string
	Audience       string
	VaultNamespace string
	VaultAddress   string
}

// ParseClass reads the parameters of a SecretProviderClass, with a pod's
// volumeAttributes put over them, as a mount does. It returns all that is wrong
// with them, each with its path, such as "objects[2].filePermission: …". Of the
// Config it takes what the operator decides about addresses, namespaces, auth mounts
// and audience. Without one, as for a tool that looks at manifests, that is left
// out, and so is whether address, namespace and auth mount are allowed.
func ParseClass(c *Config, parameters map[string]string) (Class, []string) {
	var p *Provider
	r := &request{key: transit.Key{Mount: ciphertext.DefaultTransitMount}, scope: ciphertext.Strict}
	if c != nil {
		config := c.normalize()
		p = &Provider{config: config, vaults: map[string]*transit.Client{}}
		for _, address := range append([]string{c.Vault.Address}, c.AllowedAddresses...) {
			p.vaults[transit.NormalAddress(address)] = &transit.Client{} // only asked for being there
		}
		r.authMount, r.audience = config.AuthMount, config.Audience
		r.vaultNamespace, r.vaultAddress = config.VaultNamespace, config.Vault.Address
	}
	problems := r.setAll(p, parameters)
	class := Class{
		Role: r.role, Secret: r.secret, Key: r.key, Scope: r.scope, AuthMount: r.authMount, Audience: r.audience,
		VaultNamespace: r.vaultNamespace, VaultAddress: r.vaultAddress,
	}
	for _, o := range r.objects {
		class.Entries = append(class.Entries, o.entry)
	}
	return class, problems
}

package provider

import (
	"errors"
	"slices"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Class is what the parameters of a SecretProviderClass come to, with the
// provider's defaults where they say nothing.
type Class struct {
	Role           string
	Secret         string
	Key            transit.Key
	Scope          ciphertext.Scope
	Entries        []string // of the Secret that its files are made of, sorted; nil: every one
	AuthMount      string
	Audience       string
	VaultNamespace string
	VaultAddress   string
}

// ParseClass validates parameters, with the pod's volumeAttributes put over them,
// as a Mount does. Of the Config it takes what the operator decides about
// addresses, namespace, auth mount and audience. The error joins all that is wrong.
func ParseClass(c Config, parameters map[string]string) (Class, error) {
	if c.AuthMount == "" {
		c.AuthMount = DefaultAuthMount
	}
	p := &Provider{config: c, vaults: map[string]*transit.Client{}}
	for _, address := range append([]string{c.Vault.Address}, c.AllowedAddresses...) {
		p.vaults[normalAddress(address)] = &transit.Client{} // only asked for being there
	}
	r := p.newRequest()
	problems := append(r.setParameters(p, parameters), unknown(parameters)...)
	class := Class{
		Role: r.role, Secret: r.secret, Key: r.key, Scope: r.scope, AuthMount: r.authMount, Audience: r.audience,
		VaultNamespace: r.vaultNamespace, VaultAddress: r.vaultAddress,
	}
	for _, o := range r.objects {
		if !slices.Contains(class.Entries, o.entry) {
			class.Entries = append(class.Entries, o.entry)
		}
	}
	slices.Sort(class.Entries)
	var errs []error
	for _, problem := range problems {
		errs = append(errs, errors.New(problem))
	}
	return class, errors.Join(errs...)
}

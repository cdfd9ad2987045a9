package provider

import (
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Class is what the parameters of a SecretProviderClass say of the ciphertext
// that its volumes are made of.
type Class struct {
	Secret  string // name of the ciphertext Secret
	Key     transit.Key
	Scope   ciphertext.Scope
	Entries []string // that objects take, in its order; nil: every entry there is
}

// ParseClass reads the parameters of a SecretProviderClass as a mount does, for
// tools that look at manifests. It returns all that is wrong with them, each with
// its path, such as "objects[2].filePermission: …". What takes the provider's own
// configuration to know is not looked at: whether it allows the Vault address.
func ParseClass(parameters map[string]string) (Class, []string) {
	r := &request{key: transit.Key{Mount: ciphertext.DefaultTransitMount}, scope: ciphertext.Strict}
	problems := r.setAll(nil, parameters)
	c := Class{Secret: r.secret, Key: r.key, Scope: r.scope}
	for _, o := range r.objects {
		c.Entries = append(c.Entries, o.entry)
	}
	return c, problems
}

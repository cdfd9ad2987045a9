package options

import (
	"github.com/hashicorp/vault/api"
	"github.com/spf13/pflag"

	"github.com/secretmanager-io/secretmanager/internal/vaultaddr"
	"github.com/secretmanager-io/secretmanager/transit"
)

// DefaultAuthMount is the default of --vault-auth-mount.
const DefaultAuthMount = "kubernetes"

// Vault has the options of the connection to Vault.
type Vault struct {
	transit.Config
	Namespace string
	AuthMount string
}

// AddFlags adds the flags, whose defaults come from the environment. The help of a flag that a class may override ends
// in scope.
func (v *Vault) AddFlags(f *pflag.FlagSet, getenv func(string) string, scope string) {
	v.Config = transit.FromEnvironment(getenv)
	f.Var(&addresses{list: &v.Address}, "vault-addr", "`URL` of Vault"+scope+
		"; several URLs, separated by commas, are those of one cluster (VAULT_ADDR)")
	PathVar(f, &v.Namespace, "vault-namespace", getenv(api.EnvVaultNamespace),
		"Vault `namespace`"+scope+" (VAULT_NAMESPACE)")
	PathVar(f, &v.AuthMount, "vault-auth-mount", DefaultAuthMount,
		"`path` of the auth mount"+scope+", of type kubernetes or jwt")
	f.StringVar(&v.CACert, "vault-ca-cert", v.CACert, "`file` of PEM certificates to trust (VAULT_CACERT)")
	f.StringVar(&v.ClientCert, "vault-client-cert", v.ClientCert, "`file` of the client certificate (VAULT_CLIENT_CERT)")
	f.StringVar(&v.ClientKey, "vault-client-key", v.ClientKey,
		"`file` of the key of the client certificate (VAULT_CLIENT_KEY)")
	f.StringVar(&v.TLSServerName, "vault-tls-server-name", v.TLSServerName,
		"`name` expected in Vault's certificate (VAULT_TLS_SERVER_NAME)")
	f.BoolVar(&v.InsecureHTTP, "vault-insecure-http", v.InsecureHTTP,
		"accept http addresses of Vault outside the loopback interface, for development: "+
			"tokens and plaintext cross the network unencrypted ("+transit.EnvInsecureHTTP+")")
}

// addresses is a flag that may be repeated. Its values are joined with commas.
type addresses struct {
	list  *string
	given bool
}

func (a *addresses) Set(text string) error {
	if a.given {
		text = *a.list + "," + text
	}
	*a.list, a.given = text, true
	return nil
}

func (a *addresses) String() string { return "" }

// Type implements pflag.Value. The help shows the flag as a string.
func (*addresses) Type() string { return "string" }

// Validate returns all problems of the options.
func (v *Vault) Validate() (errs []error) {
	addresses := vaultaddr.Split(v.Address)
	if len(addresses) == 0 {
		errs = append(errs, Invalid("vault-addr", "is required, or VAULT_ADDR in the environment"))
	}
	for _, address := range addresses {
		if err := v.CheckAddress(address); err != nil {
			errs = append(errs, Invalid("vault-addr", "%w", err))
		}
	}
	if (v.ClientCert == "") != (v.ClientKey == "") {
		errs = append(errs, Invalid("vault-client-cert", "must be set together with --vault-client-key"))
	}
	return errs
}

// CheckAddress returns an error for an invalid address of a Vault server, and for plain HTTP that is not allowed.
func (v *Vault) CheckAddress(address string) error {
	if err := vaultaddr.Check(address); err != nil {
		return err
	}
	return transit.CheckTransport(address, v.InsecureHTTP)
}

// Command vault serves a real HashiCorp Vault for tests and demonstrations: the unmodified core, with the transit
// engine and the kubernetes, jwt, approle and cert methods. It starts initialized, unsealed and with a known root
// token, as `vault server -dev` does.
//
// In addition it picks a free port, can keep its data in a directory for the next
// start, and can end together with the process that started it:
//
//	vault --mount mounts/transit --mount auth/kubernetes --stop-with-stdin
//
// When it is ready to serve it prints one line of JSON on standard output:
//
//	{"address":"http://127.0.0.1:34567","rootToken":"root","unsealKey":"…"}
//
// The log goes to standard error. Sealing and unsealing work over HTTP as usual,
// with the unsealKey of that line.
package main

import (
	"fmt"
	"net"

	jwtauth "github.com/hashicorp/vault-plugin-auth-jwt"
	kubeauth "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/builtin/logical/transit"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/physical/raft"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"

	"github.com/secretmanager-io/secretmanager/test/vault/server"
)

func main() { server.Main("vault", newCore) }

// Plugins in addition to the token method, cubbyhole, identity and sys, which are built into the core.
var (
	engines = map[string]logical.Factory{
		"transit": transit.Factory,
	}
	methods = map[string]logical.Factory{
		"approle":    approle.Factory,
		"cert":       cert.Factory,
		"jwt":        jwtauth.Factory,
		"kubernetes": kubeauth.Factory,
	}
)

type catalog struct {
	server.Catalog[consts.PluginType, logical.Factory, consts.DeprecationStatus]
}

func (catalog) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

func newCore(c server.Config) (*server.Core, error) {
	backend, kind, err := newBackend(c)
	if err != nil {
		return nil, fmt.Errorf("opening the storage: %w", err)
	}
	config := &vault.CoreConfig{
		Physical:     backend,
		StorageType:  kind,
		Logger:       c.Logger,
		DisableMlock: true,
		RedirectAddr: c.Address,
		BuiltinRegistry: catalog{server.Catalog[consts.PluginType, logical.Factory, consts.DeprecationStatus]{
			Factories: map[consts.PluginType]map[string]logical.Factory{
				consts.PluginTypeSecrets: engines, consts.PluginTypeCredential: methods,
			},
			Supported: consts.Supported,
		}},
		LogicalBackends:    engines,
		CredentialBackends: methods,
		AuditBackends:      map[string]audit.Factory{"file": audit.NewFileBackend},
	}
	if c.Raft != nil {
		config.HAPhysical, config.ClusterAddr = backend.(physical.HABackend), c.Raft.URL()
	}
	core, err := vault.NewCore(config)
	if err != nil {
		return nil, fmt.Errorf("creating the core: %w", err)
	}
	handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: &configutil.Listener{}})
	if c.Raft != nil {
		core.SetClusterListenerAddrs([]*net.TCPAddr{c.Raft.Address})
		core.SetClusterHandler(handler)
	}
	return &server.Core{Handler: handler, Shutdown: core.Shutdown}, nil
}

func newBackend(c server.Config) (backend physical.Backend, kind string, err error) {
	switch {
	case c.DataDir == "":
		backend, err = inmem.NewInmem(nil, c.Logger)
		return backend, "inmem", err
	case c.Raft != nil:
		backend, err = raft.NewRaftBackend(c.Raft.Storage(c.DataDir), c.Logger.Named("raft"))
		return backend, "raft", err
	}
	backend, err = file.NewFileBackend(map[string]string{"path": c.DataDir}, c.Logger)
	return backend, "file", err
}

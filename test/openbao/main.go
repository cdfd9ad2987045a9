// Command openbao serves a real OpenBao for tests: the unmodified core, with the
// transit engine and the kubernetes, jwt and approle methods. It has the flags and
// the ready line of the command in test/vault, so that a test can run against either.
package main

import (
	"fmt"
	"net"

	"github.com/openbao/openbao/audit"
	auditfile "github.com/openbao/openbao/builtin/audit/file"
	"github.com/openbao/openbao/builtin/credential/approle"
	jwtauth "github.com/openbao/openbao/builtin/credential/jwt"
	kubeauth "github.com/openbao/openbao/builtin/credential/kubernetes"
	"github.com/openbao/openbao/builtin/logical/kv"
	"github.com/openbao/openbao/builtin/logical/transit"
	serverconfig "github.com/openbao/openbao/command/server"
	baohttp "github.com/openbao/openbao/http"
	"github.com/openbao/openbao/internalshared/configutil"
	"github.com/openbao/openbao/physical/raft"
	"github.com/openbao/openbao/sdk/v2/helper/consts"
	"github.com/openbao/openbao/sdk/v2/logical"
	"github.com/openbao/openbao/sdk/v2/physical"
	"github.com/openbao/openbao/sdk/v2/physical/file"
	"github.com/openbao/openbao/sdk/v2/physical/inmem"
	"github.com/openbao/openbao/vault"

	"github.com/secretmanager-io/secretmanager/test/vault/server"
)

func main() { server.Main("openbao", newCore) }

// Plugins in addition to the token method, cubbyhole, identity and sys, which are built into the core.
var (
	engines = map[string]logical.Factory{
		"kv":      kv.Factory, // built into Vault's core
		"transit": transit.Factory,
	}
	methods = map[string]logical.Factory{
		"approle":    approle.Factory,
		"jwt":        jwtauth.Factory,
		"kubernetes": kubeauth.Factory,
	}
)

type catalog = server.Catalog[consts.PluginType, logical.Factory, consts.DeprecationStatus]

func newCore(c server.Config) (*server.Core, error) {
	backend, kind, err := newBackend(c)
	if err != nil {
		return nil, fmt.Errorf("opening the storage: %w", err)
	}
	config := &vault.CoreConfig{
		Physical:     backend,
		StorageType:  kind,
		Logger:       c.Logger,
		RedirectAddr: c.Address,
		BuiltinRegistry: catalog{
			Factories: map[consts.PluginType]map[string]logical.Factory{
				consts.PluginTypeSecrets: engines, consts.PluginTypeCredential: methods,
			},
			Supported: consts.Supported,
		},
		LogicalBackends:    engines,
		CredentialBackends: methods,
		AuditBackends:      map[string]audit.Factory{"file": auditfile.Factory},
		// As in Vault, tests enable audit devices with a request.
		RawConfig: &serverconfig.Config{UnsafeAllowAPIAuditCreation: true},
	}
	if c.Raft != nil {
		config.HAPhysical, config.ClusterAddr = backend.(physical.HABackend), c.Raft.URL()
	}
	core, err := vault.NewCore(config)
	if err != nil {
		return nil, fmt.Errorf("creating the core: %w", err)
	}
	handler := baohttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: &configutil.Listener{}})
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

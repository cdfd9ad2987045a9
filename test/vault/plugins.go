package main

import (
	"maps"
	"slices"

	jwtauth "github.com/hashicorp/vault-plugin-auth-jwt"
	kubeauth "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// What is compiled in besides the token method, cubbyhole, identity and sys,
// which the core brings itself.
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

// catalogue answers the core's questions about its built-in plugins. The core
// refuses to mount a type that is not listed here, even when it has a factory.
type catalogue struct{}

func (catalogue) factories(t consts.PluginType) map[string]logical.Factory {
	switch t {
	case consts.PluginTypeSecrets:
		return engines
	case consts.PluginTypeCredential:
		return methods
	default:
		return nil
	}
}

func (c catalogue) Contains(name string, t consts.PluginType) bool {
	_, found := c.factories(t)[name]
	return found
}

func (c catalogue) Get(name string, t consts.PluginType) (func() (any, error), bool) {
	factory, found := c.factories(t)[name]
	return func() (any, error) { return factory, nil }, found
}

func (c catalogue) Keys(t consts.PluginType) []string {
	return slices.Sorted(maps.Keys(c.factories(t)))
}

func (c catalogue) DeprecationStatus(name string, t consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, c.Contains(name, t)
}

func (catalogue) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

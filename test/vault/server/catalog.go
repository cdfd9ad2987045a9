package server

import (
	"maps"
	"slices"
)

// A Catalog lists the built-in plugins of a core. The core refuses
// to mount a type that is not listed here, even if it has a factory. The types of its
// fields differ between Vault and OpenBao.
type Catalog[Type comparable, Factory, Status any] struct {
	Factories map[Type]map[string]Factory
	Supported Status
}

// Contains reports whether the plugin is built in.
func (c Catalog[Type, Factory, Status]) Contains(name string, t Type) bool {
	_, found := c.Factories[t][name]
	return found
}

// Get returns the plugin's factory.
func (c Catalog[Type, Factory, Status]) Get(name string, t Type) (func() (any, error), bool) {
	factory, found := c.Factories[t][name]
	return func() (any, error) { return factory, nil }, found
}

// Keys returns the names of the plugins of a type.
func (c Catalog[Type, Factory, Status]) Keys(t Type) []string {
	return slices.Sorted(maps.Keys(c.Factories[t]))
}

// DeprecationStatus reports every built-in plugin as supported.
func (c Catalog[Type, Factory, Status]) DeprecationStatus(name string, t Type) (Status, bool) {
	return c.Supported, c.Contains(name, t)
}

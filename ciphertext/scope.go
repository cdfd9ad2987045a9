package ciphertext

import (
	"errors"
	"fmt"
)

// Scope is the location that a ciphertext is bound to: it does not decrypt outside of
// it.
type Scope string

const (
	// Strict binds to namespace, Secret name and entry. It is the default.
	Strict Scope = "strict"
	// Namespace binds to the namespace: Secrets and entries may be renamed in it.
	Namespace Scope = "namespace"
	// Cluster binds to no location, with a derived key.
	Cluster Scope = "cluster"
	// None has no context. It is the only scope for a key that is not derived, such
	// as that of ciphertext made by another program.
	None Scope = "none"
)

// Scopes are all scopes.
var Scopes = []Scope{Strict, Namespace, Cluster, None}

// ErrScope is wrapped by the error of [ParseScope].
var ErrScope = errors.New("unknown scope")

// ParseScope parses a scope. The empty string means [Strict].
func ParseScope(s string) (Scope, error) {
	switch scope := Scope(s); scope {
	case "":
		return Strict, nil
	case Strict, Namespace, Cluster, None:
		return scope, nil
	}
	return "", fmt.Errorf("%w %q: must be %s, %s, %s or %s", ErrScope, s, Strict, Namespace, Cluster, None)
}

// Context returns the key derivation context of an entry at its location, before
// base64, or nil for [None]. The location is where the reader found the ciphertext.
// The format is part of every existing ciphertext and never changes. None of the three
// names can contain a slash, so no two locations share a context.
//
// Context panics for a scope that is not one of [Scopes].
func (s Scope) Context(namespace, name, entry string) []byte {
	switch s {
	case Strict:
		return []byte("strict:" + namespace + "/" + name + "/" + entry)
	case Namespace:
		return []byte("namespace:" + namespace)
	case Cluster:
		return []byte("cluster:")
	case None:
		return nil
	}
	// An unknown scope must not mean "no context".
	panic(fmt.Sprintf("ciphertext: unknown scope %q", string(s)))
}

// Describe returns the location that an entry is bound to, for messages, such as
// "demo/matrix/token".
func (s Scope) Describe(namespace, name, entry string) string {
	switch s {
	case Strict:
		return namespace + "/" + name + "/" + entry
	case Namespace:
		return "namespace " + namespace
	case Cluster:
		return "any location in the cluster"
	}
	return "no location"
}

package ciphertext

import (
	"errors"
	"fmt"
)

// Scope says how far a ciphertext may be moved and still open.
type Scope string

const (
	// Strict binds to namespace, Secret name and entry. The default.
	Strict Scope = "strict"
	// Namespace binds to the namespace: Secrets and entries may be renamed in it.
	Namespace Scope = "namespace"
	// Cluster binds to nothing in particular; the key is still a derived one.
	Cluster Scope = "cluster"
	// None has no context. The only choice for ciphertext made elsewhere, with a
	// key that is not derived.
	None Scope = "none"
)

// Scopes are all scopes.
var Scopes = []Scope{Strict, Namespace, Cluster, None}

// ErrScope is what ParseScope's error wraps.
var ErrScope = errors.New("unknown scope")

// ParseScope reads a scope; the empty text means [Strict].
func ParseScope(s string) (Scope, error) {
	switch scope := Scope(s); scope {
	case "":
		return Strict, nil
	case Strict, Namespace, Cluster, None:
		return scope, nil
	}
	return "", fmt.Errorf("%w %q: it is one of %s, %s, %s, %s", ErrScope, s, Strict, Namespace, Cluster, None)
}

// Context returns the key derivation context of an entry in its place, before
// base64; nil for [None]. The place is where the reader found the ciphertext.
// The format is part of every ciphertext ever made and never changes. Slashes
// cannot occur in any of the three names, so no two places share a context.
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
	// A scope comes from ParseScope. Anything else must not turn into "no context".
	panic(fmt.Sprintf("ciphertext: scope %q was never parsed", string(s)))
}

// Place says where an entry is bound to, for messages: "demo/matrix/token".
func (s Scope) Place(namespace, name, entry string) string {
	switch s {
	case Strict:
		return namespace + "/" + name + "/" + entry
	case Namespace:
		return "namespace " + namespace
	case Cluster:
		return "any place in the cluster"
	}
	return "no place"
}

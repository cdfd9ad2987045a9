// Package secretmanager puts secrets into Kubernetes as HashiCorp Vault transit
// ciphertext, and gets them out again for programs that decrypt in-process.
//
// A ciphertext Secret holds one transit ciphertext per entry, bound by its
// [ciphertext.Scope] to where it lives: see package ciphertext. [Seal] makes one
// without a cluster, [Open] reads one. A [Client] creates them or merges entries
// into them ([Client.Create]), turns Secrets that hold plaintext into them
// ([Client.Convert]), changes them as they were read ([Client.Update]), reads them
// ([Client.Read]). [Prove] finds out whether the entries
// of a Secret open where they are, and a [Prover] of many, which takes no right to
// decrypt.
//
// Who acts is said by the [transit.Session]: authors need read on the key,
// update on encrypt and, to prove, on rewrap; programs that read need decrypt.
//
// Plaintext is in memory only, and in no error and no log.
package secretmanager

import (
	"errors"

	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/transit"
)

// What errors of this package wrap, for errors.Is.
var (
	// ErrInvalid: the Spec cannot be sealed. Nothing was encrypted or written.
	ErrInvalid = errors.New("it cannot be encrypted as asked")
	// ErrOther: there is a Secret of that name that holds something else. It was
	// not touched.
	ErrOther = errors.New("there is a Secret of that name already")
	// ErrConflict: others kept changing the Secret between our reading and our
	// writing. Nothing was written.
	ErrConflict = errors.New("it is being changed by others all the time")
	// ErrChanged: somebody else changed what was to be changed since it was read.
	// Nothing was written.
	ErrChanged = errors.New("it was changed since it was read")
	// ErrNotConvertible: the Secret must not become ciphertext in place. It was not
	// touched.
	ErrNotConvertible = errors.New("it cannot be turned into ciphertext in place")
	// ErrNotProved: an entry does not open where it is.
	ErrNotProved = errors.New("not every entry opens where it is")
)

// Client works on the Secrets of one cluster with the keys of one Vault. It is
// safe for concurrent use.
type Client struct {
	vault *transit.Session
	kube  kubernetes.Interface
}

// New returns a client that acts in Vault as the session and in Kubernetes as
// the clientset.
func New(vault *transit.Session, secrets kubernetes.Interface) *Client {
	return &Client{vault: vault, kube: secrets}
}

// Package secretmanager puts secrets into Kubernetes as HashiCorp Vault transit
// ciphertext, and decrypts them for programs that read their secrets in-process.
//
// A ciphertext Secret holds one transit ciphertext per entry, bound by its
// [ciphertext.Scope] to its location: see package ciphertext. [Encrypt] makes one
// without a cluster, [Decrypt] decrypts one, and [Verify] reports whether all of its
// entries decrypt at their location, without the right to decrypt. A [Verifier] does so
// for many Secrets.
//
// A [Client] works on the Secrets of a cluster. [Client.Read] decrypts one,
// [Client.Apply] creates one or sets entries of an existing one, [Client.Update] changes
// one that was read before, and [Client.Convert] turns a Secret that holds plaintext into
// a ciphertext Secret, in place.
//
// The [Vault], usually a [transit.Session], determines the Vault identity. To encrypt it
// needs read on the key and update on encrypt and rewrap; to read it needs update on
// decrypt; to verify, update on rewrap.
//
// Plaintext is in memory only. No error and no log contains it.
package secretmanager

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Errors of this package wrap one of these, for errors.Is. Errors of Vault are a
// [*transit.Error], and errors of the API server those of package
// k8s.io/apimachinery/pkg/api/errors.
var (
	// ErrInvalid means that the [Spec] is invalid. Nothing was encrypted or written.
	ErrInvalid = errors.New("invalid secret specification")
	// ErrExists means that a Secret of that name exists that is not ciphertext, or has
	// another key or scope. It was not changed.
	ErrExists = errors.New("another Secret of that name exists")
	// ErrConflict means that the Secret was changed before each attempt to write it.
	// Nothing was written.
	ErrConflict = errors.New("the Secret kept changing")
	// ErrChanged means that the Secret was changed since it was read. Nothing was
	// written.
	ErrChanged = errors.New("the Secret was changed since it was read")
	// ErrNotConvertible means that the Secret must not become ciphertext in place. It
	// was not changed.
	ErrNotConvertible = errors.New("the Secret cannot be converted in place")
	// ErrManaged means that somebody else writes the Secret and would revert the change:
	// see [ciphertext.ManagedBy]. It was not changed.
	ErrManaged = errors.New("the Secret is managed by somebody else")
	// ErrNotVerified means that an entry does not decrypt at its location.
	ErrNotVerified = errors.New("not every entry decrypts at its location")
)

// Vault is what this package needs of Vault. A [*transit.Session] implements it.
//
// Encrypt, Decrypt and Rewrap return one result per item, in the order of the items.
// The error is one that affects every item.
type Vault interface {
	Encrypt(ctx context.Context, key ciphertext.Key, items []transit.Item) ([]transit.Result, error)
	Decrypt(ctx context.Context, key ciphertext.Key, items []transit.Item) ([]transit.Result, error)
	Rewrap(ctx context.Context, key ciphertext.Key, items []transit.Item) ([]transit.Result, error)
	// Key returns the state of a key, or an error that wraps [transit.ErrNotFound].
	Key(ctx context.Context, key ciphertext.Key) (transit.KeyInfo, error)
}

// Client works on the Secrets of one cluster with the keys of one Vault. It is safe for
// concurrent use if its Vault is, as a [*transit.Session] is.
type Client struct {
	vault Vault
	kube  kubernetes.Interface
}

// New returns a client that acts in Vault as the identity of vault and in Kubernetes as
// that of the clientset.
func New(vault Vault, kube kubernetes.Interface) *Client {
	return &Client{vault: vault, kube: kube}
}

// Options are options of the methods of [Client] that write.
type Options struct {
	// DryRun makes the API server validate and admit the Secret without storing it.
	DryRun bool
	// IncludeManaged writes the Secret even if somebody else manages it and will revert
	// the change, so that the value may be lost. By default that is [ErrManaged].
	IncludeManaged bool
	// Settle is as in [Spec], for [Client.Convert], which takes no Spec.
	Settle time.Duration
}

// CheckManager returns an error that wraps [ErrManaged] if the methods of [Client] would not
// write the Secret because somebody else manages it. They check it too: CheckManager is for
// programs that ask for a value before they write it.
func (o Options) CheckManager(s *corev1.Secret) error {
	m := ciphertext.ManagedBy(s)
	if !m.Reverts || o.IncludeManaged {
		return nil
	}
	return fmt.Errorf("%w: %s would revert the change, and the value would be lost: change it where %s reads it",
		ErrManaged, m.Name, m.Name)
}

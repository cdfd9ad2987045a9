package rotator

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// RewrapSecret brings the entries of one Secret to the newest version of its
// key, by one batch request and one compare-and-swap. Entries that cannot get
// there do not keep the others from it: the result names them, and the error
// wraps [ErrIncomplete].
func RewrapSecret(ctx context.Context, vault *transit.Session, kube kubernetes.Interface, namespace, name string) (SecretResult, error) {
	whole := entryRef{namespace, name, ""}
	fail := func(err error) (SecretResult, error) {
		return SecretResult{}, fmt.Errorf("rewrapping Secret %s: %w", whole, err)
	}
	secret, err := kube.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fail(fmt.Errorf("%w: check both names, and that this identity may get that Secret", err))
	}
	set, err := ciphertext.SettingsOf(secret)
	if err != nil {
		return fail(err)
	}
	key := keyOf(set)
	info, err := vault.Key(ctx, key)
	if err != nil {
		return fail(withHint(err, "check the names of key and mount, and that the policy has read on "+key.String()))
	}
	res := SecretResult{Target: info.Latest}
	p := part{secret: secret, set: set}
	p.entries, res.Current = below(secret, res.Target)
	for _, entry := range ciphertext.Entries(secret.Data) {
		switch v, err := ciphertext.Version(secret.Data[entry]); {
		case err != nil:
			res.Left = append(res.Left, entryRef{namespace, name, entry}.left(fmt.Sprintf("%s: encrypt the value again", err)))
		case v > info.Latest:
			res.Left = append(res.Left, entryRef{namespace, name, entry}.left(fmt.Sprintf("has key version %d, and the newest of %s is %d", v, key, info.Latest)))
		}
	}
	switch {
	case len(p.entries) == 0:
	case immutable(secret):
		res.Left = append(res.Left, p.left(reasonImmutable)...)
	default:
		results, err := vault.Rewrap(ctx, key, p.items())
		if err != nil {
			return fail(withHint(err, fmt.Sprintf("check that the policy has update on %s/rewrap/%s", key.Mount, key.Name)))
		}
		done, left := newSwapper(vault, kube, true).swap(ctx, p, res.Target, results)
		res.Rewrapped, res.Left = done, append(res.Left, left...)
	}
	if len(res.Left) > 0 {
		return res, fmt.Errorf("rewrapping Secret %s: %w: %s", whole, ErrIncomplete, res.Left[0])
	}
	return res, nil
}

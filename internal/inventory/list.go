package inventory

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/secretlist"
)

// List lists the ciphertext Secrets of a namespace, or of all namespaces if it is empty.
func List(ctx context.Context, kube kubernetes.Interface, namespace, selector string) ([]*Secret, error) {
	selections := secretlist.Ciphertext(selector)
	parts := make([][]*Secret, len(selections))
	group, ctx := errgroup.WithContext(ctx)
	for i, selection := range selections {
		group.Go(func() error {
			return secretlist.Lister{Kube: kube}.Each(ctx, namespace, selection, func(s *corev1.Secret) error {
				parts[i] = append(parts[i], NewSecret(s))
				return nil
			})
		})
	}
	if err := group.Wait(); err != nil {
		return nil, display.Errorf("%w", err)
	}
	rows := slices.Concat(parts...)
	Sort(rows)
	return rows, nil
}

// EachCiphertext calls visit for every ciphertext Secret. What could not be listed is one
// error, that of visit the other.
func EachCiphertext(ctx context.Context, kube kubernetes.Interface, namespace, selector string,
	visit func(*corev1.Secret) error) (unread, err error) {
	for _, selection := range secretlist.Ciphertext(selector) {
		err := secretlist.Lister{Kube: kube}.Each(ctx, namespace, selection, visit)
		if failed := (*secretlist.Error)(nil); errors.As(err, &failed) {
			return display.Errorf("%w", err), nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

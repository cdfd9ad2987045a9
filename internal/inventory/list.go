package inventory

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/secretlist"
)

// part is what one request lists, page by page.
type part struct {
	namespace string // empty: all
	secretlist.Selection
}

// partsOf returns what to list for the ciphertext Secrets of namespaces, or of all if there are none.
func partsOf(namespaces []string, selector string) (parts []part) {
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	for _, namespace := range namespaces {
		for _, selection := range secretlist.Ciphertext(selector) {
			parts = append(parts, part{namespace, selection})
		}
	}
	return parts
}

// maxLists bounds the concurrent lists.
const maxLists = 4

// List lists the ciphertext Secrets of namespaces, or of all if there are none.
func List(ctx context.Context, kube kubernetes.Interface, namespaces []string, selector string) ([]*Secret, error) {
	requests := partsOf(namespaces, selector)
	parts := make([][]*Secret, len(requests))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxLists)
	for i, request := range requests {
		group.Go(func() error {
			return secretlist.Lister{Kube: kube}.Each(ctx, request.namespace, request.Selection, func(s *corev1.Secret) error {
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
func EachCiphertext(ctx context.Context, kube kubernetes.Interface, namespaces []string, selector string,
	visit func(*corev1.Secret) error) (unread, err error) {
	failed := map[string]bool{} // namespaces that cannot be listed
	for _, request := range partsOf(namespaces, selector) {
		if failed[request.namespace] {
			continue
		}
		err := secretlist.Lister{Kube: kube}.Each(ctx, request.namespace, request.Selection, visit)
		if errors.As(err, new(*secretlist.Error)) {
			failed[request.namespace] = true
			unread = errors.Join(unread, display.Errorf("%w", err))
			continue
		}
		if err != nil {
			return unread, err
		}
	}
	return unread, nil
}

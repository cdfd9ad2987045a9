package rotator

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/secretlist"
)

// area selects the Secrets to list.
type area struct {
	namespaces []string // empty: the whole cluster
	selection  secretlist.Selection
}

// selectedArea has the ciphertext Secrets that the options select, whatever their key.
func (r *run) selectedArea() area {
	return area{namespaces: r.Namespaces, selection: secretlist.ByLabel().Matching(r.Selector)}
}

// eachSecret calls visit for every Secret of the area, one at a time. It returns the
// namespaces that could not be listed completely, or the whole cluster as one. A visit
// that keeps the Secret drops its managedFields, which are often most of the object.
func (r *run) eachSecret(ctx context.Context, a area, visit func(*corev1.Secret)) (unlisted []Problem) {
	namespaces := a.namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	lister := secretlist.Lister{Kube: r.kube, Retry: r.retry, PageSize: r.pageSize}
	for _, ns := range namespaces {
		err := lister.Each(ctx, ns, a.selection, func(s *corev1.Secret) error {
			visit(s)
			return nil
		})
		var failed *secretlist.Error
		if errors.As(err, &failed) {
			unlisted = append(unlisted, Location{Namespace: ns}.problem(failure.SecretsNotListed,
				"its Secrets cannot be listed: %s: check that this identity may list Secrets there", failed.Err))
		}
	}
	return unlisted
}

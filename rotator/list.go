package rotator

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/internal/secretlist"
)

// area is where to look for Secrets.
type area struct {
	namespaces []string // empty: the whole cluster
	selection  secretlist.Selection
}

// asked is the area of the run.
func (r *run) asked() area {
	return area{namespaces: r.Namespaces, selection: secretlist.ByLabel(r.Keys...).Matching(r.Selector)}
}

// everywhere is all ciphertext of the keys of the run, narrowed or not.
func (r *run) everywhere() area { return area{selection: secretlist.ByLabel(r.Keys...)} }

// each calls visit for every Secret of the area, one at a time. It returns what could not
// be listed to the end: a namespace each, or the whole cluster.
func (r *run) each(ctx context.Context, a area, visit func(*corev1.Secret)) (unread []Left) {
	namespaces := a.namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	lister := secretlist.Lister{Kube: r.kube, Retry: r.retry, PageSize: r.pageSize}
	for _, ns := range namespaces {
		err := lister.Each(ctx, ns, a.selection, func(s *corev1.Secret) error {
			s.ManagedFields = nil // not needed, and often most of the object
			visit(s)
			return nil
		})
		var failed *secretlist.Error
		if errors.As(err, &failed) {
			unread = append(unread, Left{Namespace: ns, Reason: fmt.Sprintf(
				"its Secrets cannot be listed: %s: check that this identity may list Secrets there", failed.Err)})
		}
	}
	return unread
}

package rotator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// pageSize is how many Secrets are asked for at a time, and so, with what is in
// work, how many are in memory.
const pageSize = 500

// area is where to look for Secrets.
type area struct {
	namespaces []string // empty: the whole cluster
	labels     string
	fields     string
}

// asked is the area of the run.
func (r *run) asked() area {
	a := area{namespaces: r.Namespaces, labels: r.keySelector()}
	if r.Selector != "" {
		a.labels += "," + r.Selector
	}
	return a
}

// everywhere is all ciphertext of the keys of the run, narrowed or not.
func (r *run) everywhere() area { return area{labels: r.keySelector()} }

func (r *run) keySelector() string {
	if len(r.Keys) == 0 {
		return ciphertext.LabelTransitKey
	}
	return ciphertext.LabelTransitKey + " in (" + strings.Join(r.Keys, ",") + ")"
}

// each calls visit for every Secret of the area, one at a time. What could not
// be listed to the end is returned: a namespace each, or the whole cluster.
func (r *run) each(ctx context.Context, a area, visit func(*corev1.Secret)) (unread []Left) {
	namespaces := a.namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	for _, ns := range namespaces {
		if err := r.eachIn(ctx, ns, a, visit); err != nil {
			unread = append(unread, Left{Namespace: ns, Reason: fmt.Sprintf("its Secrets cannot be listed: %s: check that this identity may list Secrets there", err)})
		}
	}
	return unread
}

// eachIn lists page by page. client-go's pager would do it too, but when a list
// takes so long that the API server has forgotten where it began (410), it gets
// everything at once; the token in that answer goes on from the same place.
func (r *run) eachIn(ctx context.Context, namespace string, a area, visit func(*corev1.Secret)) error {
	opts := metav1.ListOptions{LabelSelector: a.labels, FieldSelector: a.fields, Limit: r.pageSize}
	for {
		page, err := r.kube.CoreV1().Secrets(namespace).List(ctx, opts)
		if err != nil {
			if token := continueAfter(err); token != "" && token != opts.Continue {
				opts.Continue = token
				continue
			}
			return err
		}
		for i := range page.Items {
			visit(&page.Items[i])
		}
		if page.Continue == "" {
			return nil
		}
		opts.Continue = page.Continue
	}
}

// continueAfter returns the token that a 410 gives to go on with.
func continueAfter(err error) string {
	var status apierrors.APIStatus
	if !apierrors.IsResourceExpired(err) || !errors.As(err, &status) {
		return ""
	}
	return status.Status().Continue
}

package inventory

import (
	"context"
	"fmt"
	"slices"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/pager"
)

// Selections are the two ways in which a Secret is ciphertext, by label or by
// type: a server cannot select by either.
func Selections(selector string) []metav1.ListOptions {
	withLabel, withType := metav1.ListOptions{LabelSelector: ciphertext.LabelTransitKey}, metav1.ListOptions{LabelSelector: "!" + ciphertext.LabelTransitKey}
	withType.FieldSelector = "type=" + string(ciphertext.Type)
	if selector != "" {
		withLabel.LabelSelector += "," + selector
		withType.LabelSelector += "," + selector
	}
	return []metav1.ListOptions{withLabel, withType}
}

// List lists the Secrets that are ciphertext.
func List(ctx context.Context, kube kubernetes.Interface, namespace, selector string) ([]*Secret, error) {
	both := Selections(selector)
	parts := make([][]*Secret, len(both))
	group, ctx := errgroup.WithContext(ctx)
	for i, options := range both {
		group.Go(func() error {
			return eachSecret(ctx, kube, namespace, options, func(s *corev1.Secret) { parts[i] = append(parts[i], NewSecret(s)) })
		})
	}
	if err := group.Wait(); err != nil {
		where := "namespace " + namespace
		if namespace == "" {
			where = "all namespaces"
		}
		return nil, display.Errorf("listing Secrets in %s: %w", where, err)
	}
	rows := slices.Concat(parts...)
	Sort(rows)
	return rows, nil
}

// eachSecret lists in pages, so that no answer gets large.
func eachSecret(ctx context.Context, kube kubernetes.Interface, namespace string, options metav1.ListOptions, do func(*corev1.Secret)) error {
	lister := pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		return kube.CoreV1().Secrets(namespace).List(ctx, o)
	})
	lister.PageBufferSize = 1 // the next page is under way while one is read
	return lister.EachListItem(ctx, options, func(o runtime.Object) error {
		secret, ok := o.(*corev1.Secret)
		if !ok {
			return fmt.Errorf("the API server answered with a %T in a list of Secrets", o)
		}
		do(secret)
		return nil
	})
}

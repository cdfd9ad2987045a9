package inventory

import (
	"context"
	"errors"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// A page is what is in memory of a list at a time: first few Secrets, as nothing
// is known of their size, and then as many as pageBytes would hold of the like.
const (
	firstPage = 20
	maxPage   = 500
	pageBytes = 4 << 20
)

// EachCiphertext calls do for every Secret that is ciphertext by label or by type:
// two lists, as a server cannot select by either. What could not be listed is one
// error, that of do the other.
func EachCiphertext(ctx context.Context, kube kubernetes.Interface, namespace, selector string, do func(*corev1.Secret) error) (unread, err error) {
	withLabel, withType := metav1.ListOptions{LabelSelector: ciphertext.LabelTransitKey}, metav1.ListOptions{LabelSelector: "!" + ciphertext.LabelTransitKey}
	withType.FieldSelector = "type=" + string(ciphertext.Type)
	for _, options := range []metav1.ListOptions{withLabel, withType} {
		if selector != "" {
			options.LabelSelector += "," + selector
		}
		var done bool
		if done, err = eachPage(ctx, kube, namespace, options, do); done {
			return nil, err
		}
		if err != nil {
			where := "namespace " + namespace
			if namespace == "" {
				where = "all namespaces"
			}
			return display.Errorf("listing Secrets in %s: %w", where, err), nil
		}
	}
	return nil, nil
}

// eachPage lists page by page, and is done if do has failed. client-go's pager
// would get everything at once when the API server has forgotten where the list
// began (410); the token in that answer goes on from the same place.
func eachPage(ctx context.Context, kube kubernetes.Interface, namespace string, options metav1.ListOptions, do func(*corev1.Secret) error) (done bool, err error) {
	for options.Limit = firstPage; ; {
		page, err := kube.CoreV1().Secrets(namespace).List(ctx, options)
		if token := continueAfter(err); token != "" && token != options.Continue {
			options.Continue = token
			continue
		}
		if err != nil {
			return false, err
		}
		size := 0
		for _, s := range page.Items {
			for _, value := range s.Data {
				size += len(value)
			}
			if err := do(&s); err != nil { // a copy, so that who keeps it does not keep the page
				return true, err
			}
		}
		if page.Continue == "" {
			return false, nil
		}
		options.Continue = page.Continue
		if n := len(page.Items); n > 0 {
			options.Limit = max(1, min(int64(pageBytes/max(size/n, 1)), 4*options.Limit, maxPage))
		}
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

package rotator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// A page is what is in memory of a list at a time. The first one is small,
// because nothing is known yet of how large the Secrets are, and each next one
// is as long as is right for Secrets like the last page's. A page that is beyond
// maxPageBytes all the same is broken off and asked for again, shorter. One
// Secret is at most 1 MiB of data, and taken whatever it weighs.
const (
	firstPage    = 50
	maxPage      = 500
	maxPageBytes = 4 << 20
)

var (
	errPageTooLong = errors.New("the page is too long")
	errNoList      = errors.New("the answer is not a list of Secrets")
)

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
	opts := metav1.ListOptions{LabelSelector: a.labels, FieldSelector: a.fields, Limit: min(firstPage, r.pageSize)}
	for {
		page, weight, err := r.page(ctx, namespace, opts)
		if err != nil {
			if errors.Is(err, errPageTooLong) {
				opts.Limit = max(opts.Limit/4, 1)
				continue
			}
			if token := continueAfter(err); token != "" && token != opts.Continue {
				opts.Continue = token
				continue
			}
			return err
		}
		for _, s := range page.Items {
			s.ManagedFields = nil
			visit(&s) // a copy, so that who keeps it does not keep the page
		}
		if page.Continue == "" {
			return nil
		}
		if n := len(page.Items); n > 0 {
			// Half of what would fit, as not all Secrets weigh the same; and no sudden
			// jump, as light ones do not tell that no heavy ones follow.
			fits := max(int64(maxPageBytes/2/max(weight/n, 1)), 1)
			opts.Limit = min(fits, 4*opts.Limit, r.pageSize)
		}
		opts.Continue = page.Continue
	}
}

// page gets one page and says how many bytes it came in. What is transient is
// tried again.
func (r *run) page(ctx context.Context, namespace string, opts metav1.ListOptions) (page *corev1.SecretList, weight int, err error) {
	err = r.patience.try(ctx, transientRead, func() error {
		body, err := r.kube.CoreV1().RESTClient().Get().NamespaceIfScoped(namespace, namespace != metav1.NamespaceAll).
			Resource("secrets").VersionedParams(&opts, scheme.ParameterCodec).Stream(ctx)
		if err != nil {
			return err
		}
		defer body.Close()
		var from io.Reader = body
		if opts.Limit > 1 {
			from = io.LimitReader(body, maxPageBytes+1)
		}
		text, err := io.ReadAll(from)
		switch {
		case err != nil:
			return fmt.Errorf("reading a page of Secrets: %w", err)
		case opts.Limit > 1 && len(text) > maxPageBytes:
			return errPageTooLong
		}
		page, weight = &corev1.SecretList{}, len(text)
		if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(text, nil, page); err != nil {
			// The decoder's own words may hold a piece of what it read.
			return errNoList
		}
		return nil
	})
	return page, weight, err
}

// continueAfter returns the token that a 410 gives to go on with.
func continueAfter(err error) string {
	var status apierrors.APIStatus
	if !apierrors.IsResourceExpired(err) || !errors.As(err, &status) {
		return ""
	}
	return status.Status().Continue
}

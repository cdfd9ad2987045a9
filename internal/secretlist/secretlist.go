// Package secretlist lists Secrets page by page, with bounds on what is in memory.
package secretlist

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/kuberetry"
)

// The first page is small, because the size of the Secrets is not known yet. Each next
// one is as long as is right for Secrets like those of the last page. A page that is
// longer than MaxPageBytes all the same is cut off and requested again with fewer
// Secrets. One Secret alone, at most 1 MiB of data, is accepted whatever its size.
const (
	firstPage    = 50
	maxPage      = 500
	MaxPageBytes = 4 << 20
)

var (
	errPageTooLong = errors.New("the page is too long")
	errNoList      = errors.New("the response is not a list of Secrets")
)

// A Selection selects Secrets; the zero Selection selects all.
type Selection struct{ labels, fields string }

// ByLabel selects the Secrets whose label names one of the transit keys, or any key if
// none is named.
func ByLabel(keys ...string) Selection {
	if len(keys) == 0 {
		return Selection{labels: ciphertext.LabelTransitKey}
	}
	return Selection{labels: ciphertext.LabelTransitKey + " in (" + strings.Join(keys, ",") + ")"}
}

// ByType selects the Secrets that are ciphertext by their type alone, without the label.
// A server cannot select by label or type, so to list all ciphertext takes both
// selections.
func ByType() Selection {
	return Selection{labels: "!" + ciphertext.LabelTransitKey, fields: "type=" + string(ciphertext.Type)}
}

// Ciphertext returns the two selections that together have all ciphertext Secrets that a
// label selector matches; an empty one matches all.
func Ciphertext(selector string) []Selection {
	return []Selection{ByLabel().Matching(selector), ByType().Matching(selector)}
}

// ListOptions returns the selection for a request that this package does not make, such
// as a watch.
func (s Selection) ListOptions() metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: s.labels, FieldSelector: s.fields}
}

// Matching narrows the selection to the Secrets that a label selector matches; an empty
// one matches all.
func (s Selection) Matching(selector string) Selection {
	switch {
	case selector == "":
	case s.labels == "":
		s.labels = selector
	default:
		s.labels += "," + selector
	}
	return s
}

// Error is the failure of a list. [Lister.Each] returns errors of its caller as they are.
type Error struct {
	Namespace string // empty: all namespaces
	Err       error
}

func (e *Error) Error() string {
	if e.Namespace == metav1.NamespaceAll {
		return fmt.Sprintf("listing Secrets in all namespaces: %v", e.Err)
	}
	return fmt.Sprintf("listing Secrets in namespace %s: %v", e.Namespace, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// A Lister lists Secrets of one cluster. It is safe for concurrent use.
type Lister struct {
	Kube     kubernetes.Interface
	Retry    *kuberetry.Retrier // nil: a failed request is not repeated
	PageSize int64              // Secrets of a page, at most; 0 means 500
}

// page is a page of a list, before its Secrets are decoded.
type page struct {
	text []byte
	list *corev1.SecretList // nil until it is decoded
	err  error
}

// Each calls visit for every Secret of the namespace, or of all, that the selection
// selects, one at a time. It ends with the first error of visit. While a page is decoded
// and visited, Each requests the next one, so two pages are in memory at most.
func (l Lister) Each(ctx context.Context, namespace string, s Selection, visit func(*corev1.Secret) error) error {
	ctx, cancel := context.WithCancel(ctx)
	pages := make(chan page)
	defer func() { // no request is under way when Each returns
		cancel()
		for range pages {
		}
	}()
	go func() {
		defer close(pages)
		l.list(ctx, namespace, s, func(p page) bool {
			select {
			case pages <- p:
				return true
			case <-ctx.Done():
				return false
			}
		})
	}()
	for p := range pages {
		err := p.err
		if err == nil {
			err = p.decode()
		}
		if err != nil {
			return &Error{Namespace: namespace, Err: err}
		}
		for _, s := range p.list.Items {
			if err := visit(&s); err != nil { // a copy, so that a Secret that is kept does not keep its page
				return err
			}
		}
	}
	if err := context.Cause(ctx); err != nil {
		return &Error{Namespace: namespace, Err: err}
	}
	return nil
}

// decode decodes the Secrets of the page.
func (p *page) decode() error {
	if p.list != nil {
		return nil
	}
	p.list = &corev1.SecretList{}
	if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(p.text, nil, p.list); err != nil {
		return errNoList // the decoder's own error may repeat a part of what it read
	}
	p.text = nil
	return nil
}

// list calls yield for every page until it returns false. client-go's pager lists too,
// but if the API server has forgotten where the list began (410), the pager requests
// everything at once. The token in that response continues from the same place.
func (l Lister) list(ctx context.Context, namespace string, s Selection, yield func(page) bool) {
	maxLimit := int64(maxPage)
	if l.PageSize > 0 {
		maxLimit = l.PageSize
	}
	opts := s.ListOptions()
	opts.Limit = min(firstPage, maxLimit)
	for {
		p, err := l.page(ctx, namespace, opts)
		if errors.Is(err, errPageTooLong) {
			opts.Limit = max(opts.Limit/4, 1)
			continue
		}
		if token := continueToken(err); token != "" && token != opts.Continue {
			opts.Continue = token
			continue
		}
		size := len(p.text)
		var next string
		var n int
		if err == nil {
			next, n, err = p.summary()
		}
		if err != nil {
			yield(page{err: err})
			return
		}
		if !yield(p) || next == "" {
			return
		}
		if n > 0 {
			// Half of what would fit, as Secrets differ in size, and no sudden jump, as
			// small Secrets do not mean that no large ones follow.
			fits := max(int64(MaxPageBytes/2/max(size/n, 1)), 1)
			opts.Limit = min(fits, 4*opts.Limit, maxLimit)
		}
		opts.Continue = next
	}
}

// page requests one page.
func (l Lister) page(ctx context.Context, namespace string, opts metav1.ListOptions) (p page, err error) {
	tooLong := false
	err = l.Retry.Read(ctx, func() error {
		body, err := l.Kube.CoreV1().RESTClient().Get().
			NamespaceIfScoped(namespace, namespace != metav1.NamespaceAll).
			Resource("secrets").VersionedParams(&opts, scheme.ParameterCodec).Stream(ctx)
		if err != nil {
			return err
		}
		defer body.Close()
		var from io.Reader = body
		if opts.Limit > 1 {
			from = io.LimitReader(body, MaxPageBytes+1)
		}
		if p.text, err = io.ReadAll(from); err != nil {
			return fmt.Errorf("reading a page of Secrets: %w", err)
		}
		tooLong = opts.Limit > 1 && len(p.text) > MaxPageBytes
		return nil
	})
	if err == nil && tooLong {
		err = errPageTooLong
	}
	return p, err
}

// continueToken returns the token with which a list continues after a 410.
func continueToken(err error) string {
	var status apierrors.APIStatus
	if !apierrors.IsResourceExpired(err) || !errors.As(err, &status) {
		return ""
	}
	return status.Status().Continue
}

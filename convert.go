package secretmanager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// ConvertOptions are for [Client.Convert].
type ConvertOptions struct {
	// DryRun has the API server check and admit everything and store nothing.
	DryRun bool
}

// Convert turns a Secret that holds plaintext into a ciphertext Secret, in place:
// every entry becomes its ciphertext, the labels and annotations say what it is,
// and the copy of the plaintext that kubectl apply keeps in an annotation goes.
// The type stays, as Kubernetes does not let it change. It returns the Secret as
// stored.
//
// The plaintext may be the only copy. So it is encrypted and proved ([Prove])
// before anything is written, nothing is ever deleted, and there is one write, a
// compare-and-swap of the whole object: at any moment the Secret holds all of the
// plaintext or all of the ciphertext. If somebody changed it meanwhile all of that
// is done again, five times at most ([ErrConflict]).
//
// What must not change under those who use it is refused, all reasons at once
// ([ErrNotConvertible]): types of Kubernetes' own, whose readers expect plaintext
// and which the API server checks; what a controller owns or a GitOps tool keeps
// as it is in Git; what is immutable or ciphertext already. Nobody can be asked
// whether a pod reads the Secret directly: it will read ciphertext from then on.
// Backups and the history of etcd keep the plaintext.
func (c *Client) Convert(ctx context.Context, namespace, name string, set ciphertext.Settings, opts ConvertOptions) (*corev1.Secret, error) {
	fail := func(err error) (*corev1.Secret, error) {
		return nil, fmt.Errorf("converting Secret %s: %w", place(namespace, name), err)
	}
	var refused error
	for range maxTries {
		was, err := c.kube.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return fail(fmt.Errorf("%w: check both names, and that you may get and patch that Secret", err))
		}
		if err := convertible(was); err != nil {
			return fail(fmt.Errorf("%w: %w", ErrNotConvertible, err))
		}
		// What is empty was stored so: it is nobody's mistake of today.
		sealed, err := Seal(ctx, c.vault, Spec{Namespace: namespace, Name: name, Settings: set, Entries: was.Data, AllowEmpty: true})
		if err != nil {
			return nil, err
		}
		if err := Prove(ctx, c.vault, sealed); err != nil {
			return nil, err
		}
		patch, err := convertPatch(was, sealed)
		if err != nil {
			return fail(err)
		}
		stored, err := c.patch(ctx, was, patch, opts.DryRun)
		if errors.Is(err, ErrChanged) {
			refused = err
			continue
		}
		if err != nil {
			return fail(err)
		}
		if err := Prove(ctx, c.vault, stored); err != nil {
			return stored, fmt.Errorf("the Secret was converted, but: %w", err)
		}
		return stored, nil
	}
	return fail(fmt.Errorf("%w, %d times in a row: try again: %w", ErrConflict, maxTries, refused))
}

// convertible reports everything for which a Secret must not become ciphertext
// in place.
func convertible(s *corev1.Secret) error {
	const beside = "make a ciphertext Secret of another name beside it"
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := plaintext(s); err != nil {
		errs = append(errs, err)
	}
	switch kind := string(s.Type); {
	case s.Type == corev1.SecretTypeServiceAccountToken:
		add("it is of type %s: Kubernetes writes it, and would again", s.Type)
	case strings.HasPrefix(kind, "kubernetes.io/"), strings.HasPrefix(kind, "bootstrap.kubernetes.io/"), strings.HasPrefix(kind, "helm.sh/"):
		add("it is of type %s, whose readers (ingress controllers, the kubelet, Helm) need plaintext, and which the API server may check: %s", s.Type, beside)
	}
	for _, owner := range s.OwnerReferences {
		add("it is owned by %s %s, which may write it again: change it there, or %s", owner.Kind, owner.Name, beside)
	}
	if by := ciphertext.ManagedBy(s); by != "" {
		add("it is kept as it is in Git by %s, which would put the plaintext back: encrypt it there", by)
	}
	if s.Immutable != nil && *s.Immutable {
		add("it is immutable: %s", beside)
	}
	if s.DeletionTimestamp != nil {
		add("it is being deleted: see which finalizer keeps it")
	}
	return errors.Join(errs...)
}

// plaintext reports whether a Secret is anything but one of plaintext: what is
// ciphertext already would be encrypted twice.
func plaintext(s *corev1.Secret) error {
	if s.Type == ciphertext.Type || s.Labels[ciphertext.LabelTransitKey] != "" {
		return errors.New("it is a ciphertext Secret already")
	}
	var errs []error
	for _, entry := range ciphertext.Entries(s.Data) {
		if _, err := ciphertext.Version(s.Data[entry]); err == nil {
			errs = append(errs, fmt.Errorf("entry %q: it is ciphertext already: if all are, the label %s makes it a ciphertext Secret", entry, ciphertext.LabelTransitKey))
		}
	}
	if len(s.Data) == 0 {
		errs = append(errs, errors.New("it has no entries"))
	}
	return errors.Join(errs...)
}

// convertPatch is the JSON Patch that makes a Secret the sealed one if nothing at
// all has happened to it: values, labels, owners, all that was looked at is in the
// resource version. So the plaintext does not have to be sent once more.
func convertPatch(was, sealed *corev1.Secret) ([]byte, error) {
	is := was.DeepCopy()
	is.Data = sealed.Data
	set, err := ciphertext.SettingsOf(sealed)
	if err != nil {
		return nil, err
	}
	set.Apply(is)
	delete(is.Annotations, ciphertext.AnnotationLastApplied)
	return json.Marshal([]patchOp{
		{"test", "/metadata/uid", was.UID},
		{"test", "/metadata/resourceVersion", was.ResourceVersion},
		{"add", "/metadata/labels", is.Labels},
		{"add", "/metadata/annotations", is.Annotations},
		{"add", "/data", is.Data},
	})
}

// Plaintext returns the entries of a Secret that holds plaintext, to be encrypted
// into another ([Client.Create]). A ciphertext Secret is refused.
func (c *Client) Plaintext(ctx context.Context, namespace, name string) (map[string][]byte, error) {
	s, err := c.kube.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		err = fmt.Errorf("%w: check both names, and that you may get that Secret", err)
	} else {
		err = plaintext(s)
	}
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", place(namespace, name), err)
	}
	return s.Data, nil
}

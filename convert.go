package secretmanager

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/secretpatch"
)

// Convert turns a Secret that holds plaintext into a ciphertext Secret, in place: every
// entry becomes its ciphertext, the labels and annotations are set, and the annotation in
// which kubectl apply keeps a copy of the plaintext is removed. The type stays, as
// Kubernetes does not let it change. Convert returns the Secret as stored.
//
// The plaintext may be the only copy. Therefore Convert encrypts and verifies everything,
// as [Verify] does, before it writes. It deletes nothing and makes one write, a
// compare-and-swap of the whole object: at any time the Secret holds either all plaintext
// or all ciphertext. If the Secret changes meanwhile, Convert starts again, with at most
// five attempts ([ErrConflict]). Finally it verifies the stored Secret: an error that
// wraps [ErrNotVerified] comes with the Secret if it has been written.
//
// Convert rejects a Secret whose users depend on its content, and reports all reasons at
// once ([ErrNotConvertible]): types of Kubernetes, whose readers expect plaintext and
// which the API server checks; a Secret that somebody else manages, who would restore the
// plaintext ([ErrManaged]); one with a label or an annotation that contains a value; one
// that is immutable or already ciphertext. Convert cannot detect pods that read the Secret
// directly: they will read ciphertext. Backups and the history of etcd keep the plaintext.
func (c *Client) Convert(ctx context.Context, namespace, name string, settings ciphertext.Settings,
	opts Options) (*corev1.Secret, error) {
	id := types.NamespacedName{Namespace: namespace, Name: name}
	var named error // an error that already names the Secret
	stored, err := c.writer(opts).Write(ctx, id, func(current *corev1.Secret) (*secretpatch.Patch, error) {
		if current == nil {
			return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
		}
		if err := convertible(current, opts); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotConvertible, err)
		}
		// Existing empty values are not a mistake of the caller.
		encrypted, err := Encrypt(ctx, c.vault, Spec{
			Namespace: namespace, Name: name, Settings: settings, Entries: current.Data, AllowEmpty: true,
			Settle: opts.Settle,
		})
		if err == nil {
			err = Verify(ctx, c.vault, encrypted)
		}
		if err != nil {
			named = err
			return nil, err
		}
		return convertPatch(current, encrypted)
	})
	switch {
	case named != nil:
		return nil, named
	case err != nil:
		return nil, fmt.Errorf("converting Secret %s: %w",
			describe(id), explainWrite(err, ErrConflict, "check both names, and that you may get and patch that Secret"))
	}
	stored, _, err = c.verified(ctx, stored, "converted")
	return stored, err
}

// convertible reports whether a Secret may become ciphertext in place.
func convertible(s *corev1.Secret, opts Options) error {
	const separate = "create a ciphertext Secret of another name"
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := plaintext(s); err != nil {
		errs = append(errs, err)
	}
	switch kind := string(s.Type); {
	case s.Type == corev1.SecretTypeServiceAccountToken:
		add("it is of type %s: Kubernetes would write it again", s.Type)
	case strings.HasPrefix(kind, "kubernetes.io/"), strings.HasPrefix(kind, "bootstrap.kubernetes.io/"),
		strings.HasPrefix(kind, "helm.sh/"):
		add("it is of type %s, whose readers (ingress controllers, the kubelet, Helm) need plaintext, and which the API "+
			"server may check: %s", s.Type, separate)
	}
	if err := opts.CheckManager(s); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, plaintextCopies(s)...)
	if s.Immutable != nil && *s.Immutable {
		add("it is immutable: %s", separate)
	}
	if s.DeletionTimestamp != nil {
		add("it is being deleted: see which finalizer keeps it")
	}
	return errors.Join(errs...)
}

// plaintext reports whether all entries of a Secret are plaintext. Ciphertext would be
// encrypted twice.
func plaintext(s *corev1.Secret) error {
	if s.Type == ciphertext.Type || s.Labels[ciphertext.LabelTransitKey] != "" {
		return errors.New("it is already a ciphertext Secret")
	}
	var errs []error
	for _, entry := range ciphertext.Entries(s.Data) {
		if _, err := ciphertext.Version(s.Data[entry]); err == nil {
			errs = append(errs, fmt.Errorf("entry %q: it is already ciphertext: if all are, the label %s makes it a "+
				"ciphertext Secret", entry, ciphertext.LabelTransitKey))
		}
	}
	if len(s.Data) == 0 {
		errs = append(errs, errors.New("it has no entries"))
	}
	return errors.Join(errs...)
}

// convertPatch returns the patch that replaces the content of a Secret by that of the
// encrypted one, if the Secret did not change at all since it was read. So the patch does
// not contain the plaintext.
func convertPatch(old, encrypted *corev1.Secret) (*secretpatch.Patch, error) {
	settings, err := ciphertext.SettingsOf(encrypted)
	if err != nil {
		return nil, err
	}
	converted := old.DeepCopy()
	converted.Data = encrypted.Data
	settings.Apply(converted)
	delete(converted.Annotations, ciphertext.AnnotationLastApplied)
	p := secretpatch.New(old)
	p.Replace(converted)
	return p, nil
}

// Plaintext returns the entries of a Secret that holds plaintext, to encrypt them into
// another Secret with [Client.Apply]. It rejects a ciphertext Secret.
func (c *Client) Plaintext(ctx context.Context, namespace, name string) (map[string][]byte, error) {
	s, err := c.kube.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		err = fmt.Errorf("%w: check both names, and that you may get that Secret", err)
	} else {
		err = plaintext(s)
	}
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", describe(types.NamespacedName{Namespace: namespace, Name: name}), err)
	}
	return s.Data, nil
}

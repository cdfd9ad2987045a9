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
// The plaintext may be the only copy. So it is encrypted and verified, as [Verify] does,
// before anything is written, nothing is ever deleted, and there is one write, a
// compare-and-swap of the whole object: at any moment the Secret holds all of the
// plaintext or all of the ciphertext. If somebody changes it meanwhile, Convert does all
// of that again, five times at most ([ErrConflict]). It verifies again what was stored:
// an error that wraps [ErrNotVerified] comes with the Secret if that has been written.
//
// Convert refuses a Secret that must not change under its users, and reports all reasons
// at once ([ErrNotConvertible]): types of Kubernetes, whose readers expect plaintext and
// which the API server checks; a Secret that a controller owns or a GitOps tool manages;
// one that is immutable or ciphertext already. Convert cannot find out whether a pod
// reads the Secret directly: it will read ciphertext from then on. Backups and the
// history of etcd keep the plaintext.
func (c *Client) Convert(ctx context.Context, namespace, name string, settings ciphertext.Settings,
	opts Options) (*corev1.Secret, error) {
	id := types.NamespacedName{Namespace: namespace, Name: name}
	var own error // an error that names the Secret itself
	stored, err := c.writer(opts).Write(ctx, id, func(current *corev1.Secret) (*secretpatch.Patch, error) {
		if current == nil {
			return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
		}
		if err := convertible(current); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotConvertible, err)
		}
		// What is empty was stored so: it is no mistake of this call.
		encrypted, err := Encrypt(ctx, c.vault, Spec{
			Namespace: namespace, Name: name, Settings: settings, Entries: current.Data, AllowEmpty: true,
		})
		if err == nil {
			err = Verify(ctx, c.vault, encrypted)
		}
		if err != nil {
			own = err
			return nil, err
		}
		return convertPatch(current, encrypted)
	})
	switch {
	case own != nil:
		return nil, own
	case err != nil:
		return nil, fmt.Errorf("converting Secret %s: %w",
			describe(id), explainWrite(err, ErrConflict, "check both names, and that you may get and patch that Secret"))
	}
	stored, _, err = c.verified(ctx, stored, "converted")
	return stored, err
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
	case strings.HasPrefix(kind, "kubernetes.io/"), strings.HasPrefix(kind, "bootstrap.kubernetes.io/"),
		strings.HasPrefix(kind, "helm.sh/"):
		add("it is of type %s, whose readers (ingress controllers, the kubelet, Helm) need plaintext, and which the API "+
			"server may check: %s", s.Type, beside)
	}
	for _, owner := range s.OwnerReferences {
		add("it is owned by %s %s, which may write it again: change it there, or %s", owner.Kind, owner.Name, beside)
	}
	if by := ciphertext.ManagedBy(s); by != "" {
		add("it is managed in Git by %s, which would restore the plaintext: encrypt it there", by)
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
			errs = append(errs, fmt.Errorf("entry %q: it is ciphertext already: if all are, the label %s makes it a "+
				"ciphertext Secret", entry, ciphertext.LabelTransitKey))
		}
	}
	if len(s.Data) == 0 {
		errs = append(errs, errors.New("it has no entries"))
	}
	return errors.Join(errs...)
}

// convertPatch returns the patch that makes a Secret the encrypted one if nothing at all
// was changed since it was read: values, labels, owners. So the plaintext is not sent
// once more.
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

// Plaintext returns the entries of a Secret that holds plaintext, to be encrypted into
// another ([Client.Apply]). It refuses a ciphertext Secret.
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

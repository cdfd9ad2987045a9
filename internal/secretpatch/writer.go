package secretpatch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/internal/kuberetry"
)

// MaxAttempts bounds the attempts at a write that keeps conflicting.
const MaxAttempts = 5

var (
	// ErrConflict is wrapped when the Secret was changed before each attempt to write it.
	ErrConflict = errors.New("the Secret kept changing")
	// ErrRejected is wrapped when the API server rejects a write of a Secret that nobody
	// changed: an admission policy, a webhook, or an immutable Secret.
	ErrRejected = errors.New("the API server rejects the Secret")
)

// A Writer writes Secrets of one cluster. It is safe for concurrent use.
type Writer struct {
	Kube     kubernetes.Interface
	Retry    *kuberetry.Retrier // nil: a failed request is not repeated
	DryRun   bool               // the API server checks and admits everything and stores nothing
	Attempts int                // 0 means MaxAttempts
}

// A Plan returns the patch for a Secret as it was just read, or nil if there is nothing
// to do. The Secret is nil if there is none of that name.
type Plan func(current *corev1.Secret) (*Patch, error)

// Write reads the Secret and does what [Writer.WriteFrom] does.
func (w Writer) Write(ctx context.Context, name types.NamespacedName, plan Plan) (*corev1.Secret, error) {
	current, err := w.read(ctx, name)
	if err != nil {
		return nil, err
	}
	return w.WriteFrom(ctx, name, current, plan)
}

// WriteFrom writes what plan returns for the Secret as it was read, and returns it as
// stored; nil if there was nothing to do. If somebody changed it meanwhile, WriteFrom
// reads it again and asks plan anew. Errors of plan are returned as they are.
func (w Writer) WriteFrom(ctx context.Context, name types.NamespacedName, current *corev1.Secret,
	plan Plan) (*corev1.Secret, error) {
	attempts := w.Attempts
	if attempts == 0 {
		attempts = MaxAttempts
	}
	for attempt := 1; ; attempt++ {
		patch, err := plan(current)
		if err != nil || patch == nil {
			return nil, err
		}
		stored, err := w.send(ctx, name, patch)
		if err == nil || !patch.conflict(err) {
			return stored, err
		}
		next, readErr := w.read(ctx, name)
		switch {
		case readErr != nil:
			return nil, fmt.Errorf("reading the Secret again: %w", readErr)
		case !w.DryRun && patch.storedIn(next):
			return next, nil // only the response was lost
		case current != nil && next != nil && next.UID == current.UID && next.ResourceVersion == current.ResourceVersion:
			return nil, fmt.Errorf("%w: %w: check what admits Secrets in namespace %s", ErrRejected, err, name.Namespace)
		case attempt == attempts:
			return nil, fmt.Errorf("%w before each of %d attempts to write it: %w", ErrConflict, attempts, err)
		}
		current = next
	}
}

func (w Writer) send(ctx context.Context, name types.NamespacedName, patch *Patch) (stored *corev1.Secret, err error) {
	var dryRun []string
	if w.DryRun {
		dryRun = []string{metav1.DryRunAll}
	}
	secrets := w.Kube.CoreV1().Secrets(name.Namespace)
	if patch.create != nil {
		return secrets.Create(ctx, patch.create, metav1.CreateOptions{DryRun: dryRun})
	}
	text, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	// The tests in the patch make it safe to send twice.
	err = w.Retry.Write(ctx, func() (err error) {
		stored, err = secrets.Patch(ctx, name.Name, types.JSONPatchType, text, metav1.PatchOptions{DryRun: dryRun})
		return err
	})
	return stored, err
}

// read returns the Secret, or nil if there is none.
func (w Writer) read(ctx context.Context, name types.NamespacedName) (s *corev1.Secret, err error) {
	err = w.Retry.Read(ctx, func() (err error) {
		s, err = w.Kube.CoreV1().Secrets(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return s, err
}

// conflict reports whether a write failed as it does if somebody else was faster. The
// response to a failed test of a JSON Patch is 422, without saying so.
func (p *Patch) conflict(err error) bool {
	if p.create != nil {
		return apierrors.IsAlreadyExists(err)
	}
	return apierrors.IsInvalid(err) || apierrors.IsConflict(err) || apierrors.IsNotFound(err)
}

// storedIn reports whether the Secret is the same object with the entries of the patch.
// Ciphertext is random, so nobody else can have written the same.
func (p *Patch) storedIn(s *corev1.Secret) bool {
	if s == nil || p.old == nil || s.UID != p.old.UID || len(p.set) == 0 {
		return false
	}
	for _, name := range p.set {
		if !bytes.Equal(s.Data[name], p.data[name]) {
			return false
		}
	}
	for _, name := range p.remove {
		if _, ok := s.Data[name]; ok {
			return false
		}
	}
	return true
}

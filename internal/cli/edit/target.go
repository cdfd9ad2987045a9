package edit

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/filesecret"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
	"github.com/secretmanager-io/secretmanager/internal/manifestfile"
	"github.com/secretmanager-io/secretmanager/transit"

	corev1 "k8s.io/api/core/v1"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// target is where the Secret is that is edited.
type target interface {
	// load reads it as it is now.
	load(ctx context.Context) (*corev1.Secret, error)
	// store changes it as it was loaded last, and returns it with the entries that
	// were set at least. The error wraps secretmanager.ErrChanged if it is not as it
	// was any more.
	store(ctx context.Context, was *corev1.Secret, change secretmanager.Spec) (*corev1.Secret, error)
	// told is how the user hears of it.
	told(what string) string
}

// inCluster is a Secret of the cluster.
type inCluster struct {
	kube            kubernetes.Interface
	client          *secretmanager.Client
	namespace, name string
}

func (c *inCluster) load(ctx context.Context) (*corev1.Secret, error) {
	s, err := c.kube.CoreV1().Secrets(c.namespace).Get(ctx, c.name, metav1.GetOptions{})
	if err != nil {
		return nil, display.Errorf("reading Secret %s/%s: %w", c.namespace, c.name, err)
	}
	if s.Immutable != nil && *s.Immutable {
		return nil, cli.WithHint(display.Errorf("the Secret %s/%s is immutable", c.namespace, c.name), "delete it and create it again, or use another name")
	}
	return s, nil
}

func (c *inCluster) store(ctx context.Context, was *corev1.Secret, change secretmanager.Spec) (*corev1.Secret, error) {
	return c.client.Update(ctx, was, change, secretmanager.Options{})
}

func (c *inCluster) told(what string) string { return display.Sprintf("secret/%s %s", c.name, what) }

// inManifest is a Secret of a manifest.
type inManifest struct {
	*cli.Factory
	vault      *transit.Session
	path, name string

	file *manifestfile.Editable // as it was loaded last
	at   *manifest.Secret
}

func (m *inManifest) load(context.Context) (*corev1.Secret, error) {
	file, err := manifestfile.OpenEditable(m.path)
	if err != nil {
		return nil, err
	}
	at, err := filesecret.Find(m.Factory, file, m.name)
	if err != nil {
		return nil, err
	}
	if at == nil {
		var have []error
		for _, s := range file.Manifest.Secrets {
			have = append(have, display.Errorf("line %d: Secret %s", s.Line, filesecret.Describe(s)))
		}
		if len(have) == 0 {
			have = append(have, errors.New("it has none at all"))
		}
		return nil, manifestfile.WithName(m.path, display.Errorf("there is no such ciphertext Secret in it:\n%w", errors.Join(have...)))
	}
	m.file, m.at = file, at
	return filesecret.AsStored(m.Factory, file, at)
}

func (m *inManifest) store(ctx context.Context, was *corev1.Secret, change secretmanager.Spec) (*corev1.Secret, error) {
	sealed, err := secretmanager.EncryptUpdate(ctx, m.vault, was, change)
	if err != nil {
		return nil, err
	}
	is := was.DeepCopy()
	if len(sealed) > 0 {
		is.Data = sealed
		if err := secretmanager.Verify(ctx, m.vault, is); err != nil {
			return nil, err
		}
	}
	if m.file.Content, err = m.file.Manifest.Edit(m.at, sealed, change.Remove); err != nil {
		return nil, manifestfile.WithName(m.path, err)
	}
	err = manifestfile.Write([]*manifestfile.Editable{m.file}, io.Discard, os.Rename)
	if errors.Is(err, manifestfile.ErrChanged) {
		err = display.Errorf("%w: %w", secretmanager.ErrChanged, err)
	}
	return is, err
}

func (m *inManifest) told(what string) string {
	return display.Sprintf("%s: secret/%s %s", m.path, m.at.Name, what)
}

// managedBy is who will put back what is written, empty for nobody: only the
// cluster knows of it.
func managedBy(target target, s *corev1.Secret) string {
	if _, ok := target.(*inCluster); !ok {
		return ""
	}
	return ciphertext.ManagedBy(s)
}

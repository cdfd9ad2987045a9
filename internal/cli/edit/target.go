package edit

import (
	"context"
	"errors"
	"io"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/filesecret"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
	"github.com/secretmanager-io/secretmanager/internal/manifestfile"
)

// target is the location of the edited Secret.
type target interface {
	// load reads the Secret.
	load(ctx context.Context) (*corev1.Secret, error)
	// store changes the Secret as it was loaded, and returns it with at least the entries that were
	// set. The error wraps secretmanager.ErrChanged if the Secret has changed since.
	store(ctx context.Context, loaded *corev1.Secret, change secretmanager.Spec) (*corev1.Secret, error)
	// managedBy returns who else writes the loaded Secret.
	managedBy(loaded *corev1.Secret) ciphertext.Manager
	// check reports whether the loaded Secret may be changed.
	check(loaded *corev1.Secret) error
	// describe returns a line with the outcome.
	describe(outcome string) string
}

// inCluster is a Secret of the cluster.
type inCluster struct {
	kube            kubernetes.Interface
	client          *secretmanager.Client
	namespace, name string
	options         secretmanager.Options
}

func (c *inCluster) load(ctx context.Context) (*corev1.Secret, error) {
	s, err := c.kube.CoreV1().Secrets(c.namespace).Get(ctx, c.name, metav1.GetOptions{})
	if err != nil {
		return nil, display.Errorf("reading Secret %s/%s: %w", c.namespace, c.name, err)
	}
	if s.Immutable != nil && *s.Immutable {
		return nil, cli.WithHint(display.Errorf("the Secret %s/%s is immutable", c.namespace, c.name),
			"delete it and create it again, or use another name")
	}
	return s, nil
}

func (c *inCluster) store(ctx context.Context, loaded *corev1.Secret,
	change secretmanager.Spec) (*corev1.Secret, error) {
	return c.client.Update(ctx, loaded, change, c.options)
}

func (c *inCluster) managedBy(loaded *corev1.Secret) ciphertext.Manager {
	return ciphertext.ManagedBy(loaded)
}

func (c *inCluster) check(loaded *corev1.Secret) error {
	if err := c.options.CheckManager(loaded); err != nil {
		return display.Errorf("editing Secret %s/%s: %w", c.namespace, c.name, err)
	}
	return nil
}

func (c *inCluster) describe(outcome string) string {
	return display.Sprintf("secret/%s %s", c.name, outcome)
}

// inManifest is a Secret of a manifest.
type inManifest struct {
	*cli.Factory
	vault      *cli.EncryptingSession
	path, name string

	file   *manifestfile.File // as it was loaded last
	secret *manifest.Secret
}

func (m *inManifest) load(context.Context) (*corev1.Secret, error) {
	file, err := manifestfile.OpenEditable(m.path)
	if err != nil {
		return nil, err
	}
	secret, err := filesecret.Find(m.Factory, file, m.name)
	if err != nil {
		return nil, err
	}
	if secret == nil {
		var have []error
		for _, s := range file.Manifest.Secrets {
			have = append(have, display.Errorf("line %d: %s", s.Line, s))
		}
		if len(have) == 0 {
			have = append(have, errors.New("it has no ciphertext Secret"))
		}
		return nil, manifestfile.WithName(m.path, display.Errorf("no ciphertext Secret matches:\n%w", errors.Join(have...)))
	}
	if err := secret.CheckMutable(); err != nil {
		return nil, manifestfile.WithName(m.path, err)
	}
	m.file, m.secret = file, secret
	return filesecret.AsStored(m.Factory, file, secret)
}

func (m *inManifest) store(ctx context.Context, loaded *corev1.Secret,
	change secretmanager.Spec) (*corev1.Secret, error) {
	encrypted, err := secretmanager.EncryptUpdate(ctx, m.vault, loaded, change)
	if err != nil {
		return nil, err
	}
	stored := loaded.DeepCopy()
	if len(encrypted) > 0 {
		stored.Data = encrypted
		if err := secretmanager.Verify(ctx, m.vault, stored); err != nil {
			return nil, err
		}
	}
	if m.file.Content, err = m.file.Manifest.Edit(m.secret, encrypted, change.Remove); err != nil {
		return nil, manifestfile.WithName(m.path, err)
	}
	err = manifestfile.Write([]*manifestfile.File{m.file}, io.Discard, os.Rename)
	if errors.Is(err, manifestfile.ErrChanged) {
		err = display.Errorf("%w: %w", secretmanager.ErrChanged, err)
	}
	return stored, err
}

func (m *inManifest) managedBy(*corev1.Secret) ciphertext.Manager { return ciphertext.Manager{} }

func (m *inManifest) check(*corev1.Secret) error { return nil }

func (m *inManifest) describe(outcome string) string {
	return display.Sprintf("%s: secret/%s %s", m.path, m.secret.Name, outcome)
}

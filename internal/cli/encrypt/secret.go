package encrypt

import (
	"context"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// readSecret reads the entries of the Secret of --from-secret, if it is set.
func (o *Options) readSecret(ctx context.Context, vault *cli.EncryptingSession, spec *secretmanager.Spec) error {
	if o.fromSecret == "" {
		return nil
	}
	kube, err := o.KubeClient()
	if err != nil {
		return err
	}
	namespace := spec.Namespace
	if namespace == "" { // the scope binds to no namespace
		if namespace, err = o.ClusterNamespace(); err != nil {
			return err
		}
	}
	spec.Entries, err = secretmanager.New(vault, kube).Plaintext(ctx, namespace, o.fromSecret)
	// Empty entries have been stored on purpose.
	spec.AllowEmpty = true
	return err
}

// convert converts a plaintext Secret to ciphertext.
func (o *Options) convert(ctx context.Context, vault *cli.EncryptingSession, spec secretmanager.Spec) error {
	namespace, err := o.ClusterNamespace()
	if err != nil {
		return err
	}
	kube, err := o.KubeClient()
	if err != nil {
		return err
	}
	secret, err := secretmanager.New(vault, kube).Convert(ctx, namespace, spec.Name, spec.Settings, o.writeOptions())
	if err != nil {
		return err
	}
	if hint := ciphertext.ManagedBy(secret).Hint; hint != "" {
		display.Fprintf(o.ErrOut, "note: %s\n", hint)
	}
	spec.Entries = secret.Data
	if err := o.done(vault, secret, spec, "converted"+o.dry()); err != nil {
		return err
	}
	display.Fprintf(o.ErrOut, "note: the plaintext is still in the history and the backups of etcd: if that matters, "+
		"encrypt new values\n")
	display.Fprintf(o.ErrOut, "note: pods that use Secret %s/%s directly, as variables or as a volume, read "+
		"ciphertext from now on: mount it with the provider; --print-class shows how\n", namespace, spec.Name)
	return nil
}

// Package verify is the verb verify: it checks that every entry of ciphertext Secrets decrypts.
package verify

import (
	"context"
	"errors"
	"slices"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/inventory"
	"github.com/secretmanager-io/secretmanager/internal/manifestfile"
)

// Options are the options of verify.
type Options struct {
	*cli.Factory
	all       bool
	selector  string
	files     []string
	recursive bool
	output    string
	names     []string

	namespaces []string // that were listed; none: all

	rows   []*secretResult
	ofFile map[*corev1.Secret]*secretResult // of Secrets that wait for Vault
	bar    *progressbar.ProgressBar         // nil without a terminal
}

// NewCommand returns the command verify.
func NewCommand(p *cli.Factory) *cobra.Command {
	o := &Options{Factory: p, ofFile: map[*corev1.Secret]*secretResult{}}
	c := &cobra.Command{
		Use:   "verify [NAME...]",
		Short: "Report whether every entry decrypts at its location",
		Long: `Report whether every entry of ciphertext Secrets decrypts at its location with its
key: Vault rewraps it, and the result is discarded. Nothing is changed and nothing is
decrypted. The token needs only update on the rewrap path of the keys.

This covers the ciphertext Secrets of a namespace, or of several that -n names, the
named ones, or with -f those in manifests, which needs no cluster and works before they are applied. Manifests are
YAML or JSON, of one document or several; -R reads directories, as secretmanager
rewrap does. A manifest without a namespace is in the one that kubectl would use.

RESULT is
  decrypts  every entry does
  fails     some entry does not: standard error says which, and what to check
  unknown   Vault did not check every entry

The exit code is 3 if something fails, and 1 if something is unknown or no Secret was
found. A namespace or Secret that does not exist is an error.`,
		Example: `  secretmanager verify matrix-secrets -n demo
  secretmanager verify -A -o json
  secretmanager verify -f matrix-secrets.yaml
  secretmanager verify -R -f deploy/ -n demo`,
		RunE: cli.RunE(o),
	}
	cli.AllNamespacesFlag(c, &o.all)
	cli.SelectorFlag(c, &o.selector)
	cli.FilenameFlags(c, &o.files, &o.recursive)
	cli.OutputFlag(c, &o.output, "wide", "json", "yaml", "name")
	return c
}

// Complete implements cli.Options.
func (o *Options) Complete(_ *cobra.Command, args []string) error {
	o.names = args
	return nil
}

// Validate implements cli.Options.
func (o *Options) Validate() error {
	var p cli.Problems
	p.Add(cli.ValidateOutput(o.output, "wide", "json", "yaml", "name"), cli.ValidateSelector(o.selector))
	if len(o.files) == 0 {
		p.Add(o.ValidateNamespaces(o.all))
	}
	p.If(len(o.names) > 0 && (o.all || o.selector != "" || len(o.files) > 0), "NAME cannot be combined with -A, -l or -f")
	p.If(len(o.files) > 0 && (o.all || o.selector != ""), "-f cannot be combined with -A or -l")
	p.If(o.recursive && len(o.files) == 0, "-R needs directories that -f names")
	return p.Err()
}

// Run implements cli.Options.
func (o *Options) Run(ctx context.Context) error {
	vault, err := o.VaultSession()
	if err != nil {
		return err
	}
	o.bar = o.NewBar("Secrets")
	verifier := secretmanager.NewVerifier(vault, o.take)
	var unread error
	if len(o.files) > 0 {
		unread, err = o.addFiles(ctx, verifier)
	} else {
		unread, err = o.addCluster(ctx, verifier, o.names)
	}
	if err == nil {
		err = verifier.Flush(ctx)
	}
	if o.bar != nil {
		o.bar.Finish()
	}
	if errors.Is(unread, manifestfile.ErrMixed) {
		return cli.Usage(unread)
	}
	if errors.As(unread, new(cli.UsageError)) {
		return unread
	}
	return o.report(errors.Join(unread, err))
}

// addCluster adds the Secrets of the cluster. It returns read errors as unread, and an error that
// ends the command as err.
func (o *Options) addCluster(ctx context.Context, verifier *secretmanager.Verifier,
	names []string) (unread, err error) {
	if o.namespaces, err = o.Namespaces(o.all); err != nil {
		return nil, err
	}
	kube, err := o.KubeClient()
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		found := map[string]bool{}
		unread, err = inventory.EachCiphertext(ctx, kube, o.namespaces, o.selector, func(s *corev1.Secret) error {
			found[s.Namespace] = true
			return verifier.Add(ctx, s)
		})
		empty := slices.DeleteFunc(slices.Clone(o.namespaces), func(n string) bool { return found[n] })
		return errors.Join(unread, o.CheckNamespaces(ctx, kube, empty)), err
	}
	namespace, err := o.ClusterNamespace()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, name := range names {
		if seen[name] {
			continue
		}
		seen[name] = true
		secret, err := kube.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			unread = errors.Join(unread, display.Errorf("reading Secret %s/%s: %w", namespace, name, err))
			continue
		}
		if err := verifier.Add(ctx, secret); err != nil {
			return unread, err
		}
	}
	return unread, nil
}

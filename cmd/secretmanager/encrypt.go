package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

type encrypt struct {
	*program
	from              sources
	key, mount, scope string
	output, dryRun    string
}

func newEncrypt(p *program) *cobra.Command {
	o := &encrypt{program: p}
	c := &cobra.Command{
		Use:   "encrypt NAME --from-file [ENTRY=]FILE",
		Short: "Encrypt values into a ciphertext Secret",
		Long: `Encrypt values with Vault transit and write them to Secret NAME, as one entry
each. If the Secret exists, the named entries are replaced or added and all
others stay; key, mount and scope are taken from it where they are not given.

Afterwards it has been proved that what is stored opens where it is bound. That
takes a Vault token that may read the key, encrypt and rewrap, not decrypt.

With --dry-run=client -o yaml the manifest is written to standard output and no
cluster is needed. It is bound to its namespace and name all the same.`,
		Example: `  # a file, and a token from the environment, into Secret matrix-secrets
  secretmanager encrypt matrix-secrets -n demo --transit-key matrix \
      --from-file secrets.json --from-literal api-token="$TOKEN"

  # one entry from standard input, over an older value: the key is known by now
  printf %s "$TOKEN" | secretmanager encrypt matrix-secrets -n demo --from-file api-token=-

  # a manifest for Git
  secretmanager encrypt matrix-secrets -n demo --transit-key matrix \
      --from-env-file app.env --dry-run=client -o yaml > matrix-secrets.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	f := c.Flags()
	f.StringArrayVar(&o.from.files, "from-file", nil, "[ENTRY=]FILE to encrypt, the entry being named as the file unless told; ENTRY=- is standard input (repeatable)")
	f.StringArrayVar(&o.from.literals, "from-literal", nil, "ENTRY=VALUE to encrypt; other users of the machine may see it in the process list (repeatable)")
	f.StringArrayVar(&o.from.envFiles, "from-env-file", nil, "file of lines ENTRY=VALUE, each to be an entry (repeatable)")
	f.StringVar(&o.key, "transit-key", "", "name of the transit key (default that of the existing Secret)")
	f.StringVar(&o.mount, "transit-mount", "", "path of the transit engine (default that of the existing Secret, or else transit)")
	f.StringVar(&o.scope, "scope", "", "how far the ciphertext may be moved: strict (nowhere), namespace, cluster or none (default that of the existing Secret, or else strict)")
	f.StringVarP(&o.output, "output", "o", "", "print the Secret as yaml, json or name")
	f.StringVar(&o.dryRun, "dry-run", "none", "none, client (encrypt, and touch no cluster) or server (have the cluster check it and store nothing)")
	words(c, "output", "yaml", "json", "name")
	words(c, "dry-run", "none", "client", "server")
	return c
}

func (o *encrypt) run(ctx context.Context, name string) error {
	var errs []error
	errs = append(errs, checkOutput(o.output, "yaml", "json", "name"))
	if o.dryRun != "none" && o.dryRun != "client" && o.dryRun != "server" {
		errs = append(errs, fmt.Errorf("--dry-run %q is none of none, client, server", o.dryRun))
	}
	if o.dryRun == "client" && o.key == "" {
		errs = append(errs, errors.New("--transit-key is missing: without a cluster nothing else tells the key"))
	}
	if _, err := ciphertext.ParseScope(o.scope); err != nil {
		errs = append(errs, fmt.Errorf("--scope: %w", err))
	}
	entries, err := o.from.read(o.In)
	if err := errors.Join(append(errs, err)...); err != nil {
		return usage(err)
	}
	spec := secretmanager.Spec{
		Name: name, Entries: entries,
		Settings: ciphertext.Settings{Key: o.key, Mount: o.mount, Scope: ciphertext.Scope(o.scope)},
	}
	vault, err := o.vault()
	if err != nil {
		return err
	}
	if o.dryRun == "client" {
		return o.offline(ctx, vault, spec)
	}
	return o.online(ctx, vault, spec)
}

// offline makes a manifest and asks no cluster.
func (o *encrypt) offline(ctx context.Context, vault *transit.Session, spec secretmanager.Spec) (err error) {
	if spec.Namespace, err = o.offlineNamespace(); err != nil {
		return err
	}
	if scope, _ := ciphertext.ParseScope(o.scope); spec.Namespace == "" && (scope == ciphertext.Strict || scope == ciphertext.Namespace) {
		return usagef("no namespace: scope %s binds the ciphertext to one; name it with -n, as there is no kubeconfig that would", scope)
	}
	secret, err := secretmanager.Seal(ctx, vault, spec)
	if err != nil {
		return err
	}
	if err := secretmanager.Prove(ctx, vault, secret); err != nil {
		return err
	}
	return o.done(secret, spec, "created (dry run)")
}

// online writes to the cluster.
func (o *encrypt) online(ctx context.Context, vault *transit.Session, spec secretmanager.Spec) (err error) {
	if spec.Namespace, err = o.clusterNamespace(); err != nil {
		return err
	}
	kube, err := o.clientset()
	if err != nil {
		return err
	}
	if err := inherit(ctx, kube, &spec); err != nil {
		return err
	}
	secret, outcome, err := secretmanager.New(vault, kube).Create(ctx, spec, secretmanager.CreateOptions{DryRun: o.dryRun == "server"})
	if err != nil {
		return err
	}
	did := string(outcome)
	if o.dryRun == "server" {
		did += " (server dry run)"
	}
	return o.done(secret, spec, did)
}

// inherit takes the settings that were not given from the Secret, if it exists.
func inherit(ctx context.Context, kube kubernetes.Interface, spec *secretmanager.Spec) error {
	existing, err := kube.CoreV1().Secrets(spec.Namespace).Get(ctx, spec.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) && spec.Settings.Key == "":
		return usagef("--transit-key is missing: there is no Secret %s/%s yet to take it from", spec.Namespace, spec.Name)
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("reading Secret %s/%s: %w", spec.Namespace, spec.Name, err)
	case existing.Labels[ciphertext.LabelTransitKey] == "" && spec.Settings.Key == "":
		return hinted(fmt.Errorf("there is a Secret %s/%s that is no ciphertext Secret: it has no label %s to take the key from", spec.Namespace, spec.Name, ciphertext.LabelTransitKey),
			"choose another name, or delete that Secret if nothing needs it")
	case existing.Labels[ciphertext.LabelTransitKey] == "":
		return nil // Create says what to make of it
	}
	set, err := ciphertext.SettingsOf(existing)
	if err != nil {
		return fmt.Errorf("reading the settings of Secret %s/%s: %w", spec.Namespace, spec.Name, err)
	}
	if spec.Settings.Key == "" {
		spec.Settings.Key = set.Key
	}
	if spec.Settings.Mount == "" {
		spec.Settings.Mount = set.Mount
	}
	if spec.Settings.Scope == "" {
		spec.Settings.Scope = set.Scope
	}
	return nil
}

// done says what was done.
func (o *encrypt) done(secret *corev1.Secret, spec secretmanager.Spec, did string) error {
	set, err := ciphertext.SettingsOf(secret)
	if err != nil {
		return err
	}
	names := ciphertext.Entries(spec.Entries)
	where := secret.Name
	if secret.Namespace != "" {
		where = secret.Namespace + "/" + where
	}
	_, newest, _ := ciphertext.Versions(secret.Data)
	fmt.Fprintf(o.ErrOut, "encrypted %s into %s with %s, version %d: %s\n", plural(len(names), "entry", "entries"),
		where, transit.Key{Mount: set.Mount, Name: set.Key}, newest, strings.Join(names, ", "))
	fmt.Fprintf(o.ErrOut, "proved that they open, bound to %s (scope %s)\n", bound(set.Scope, secret), set.Scope)
	if o.output != "" {
		return o.printSecret(secret, o.output)
	}
	_, err = fmt.Fprintf(o.Out, "secret/%s %s\n", secret.Name, did)
	return err
}

func bound(scope ciphertext.Scope, secret *corev1.Secret) string {
	if scope == ciphertext.Strict {
		return secret.Namespace + "/" + secret.Name + " and their entry"
	}
	return scope.Place(secret.Namespace, secret.Name, "")
}

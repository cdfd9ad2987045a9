// Package encrypt is the verb encrypt: it encrypts values into a ciphertext Secret of the
// cluster or of a manifest.
package encrypt

import (
	"bytes"
	"cmp"
	"context"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/entrysource"
	"github.com/secretmanager-io/secretmanager/internal/options"
)

// Options are the options of encrypt.
type Options struct {
	*cli.Factory
	from              entrysource.Sources
	fromSecret        string
	replace           bool
	mergeInto         string
	key, mount, scope string
	output, dryRun    string
	class             bool
	account           string
	settle            options.Settle
	includeManaged    bool
	name              string
	entries           map[string][]byte // of the sources
}

// NewCommand returns the command encrypt.
func NewCommand(p *cli.Factory) *cobra.Command {
	o := &Options{Factory: p}
	c := &cobra.Command{
		Use:   "encrypt NAME --from-file [ENTRY=]FILE",
		Short: "Encrypt values into a ciphertext Secret",
		Long: `Encrypt values with Vault transit and write them to Secret NAME, one entry for each.
If the Secret exists, the named entries are replaced or added and all others stay,
byte for byte; key, mount and scope default to those of the Secret. All values are
encrypted in one request, and nothing is written if one of them fails.

The result is verified to decrypt at its location. The Vault token must be allowed to
read the key, encrypt and rewrap, but not decrypt.

With --dry-run=client -o yaml the manifest is printed and no cluster is needed. The
ciphertext is bound to its namespace and name all the same.

With --merge-into FILE the entries go into the Secret of that name in a manifest, YAML
or JSON, of one document or several, and everything else in it stays byte for byte. A
missing Secret is added as one more document, and a missing file is created.

With --from-secret SOURCE the entries are those of a plaintext Secret in the same
namespace, and NAME is a new ciphertext Secret beside it. Delete SOURCE when nothing
reads it any more.

With --from-secret NAME --replace the Secret itself becomes ciphertext: in one write,
after the ciphertext has been verified, and only if the Secret has not changed since
it was read. Nothing is deleted. Its type stays, and the copy of the plaintext that
kubectl apply keeps in an annotation is removed. The command refuses types whose readers
need plaintext (such as TLS and image pulls), Secrets with an annotation or a label that
contains a value, and Secrets that are immutable. Backups and the history of etcd keep the
plaintext: only a new value fixes that. Pods that use the Secret directly, as variables or
as a volume, will read ciphertext.

A Secret that somebody else writes, such as Argo CD, Flux, Helm or a controller that owns
it, is refused: they would revert the change, and the new value would be lost. Change the
manifest instead, with --merge-into. --include-managed writes the Secret anyway.`,
		Example: `  # a file, and a token from the environment, into Secret matrix-secrets
  secretmanager encrypt matrix-secrets -n demo --transit-key matrix \
      --from-file secrets.json --from-literal api-token="$TOKEN"

  # one entry from standard input, over an older value: the key is known by now
  printf %s "$TOKEN" | secretmanager encrypt matrix-secrets -n demo --from-file api-token=-

  # a manifest for Git, and later one more entry in it
  secretmanager encrypt matrix-secrets -n demo --transit-key matrix \
      --from-env-file app.env --dry-run=client -o yaml > matrix-secrets.yaml
  secretmanager encrypt matrix-secrets --from-file api-token=token.txt --merge-into matrix-secrets.yaml

  # the fields of what another tool prints
  vault kv get -format=json -field=data kv/matrix | secretmanager encrypt matrix-secrets -n demo --from-stdin-json

  # a plaintext Secret into one beside it, with the class and the volume to mount it
  secretmanager encrypt matrix-secrets -n demo --transit-key matrix \
      --from-secret matrix-plain --print-class --service-account matrix

  # a plaintext Secret into ciphertext, in place
  secretmanager encrypt matrix-plain -n demo --transit-key matrix --from-secret matrix-plain --replace`,
		Args: cobra.ExactArgs(1),
		RunE: cli.RunE(o),
	}
	o.addFlags(c)
	return c
}

func (o *Options) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&o.from.Files, "from-file", nil,
		"`[ENTRY=]FILE` to encrypt; the entry defaults to the name of the file, and ENTRY=- is standard input (repeatable)")
	f.StringArrayVar(&o.from.Literals, "from-literal",
		nil, "`ENTRY=VALUE` to encrypt; it may stay in the history of the shell, and other users may see it in "+
			"the process list (repeatable)")
	f.StringArrayVar(&o.from.EnvFiles, "from-env-file", nil, "`file` with a line ENTRY=VALUE for each entry (repeatable)")
	f.BoolVar(&o.from.JSON, "from-stdin-json", false,
		"read a JSON object from standard input, with a field for each entry: a string as it is, anything else as JSON")
	f.StringVar(&o.fromSecret, "from-secret", "", "plaintext `Secret` of the same namespace, whose entries are encrypted")
	f.BoolVar(&o.replace, "replace", false, "convert the Secret of --from-secret itself to ciphertext")
	f.StringVar(&o.mergeInto, "merge-into", "", "manifest `file` to write to, instead of the cluster")
	f.StringVar(&o.key, "transit-key", "", "name of the transit `key` (default: that of the existing Secret)")
	options.PathVar(f, &o.mount, "transit-mount",
		"", "`path` of the transit engine (default: that of the existing Secret, or transit)")
	f.StringVar(&o.scope, "scope", "", "how far the ciphertext can be moved: strict (nowhere), namespace, cluster or "+
		"none (default: that of the existing Secret, or strict)")
	cli.OutputFlag(c, &o.output, "json", "yaml", "name")
	cli.DryRunFlag(c, &o.dryRun, "client", "server")
	o.settle.AddFlags(f, o.Getenv)
	cli.IncludeManagedFlag(f, &o.includeManaged)
	f.BoolVar(&o.class, "print-class", false, "also print the SecretProviderClass, and what a pod needs to mount it")
	f.StringVar(&o.account, "service-account", "default", "service account of the pods, for --print-class")
}

// Complete implements cli.Options.
func (o *Options) Complete(_ *cobra.Command, args []string) error {
	o.name = args[0]
	return nil
}

// Validate implements cli.Options. It reads the sources, whose problems are among those reported.
func (o *Options) Validate() error {
	var p cli.Problems
	p.Add(cli.ValidateOutput(o.output, "json", "yaml", "name"),
		cli.ValidateValue("--dry-run", o.dryRun, "none", "client", "server"))
	p.Add(o.settle.Validate()...)
	if _, err := ciphertext.ParseScope(o.scope); err != nil {
		p.Add(display.Errorf("--scope: %w", err))
	}
	p.If(o.dryRun == "client" && o.key == "" && o.mergeInto == "",
		"--transit-key is required: without a cluster, nothing else names the key")
	p.If(o.fromSecret != "" && !o.from.None(), "--from-secret cannot be combined with other sources of entries")
	p.If(o.replace && o.fromSecret == "", "--replace needs --from-secret")
	p.If(o.replace && o.fromSecret != "" && o.name != o.fromSecret,
		"--replace converts the Secret of --from-secret itself: NAME must be the same")
	p.If(!o.replace && o.fromSecret == o.name,
		"NAME and --from-secret are the same Secret: choose another name, or set --replace")
	p.If(o.replace && o.mergeInto != "", "--replace cannot be combined with --merge-into")
	p.If(o.replace && o.key == "", "--transit-key is required: a plaintext Secret does not name a key")
	p.If(o.replace && o.dryRun == "client", "--replace cannot be combined with --dry-run=client: use --dry-run=server")
	p.If(o.mergeInto == "-", "--merge-into needs the name of a file")
	p.If(o.mergeInto != "" && o.output != "", "-o cannot be combined with --merge-into")
	p.If(o.mergeInto != "" && o.dryRun == "server",
		"--merge-into cannot be combined with --dry-run=server: use --dry-run=client")
	p.If(o.class && o.output != "" && o.output != "yaml", "--print-class needs -o yaml, or no -o")
	prompt, lines := o.from.Prompt()
	switch {
	case o.fromSecret != "":
	case prompt != "" && cli.IsTerminal(o.In):
		if err := p.Err(); err != nil { // before anybody types a value that would be lost
			return err
		}
		typed, err := o.ReadHidden(prompt, lines)
		if err != nil {
			return err
		}
		o.entries, err = o.from.Read(bytes.NewReader(typed))
		p.Add(err)
	default:
		var err error
		o.entries, err = o.from.Read(o.In)
		p.Add(err)
	}
	return p.Err()
}

// Run implements cli.Options.
func (o *Options) Run(ctx context.Context) error {
	if len(o.from.Literals) > 0 && cli.IsTerminal(o.ErrOut) {
		display.Fprintf(o.ErrOut, "note: values of --from-literal may stay in the history of your shell: --from-file "+
			"ENTRY=- reads them from standard input\n")
	}
	spec := secretmanager.Spec{
		Name: o.name, Entries: o.entries, Settle: o.settle.Duration,
		Settings: ciphertext.Settings{Key: ciphertext.Key{Mount: o.mount, Name: o.key}, Scope: ciphertext.Scope(o.scope)},
	}
	vault, err := o.EncryptingVaultSession()
	if err != nil {
		return err
	}
	switch {
	case o.replace:
		return o.convert(ctx, vault, spec)
	case o.mergeInto != "":
		return o.intoFile(ctx, vault, spec)
	case o.dryRun == "client":
		return o.offline(ctx, vault, spec)
	}
	return o.online(ctx, vault, spec)
}

// offline makes a manifest without a cluster.
func (o *Options) offline(ctx context.Context, vault *cli.EncryptingSession, spec secretmanager.Spec) (err error) {
	if spec.Namespace, err = o.bindTo(spec.Settings.Scope); err != nil {
		return err
	}
	if err := o.readSecret(ctx, vault, &spec); err != nil {
		return err
	}
	secret, err := o.encrypt(ctx, vault, spec)
	if err != nil {
		return err
	}
	return o.done(vault, secret, spec, "created (dry run)")
}

// bindTo returns the namespace to bind to without a cluster.
func (o *Options) bindTo(scope ciphertext.Scope) (string, error) {
	namespace, err := o.OfflineNamespace()
	if err != nil {
		return "", err
	}
	if scope, _ := ciphertext.ParseScope(string(scope)); namespace == "" &&
		(scope == ciphertext.Strict || scope == ciphertext.Namespace) {
		return "", cli.Usagef("no namespace: scope %s binds the ciphertext to one; set -n, as no kubeconfig names one", scope)
	}
	return namespace, nil
}

// encrypt returns a verified Secret.
func (o *Options) encrypt(ctx context.Context, vault *cli.EncryptingSession,
	spec secretmanager.Spec) (*corev1.Secret, error) {
	secret, err := secretmanager.Encrypt(ctx, vault, spec)
	if err != nil {
		return nil, err
	}
	return secret, secretmanager.Verify(ctx, vault, secret)
}

// online writes to the cluster.
func (o *Options) online(ctx context.Context, vault *cli.EncryptingSession, spec secretmanager.Spec) (err error) {
	if spec.Namespace, err = o.ClusterNamespace(); err != nil {
		return err
	}
	if err := o.readSecret(ctx, vault, &spec); err != nil {
		return err
	}
	kube, err := o.KubeClient()
	if err != nil {
		return err
	}
	manager, err := o.inherit(ctx, kube, &spec)
	if err != nil {
		return err
	}
	o.noteManager(manager)
	secret, outcome, err := secretmanager.New(vault, kube).Apply(ctx, spec, o.writeOptions())
	if err != nil {
		return err
	}
	return o.done(vault, secret, spec, string(outcome)+o.dry())
}

// noteManager says that another program manages the Secret. If that prevents the change, the error says so.
func (o *Options) noteManager(m ciphertext.Manager) {
	if m.Hint != "" && (!m.Reverts || o.includeManaged) {
		display.Fprintf(o.ErrOut, "note: %s\n", m.Hint)
	}
}

func (o *Options) writeOptions() secretmanager.Options {
	return secretmanager.Options{DryRun: o.dryRun == "server", IncludeManaged: o.includeManaged,
		Settle: o.settle.Duration}
}

// dry returns the suffix of a dry run.
func (o *Options) dry() string {
	switch o.dryRun {
	case "server":
		return " (server dry run)"
	case "client":
		return " (dry run)"
	}
	return ""
}

// inherit takes unset settings from the Secret, if it exists, and returns who else writes it.
func (o *Options) inherit(ctx context.Context, kube kubernetes.Interface,
	spec *secretmanager.Spec) (manager ciphertext.Manager, err error) {
	existing, err := kube.CoreV1().Secrets(spec.Namespace).Get(ctx, spec.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) && spec.Settings.Key.Name == "":
		return manager, o.onlyKey(ctx, spec)
	case apierrors.IsNotFound(err):
		return manager, nil
	case err != nil:
		return manager, display.Errorf("reading Secret %s/%s: %w", spec.Namespace, spec.Name, err)
	case existing.Labels[ciphertext.LabelTransitKey] == "" && spec.Settings.Key.Name == "":
		return manager, cli.WithHint(
			display.Errorf("Secret %s/%s exists and is not a ciphertext Secret: it has no label %s with the key",
				spec.Namespace, spec.Name, ciphertext.LabelTransitKey),
			"choose another name, or delete the Secret if nothing needs it; --from-secret --replace converts a plaintext Secret")
	case existing.Labels[ciphertext.LabelTransitKey] == "":
		return manager, nil // Apply returns the error
	}
	set, err := ciphertext.SettingsOf(existing)
	if err != nil {
		return manager, display.Errorf("reading the settings of Secret %s/%s: %w", spec.Namespace, spec.Name, err)
	}
	fill(&spec.Settings, set)
	return ciphertext.ManagedBy(existing), nil
}

// fill sets unset settings.
func fill(set *ciphertext.Settings, from ciphertext.Settings) {
	set.Key.Name, set.Key.Mount = cmp.Or(set.Key.Name, from.Key.Name), cmp.Or(set.Key.Mount, from.Key.Mount)
	set.Scope = cmp.Or(set.Scope, from.Scope)
}

// done reports the result.
func (o *Options) done(vault *cli.EncryptingSession, secret *corev1.Secret, spec secretmanager.Spec,
	did string) error {
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
	display.Fprintf(o.ErrOut, "encrypted %s into %s with %s, version %d: %s\n", cli.Plural(len(names), "entry", "entries"),
		where, set.Key, newest, strings.Join(names, ", "))
	display.Fprintf(o.ErrOut, "verified that they decrypt, bound to %s (scope %s)\n", bound(set.Scope, secret), set.Scope)
	vault.NoteUnsettled(o.ErrOut, set.Key)
	switch {
	case o.output != "":
		err = o.PrintSecret(secret, o.output)
	case o.class:
		// Standard output is for kubectl.
		_, err = display.Fprintf(o.ErrOut, "secret/%s %s\n", secret.Name, did)
	default:
		_, err = display.Fprintf(o.Out, "secret/%s %s\n", secret.Name, did)
	}
	if err == nil && o.class {
		err = o.printClass(secret, set, o.account)
	}
	return err
}

func bound(scope ciphertext.Scope, secret *corev1.Secret) string {
	if scope == ciphertext.Strict {
		return secret.Namespace + "/" + secret.Name + " and their entry"
	}
	return scope.Describe(secret.Namespace, secret.Name, "")
}

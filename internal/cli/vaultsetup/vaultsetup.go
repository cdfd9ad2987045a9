// Package vaultsetup is the verb vault-setup: it prints or applies what internal/vaultsetup
// finds necessary.
package vaultsetup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/options"
	"github.com/secretmanager-io/secretmanager/internal/vaultsetup"
)

// Options are the options of vault-setup.
type Options struct {
	*cli.Factory
	apply                     bool
	retire, trim              bool
	patterns                  bool
	key, mount                string
	authMount, authType       string
	audience                  string
	account, role             string
	author, authorRole        string
	rotator, rotatorRole      string
	authTypeGiven             bool
	rotatorOnly, perNamespace bool
	auditHeaders              bool
	others                    []string // flags that --audit-headers does not take
	accessor                  string
	output                    string
	setup                     vaultsetup.Setup
}

// NewCommand returns the command vault-setup.
func NewCommand(p *cli.Factory) *cobra.Command {
	o := &Options{Factory: p}
	c := &cobra.Command{
		Use:   "vault-setup --transit-key KEY --service-account NAME",
		Short: "Print or apply what Vault needs: key, policies and roles",
		Long: `Print the transit key, the least-privilege policies and the roles that an app, an
author of Secrets and the rotator need, as a script of vault commands. With --apply
make the changes, with the rights of your own Vault token: existing objects are kept
and only extended, so that a second run changes nothing. Both stop before the first
change if a policy or a role of that name exists and belongs to somebody else.

The app can only decrypt. The author can encrypt and cannot read back. The rotator
rotates the key and rewraps ciphertext without seeing plaintext; with --retire it can
also make old versions of the key unusable. With --rotator-patterns it can also list the
names of all keys of the mount, which a pattern in its --transit-key needs. With --trim
there is also a policy for the person who runs secretmanager trim, which deletes such
versions. No role gets it.

A role is named NAMESPACE-SERVICEACCOUNT, or NAMESPACE_SERVICEACCOUNT if the namespace
has a hyphen, so that no two service accounts share a role.

With --per-namespace one policy and one role of the app serve every namespace: Vault
inserts the namespace of the pod into the policy, so that a pod can decrypt only with
the key that has the name of its namespace. A further namespace then needs only its
key. The owner of a namespace with the name of a key can decrypt with that key, so these
keys have a separate mount, whose name begins with transit-namespaces. A mount with any
other key is refused; this check needs the right to list its keys. The policy names the
auth mount by its accessor, which is read from Vault or set by --auth-accessor. If it is
unknown, the output contains AUTH-MOUNT-ACCESSOR instead.

With --audit-headers register the request headers with which Vault's audit log names
the pod of each decryption. This is a separate step, once for each Vault: it needs sudo
on sys/config/auditing/request-headers/* and the root namespace. It takes effect also
without --apply. If your token lacks the right, the commands are printed instead.

With -o terraform the output is resources of Terraform's vault provider.`,
		Example: `  # what is needed for pods of service account matrix in namespace demo
  secretmanager vault-setup --transit-key matrix -n demo --service-account matrix

  # do it, and let a pipeline write the Secrets and the rotator retire old versions
  secretmanager vault-setup --transit-key matrix -n demo --service-account matrix \
      --author-service-account ci/deployer --retire --apply

  # also create the policy secretmanager-trim-matrix, for the person who trims
  secretmanager vault-setup --transit-key matrix -n demo --service-account matrix \
      --trim --apply

  # a separate key for namespace demo, with a policy that all namespaces share
  secretmanager vault-setup --per-namespace -n demo --service-account app

  # for Terraform
  secretmanager vault-setup --transit-key matrix -n demo --service-account matrix -o terraform

  # let the audit log name the pod of each decryption
  secretmanager vault-setup --audit-headers`,
		Args: cobra.NoArgs,
		RunE: cli.RunE(o),
	}
	o.addFlags(c)
	return c
}

func (o *Options) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&o.apply, "apply", false, "make the changes, and print what was created, changed or kept")
	f.BoolVar(&o.auditHeaders, "audit-headers", false,
		"register only the request headers with which the audit log names the pod of each request")
	f.BoolVar(&o.perNamespace, "per-namespace", false,
		"let the service account of that name in each namespace use the key of the namespace's name")
	f.StringVar(&o.accessor, "auth-accessor", "", "accessor of the auth mount, for --per-namespace (default: ask Vault)")
	f.StringVarP(&o.output, "output", "o", "", "json or yaml: print what is needed, "+
		"or with --apply what was done; terraform: print resources in place of commands")
	f.StringVar(&o.key, "transit-key", "", "name of the transit key (required; with --per-namespace the namespace's name)")
	options.PathVar(f, &o.mount, "transit-mount",
		"", "path of the transit engine (default transit, or transit-namespaces[-AUTHMOUNT] with --per-namespace)")
	options.PathVar(f, &o.authMount, "auth-mount", "kubernetes", "path of the auth mount, below auth/")
	f.StringVar(&o.authType, "auth-type", vaultsetup.AuthKubernetes, "kubernetes or jwt; --apply detects it")
	f.StringVar(&o.audience, "audience", "vault", "audience of the service account tokens")
	f.StringVar(&o.account, "service-account", "",
		"service account of the pods that read the Secrets, in the namespace of -n (required without --rotator-only)")
	f.StringVar(&o.role, "role", "", "role of the app, the class's roleName (default NAMESPACE-SERVICEACCOUNT, "+
		"or namespaces_SERVICEACCOUNT with --per-namespace)")
	f.StringVar(&o.author, "author-service-account", "",
		"NAMESPACE/NAME of a service account that writes the Secrets; users get the author policy in another way")
	f.StringVar(&o.authorRole, "author-role", "", "role of the author (default NAMESPACE-SERVICEACCOUNT)")
	f.StringVar(&o.rotator, "rotator-service-account", "secretmanager-system/secretmanager-rotator",
		"NAMESPACE/NAME of the rotator's service account")
	f.StringVar(&o.rotatorRole, "rotator-role", "secretmanager-rotator",
		"role of the rotator, which may be shared by several keys")
	f.BoolVar(&o.trim, "trim", false, "also the policy of the person who runs secretmanager trim")
	f.BoolVar(&o.rotatorOnly, "rotator-only", false, "for a key whose pods have their role: only the role of the rotator")
	f.BoolVar(&o.patterns, "rotator-patterns", false,
		"let the rotator list the keys of the transit mount, which a pattern in its --transit-key needs")
	f.BoolVar(&o.retire, "retire", false, "let the rotator raise the oldest key version that still decrypts")
	cli.FixedValues(c, "output", "json", "yaml", "terraform")
	cli.FixedValues(c, "auth-type", vaultsetup.AuthKubernetes, vaultsetup.AuthJWT)
}

// Complete implements cli.Options.
func (o *Options) Complete(cmd *cobra.Command, _ []string) error {
	o.authTypeGiven = cmd.Flags().Changed("auth-type")
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Changed && f.Name != "audit-headers" && f.Name != "apply" && f.Name != "output" {
			o.others = append(o.others, "--"+f.Name)
		}
	})
	return nil
}

// Validate implements cli.Options.
func (o *Options) Validate() error {
	var p cli.Problems
	p.Add(cli.ValidateOutput(o.output, "json", "yaml", "terraform"))
	p.If(o.apply && o.output == "terraform", "-o terraform cannot be combined with --apply")
	p.If(o.auditHeaders && o.document(), "--audit-headers cannot be combined with -o "+o.output)
	if o.auditHeaders {
		p.If(len(o.others) > 0, "--audit-headers is a step of its own: leave out "+strings.Join(o.others, ", "))
		return p.Err()
	}
	var err error
	o.setup, err = o.newSetup()
	p.Add(err)
	return p.Err()
}

// newSetup returns the setup that the flags describe. The error has all problems.
func (o *Options) newSetup() (vaultsetup.Setup, error) {
	var errs []error
	if o.accessor != "" && !o.perNamespace {
		errs = append(errs, errors.New("--auth-accessor needs --per-namespace"))
	}
	if o.key == "" && !o.perNamespace {
		errs = append(errs, errors.New("--transit-key is required: the name of the transit key"))
	}
	if o.account == "" && !o.rotatorOnly {
		errs = append(errs,
			errors.New("--service-account is required: the service account of the pods that read the Secrets"))
	}
	account := func(flag, text string) (a vaultsetup.Account) {
		a, err := vaultsetup.ParseAccount(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
		return a
	}
	mount := ciphertext.DefaultTransitMount
	if o.perNamespace {
		mount = vaultsetup.NamespacesMount(o.authMount)
	}
	s := vaultsetup.Setup{
		Key:       ciphertext.Key{Mount: cmp.Or(o.mount, mount), Name: o.key},
		AuthMount: o.authMount, AuthType: o.authType, Audience: o.audience,
		Rotator: &vaultsetup.Grant{Account: account("rotator-service-account", o.rotator), Role: o.rotatorRole},
		Retire:  o.retire, Trim: o.trim, Patterns: o.patterns,
	}
	if o.author != "" {
		s.Author = &vaultsetup.Grant{Account: account("author-service-account", o.author), Role: o.authorRole}
	} else if o.authorRole != "" {
		errs = append(errs, errors.New("--author-role needs --author-service-account"))
	}
	if o.rotatorOnly {
		if o.account != "" || o.role != "" || o.perNamespace {
			errs = append(errs, errors.New("--rotator-only cannot be combined with --service-account, --role and "+
				"--per-namespace"))
		}
		return s, errors.Join(append(errs, s.Check())...)
	}
	namespace, err := o.RequireNamespace("the role of the app is bound to one")
	if err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return s, err
	}
	s.App = &vaultsetup.Grant{Account: vaultsetup.Account{Namespace: namespace, Name: o.account}, Role: o.role}
	if o.perNamespace {
		s.PerNamespace, s.Accessor = true, cmp.Or(o.accessor, vaultsetup.AccessorPlaceholder)
		s.Key.Name = cmp.Or(s.Key.Name, namespace)
		s.App.Role = cmp.Or(s.App.Role, vaultsetup.NamespacesRoleName(o.account))
	}
	if err := s.Check(); err != nil {
		return s, err
	}
	return s, nil
}

// Run implements cli.Options.
func (o *Options) Run(ctx context.Context) error {
	if o.auditHeaders {
		return o.runAuditHeaders(ctx)
	}
	setup := o.setup
	if !o.apply {
		if err := o.print(ctx, setup); err != nil {
			return err
		}
		o.printParameters(setup)
		return nil
	}
	admin, err := o.VaultAPI(ctx)
	if err != nil {
		return err
	}
	// A user who sets --auth-type need not be allowed to list the mounts.
	if !o.authTypeGiven {
		if setup.AuthType, err = vaultsetup.AuthType(ctx, admin, o.authMount); err != nil {
			return o.authHint(err)
		}
	}
	if o.perNamespace && o.accessor == "" {
		if setup.Accessor, err = vaultsetup.Accessor(ctx, admin, o.authMount); err != nil {
			return cli.WithHint(fmt.Errorf("nothing was changed: the policy needs the accessor of auth/%s: %w",
				o.authMount, err),
				"a user who may list the auth mounts can read it (vault auth list); set --auth-accessor")
		}
	}
	changes, err := vaultsetup.Compare(ctx, admin, setup)
	if err != nil {
		return cli.WithHint(fmt.Errorf("nothing was changed:\n%w", err),
			"without --apply the same is printed as commands, for a user who may run them")
	}
	if err := o.applyAll(ctx, changes); err != nil {
		return err
	}
	o.printParameters(setup)
	return nil
}

// runAuditHeaders registers the audit headers, or prints the commands without the right to do so.
func (o *Options) runAuditHeaders(ctx context.Context) error {
	if o.output == "terraform" {
		return vaultsetup.WriteAuditHeaderTerraform(o.Out)
	}
	admin, err := o.VaultAPI(ctx)
	if err != nil {
		return err
	}
	admin.ClearNamespace() // audit headers are in the root namespace
	changes, err := vaultsetup.CompareAuditHeaders(ctx, admin)
	if err == nil {
		err = o.applyAll(ctx, changes)
	}
	if !errors.Is(err, vaultsetup.ErrDenied) {
		return err
	}
	display.Fprintf(o.ErrOut, "note: your Vault token may not register audit headers (%v): an operator of Vault "+
		"can run these commands\n", err)
	if o.Getenv(api.EnvVaultNamespace) != "" {
		fmt.Fprintln(o.Out, "unset VAULT_NAMESPACE")
	}
	return vaultsetup.WriteAuditHeaderCommands(o.Out)
}

// document reports whether -o is a format for other programs.
func (o *Options) document() bool { return o.output == "json" || o.output == "yaml" }

// print writes what is needed. It works without Vault.
func (o *Options) print(ctx context.Context, setup vaultsetup.Setup) error {
	if o.perNamespace && o.accessor == "" && o.output != "terraform" {
		if accessor := o.findAccessor(ctx); accessor != "" {
			setup.Accessor = accessor
		} else {
			display.Fprintf(o.ErrOut, "note: the accessor of auth/%s could not be read from Vault: replace %s by it, "+
				"or set --auth-accessor\n", o.authMount, vaultsetup.AccessorPlaceholder)
		}
	}
	switch {
	case o.output == "terraform":
		return setup.WriteTerraform(o.Out)
	case o.document():
		return o.PrintDocument(struct {
			vaultsetup.Document
			ClassParameters map[string]string `json:"classParameters"`
		}{setup.Document(), o.parameters(setup)}, o.output)
	}
	return setup.WriteCommands(o.Out)
}

// accessorTimeout bounds the wait for Vault where its response is not required.
const accessorTimeout = 2 * time.Second

// findAccessor returns the accessor, empty if Vault does not respond in time.
func (o *Options) findAccessor(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, accessorTimeout)
	defer cancel()
	admin, err := o.VaultAPI(ctx)
	if err != nil {
		return ""
	}
	accessor, err := vaultsetup.Accessor(ctx, admin, o.authMount)
	if err != nil {
		return ""
	}
	return accessor
}

func (o *Options) applyAll(ctx context.Context, changes []vaultsetup.Change) error {
	if o.document() {
		return o.applyAsDocument(ctx, changes)
	}
	table := printers.GetNewTabWriter(o.Out)
	defer table.Flush()
	for _, c := range changes {
		if err := c.Apply(ctx); err != nil {
			return cli.WithHint(err, "the changes above are done; run the same command again for the rest")
		}
		display.Fprintf(table, "%s\t%s\t%s\n", c.Outcome, c.Kind, c.Name)
		if c.Note != "" {
			display.Fprintf(o.ErrOut, "note: %s: %s\n", c.Name, c.Note)
		}
	}
	return nil
}

func (o *Options) authHint(err error) error {
	if !errors.Is(err, vaultsetup.ErrNoAuthMount) {
		return err
	}
	return cli.WithHint(err,
		"an operator of Vault has to configure how it validates the tokens of the cluster:\n"+
			"vault auth enable -path="+o.authMount+" kubernetes\n"+
			"vault write auth/"+o.authMount+"/config kubernetes_host=https://API-SERVER:6443",
		"if it is mounted elsewhere, set --auth-mount")
}

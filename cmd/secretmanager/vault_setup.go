package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
	"github.com/secretmanager-io/secretmanager/vaultsetup"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/printers"
)

type vaultSetup struct {
	*program
	apply                bool
	retire, trim         bool
	key, mount           string
	authMount, authType  string
	audience             string
	account, role        string
	author, authorRole   string
	rotator, rotatorRole string
	authTypeGiven        bool
}

func newVaultSetup(p *program) *cobra.Command {
	o := &vaultSetup{program: p}
	c := &cobra.Command{
		Use:   "vault-setup --transit-key KEY --service-account NAME",
		Short: "Print, or apply, what Vault needs: key, policies, roles",
		Long: `Print the transit key, the least-privilege policies and the roles that an app,
an author of Secrets and the rotator need, as vault commands to read and run.
With --apply do it, with the rights of your own Vault token: what exists is kept
and only ever added to, so doing it twice changes nothing.

The app can decrypt and nothing else. The author can encrypt and cannot read
back. The rotator renews key and ciphertext without ever seeing plaintext; with
--retire it may also make old versions of the key unusable, and with --trim delete
such versions.`,
		Example: `  # what is needed for pods of service account matrix in namespace demo
  secretmanager vault-setup --transit-key matrix -n demo --service-account matrix

  # do it, and let a pipeline write the Secrets and the rotator retire old versions
  secretmanager vault-setup --transit-key matrix -n demo --service-account matrix \
      --author-service-account ci/deployer --retire --apply`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.authTypeGiven = cmd.Flags().Changed("auth-type")
			return o.run(cmd.Context())
		},
	}
	f := c.Flags()
	f.BoolVar(&o.apply, "apply", false, "do it, and show what was created, changed or left as it is")
	f.StringVar(&o.key, "transit-key", "", "name of the transit key (required)")
	f.StringVar(&o.mount, "transit-mount", ciphertext.DefaultTransitMount, "path of the transit engine")
	f.StringVar(&o.authMount, "auth-mount", "kubernetes", "path of the auth mount, below auth/")
	f.StringVar(&o.authType, "auth-type", vaultsetup.AuthKubernetes, "kind of the auth mount: kubernetes or jwt; --apply finds out by itself")
	f.StringVar(&o.audience, "audience", "vault", "audience that the service-account tokens are made for")
	f.StringVar(&o.account, "service-account", "", "service account of the pods that read the Secrets, in the namespace of -n (required)")
	f.StringVar(&o.role, "role", "", "role of the app, the class's roleName (default NAMESPACE-SERVICEACCOUNT)")
	f.StringVar(&o.author, "author-service-account", "", "NAMESPACE/NAME of a service account that writes the Secrets; people get the author policy by your own means")
	f.StringVar(&o.authorRole, "author-role", "", "role of the author (default NAMESPACE-SERVICEACCOUNT)")
	f.StringVar(&o.rotator, "rotator-service-account", "secretmanager-system/secretmanager-rotator", "NAMESPACE/NAME of the rotator's service account")
	f.StringVar(&o.rotatorRole, "rotator-role", "secretmanager-rotator", "role of the rotator, which may be shared by several keys")
	f.BoolVar(&o.trim, "trim", false, "let the rotator delete versions that were retired long ago")
	f.BoolVar(&o.retire, "retire", false, "let the rotator raise the oldest key version that still decrypts")
	return c
}

// setup makes what the flags ask for; all that is wrong with them is reported.
func (o *vaultSetup) setup() (vaultsetup.Setup, error) {
	var errs []error
	if o.key == "" {
		errs = append(errs, errors.New("--transit-key is missing: it names the transit key"))
	}
	if o.account == "" {
		errs = append(errs, errors.New("--service-account is missing: it names the service account of the pods that read the Secrets"))
	}
	account := func(flag, text string) (a vaultsetup.Account) {
		a, err := vaultsetup.ParseAccount(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
		return a
	}
	s := vaultsetup.Setup{
		Key:       transit.Key{Mount: o.mount, Name: o.key},
		AuthMount: o.authMount, AuthType: o.authType, Audience: o.audience,
		Rotator: &vaultsetup.Grant{Account: account("rotator-service-account", o.rotator), Role: o.rotatorRole},
		Retire:  o.retire,
		Trim:    o.trim,
	}
	if o.author != "" {
		s.Author = &vaultsetup.Grant{Account: account("author-service-account", o.author), Role: o.authorRole}
	} else if o.authorRole != "" {
		errs = append(errs, errors.New("--author-role is of no use without --author-service-account"))
	}
	namespace, err := o.needNamespace("the app's role is bound to one")
	if err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return s, usage(err)
	}
	s.App = &vaultsetup.Grant{Account: vaultsetup.Account{Namespace: namespace, Name: o.account}, Role: o.role}
	if err := s.Check(); err != nil {
		return s, usage(err)
	}
	return s, nil
}

func (o *vaultSetup) run(ctx context.Context) error {
	setup, err := o.setup()
	if err != nil {
		return err
	}
	if !o.apply {
		if err := setup.WriteCommands(o.Out); err != nil {
			return err
		}
		o.tellClass(setup)
		return nil
	}
	admin, err := o.vaultAdmin()
	if err != nil {
		return err
	}
	// Who knows the kind need not be allowed to list the mounts.
	if !o.authTypeGiven {
		if setup.AuthType, err = vaultsetup.AuthType(ctx, admin, o.authMount); err != nil {
			return o.authHint(err)
		}
	}
	changes, err := vaultsetup.Compare(ctx, admin, setup)
	if err != nil {
		return hinted(fmt.Errorf("nothing was changed:\n%w", err), "without --apply the same is printed as commands, for whoever may run them")
	}
	if err := o.applyAll(ctx, changes); err != nil {
		return err
	}
	o.tellClass(setup)
	return nil
}

// tellClass says what of it a SecretProviderClass has to name.
func (o *vaultSetup) tellClass(s vaultsetup.Setup) {
	fmt.Fprintf(o.ErrOut, "note: parameters of the SecretProviderClass: roleName: %s, transitKey: %s", s.App.RoleName(), s.Key.Name)
	for _, p := range []struct{ name, value, standard string }{
		{"transitMount", s.Key.Mount, ciphertext.DefaultTransitMount},
		{"vaultAuthMountPath", s.AuthMount, "kubernetes"},
		{"audience", s.Audience, "vault"},
	} {
		if p.value != p.standard {
			fmt.Fprintf(o.ErrOut, ", %s: %s", p.name, p.value)
		}
	}
	fmt.Fprintln(o.ErrOut)
}

func (o *vaultSetup) applyAll(ctx context.Context, changes []vaultsetup.Change) error {
	table := printers.GetNewTabWriter(o.Out)
	defer table.Flush()
	for _, c := range changes {
		if err := c.Apply(ctx); err != nil {
			return hinted(err, "what is listed above is done; the same command goes on from there")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", c.Outcome, c.Kind, c.Name)
		if c.Note != "" {
			fmt.Fprintf(o.ErrOut, "note: %s: %s\n", c.Name, c.Note)
		}
	}
	return nil
}

func (o *vaultSetup) authHint(err error) error {
	if !errors.Is(err, vaultsetup.ErrNoAuthMount) {
		return err
	}
	return hinted(err,
		"Vault has to be told how to check the cluster's tokens, which only its operator can do:\n"+
			"vault auth enable -path="+o.authMount+" kubernetes\n"+
			"vault write auth/"+o.authMount+"/config kubernetes_host=https://API-SERVER:6443",
		"if it is mounted elsewhere, name that path with --auth-mount")
}

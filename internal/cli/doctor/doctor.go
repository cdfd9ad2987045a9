// Package doctor is the verb doctor: it prints what internal/doctor finds.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/doctor"
	"github.com/secretmanager-io/secretmanager/internal/doctor/workload"
	"github.com/secretmanager-io/secretmanager/internal/options"
	"github.com/secretmanager-io/secretmanager/internal/version"
)

// Options are the options of doctor.
type Options struct {
	*cli.Factory
	class, account string
	authMount      string
	provider       string // namespace of the installation
	login          bool
	output         string
	args           []string
	kind, pod      string

	verbose bool
}

// NewCommand returns the command doctor.
func NewCommand(p *cli.Factory) *cobra.Command {
	o := &Options{Factory: p}
	c := &cobra.Command{
		Use:   "doctor [POD | TYPE/NAME]",
		Short: "Diagnose the installation and print the commands that fix it",
		Long: `Check everything between the cluster and the secret files. Each check is ok, broken or
unknown. Without arguments that covers
the installation, and which pods wait in ContainerCreating now; with POD also all that
its volumes depend on, and why the pod waits; with TYPE/NAME, such as deploy/web, the same
for a pod of that workload; with --class a SecretProviderClass, before there is a pod.

Checks that are ok are counted; -v prints them. The commands that fix what is broken are
at the end, one for each cause. They add, and test what they replace. Where a person has
to decide, the alternatives are printed, with what distinguishes them.

A check that depends on a broken one is skipped. A check for which you lack a right is
unknown; the others still run. No Vault token and no right in the cluster is required.

Credentials are sent only to the Vault of VAULT_ADDR or --vault-addr, there to the
namespace of VAULT_NAMESPACE and the auth mount of --auth-mount, or to those that the
settings of the provider in --provider-namespace allow. If a class names others, the
check is unknown, and no command that would grant them is printed.

Nothing is changed and nothing is decrypted. For POD and --class a token of the pod's
service account is requested, if you may do that, to log in to Vault as the provider
does and to see which keys its policy allows; --login=false skips that. The token
expires by itself, and is sent only to Vault.

The exit code is 0 if every check is ok, 3 if something is broken, and 1 if nothing is
broken but something is unknown, or if there is no cluster.`,
		Example: `  secretmanager doctor
  secretmanager doctor web-0 -n demo
  secretmanager doctor deploy/web -n demo
  secretmanager doctor --class matrix --service-account matrix -n demo -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: cli.RunE(o),
	}
	f := c.Flags()
	f.StringVar(&o.class, "class", "", "`SecretProviderClass` to check, instead of those of a pod")
	f.StringVar(&o.account, "service-account", "", "service `account` of the pods that will use --class")
	options.PathVar(f, &o.authMount, "auth-mount",
		"", "`path` of the auth mount that you trust, below auth/ (default: those that the provider's settings allow)")
	f.StringVar(&o.provider, "provider-namespace", "secretmanager-system",
		"`namespace` of the installation, whose DaemonSet's settings are trusted")
	f.BoolVar(&o.login, "login", true, "log in to Vault as the pod's service account")
	f.StringVarP(&o.output, "output", "o", "", "json")
	cli.FixedValues(c, "output", "json")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "also print the checks that are ok, and each one that depends on "+
		"another")
	return c
}

// Complete implements cli.Options.
func (o *Options) Complete(_ *cobra.Command, args []string) error {
	o.args = args
	if len(args) > 0 {
		o.kind, o.pod = workload.ParseTarget(args[0])
	}
	return nil
}

// Validate implements cli.Options.
func (o *Options) Validate() error {
	var p cli.Problems
	p.Add(cli.ValidateOutput(o.output, "json"))
	named := len(o.args) > 0
	p.If(named && o.pod == "", "POD is empty: leave it out to check the installation alone")
	if named && (o.kind == "" || strings.Contains(o.pod, "/")) {
		p.Add(display.Errorf("%q is neither the name of a pod nor TYPE/NAME with a type whose pods can be checked, such as "+
			"deploy: name the namespace with -n", o.args[0]))
	}
	p.If(named && o.class != "", "POD cannot be combined with --class: the classes of a pod are those of its volumes")
	p.If(o.account != "" && o.class == "", "--service-account needs --class")
	return p.Err()
}

// Run implements cli.Options.
func (o *Options) Run(ctx context.Context) error {
	options := doctor.Options{
		Vault: o.VaultSettings(), VaultNamespace: o.Getenv(api.EnvVaultNamespace), VaultAPI: o.AuditedVaultAPI,
		AuthMount: o.authMount, ProviderNamespace: o.provider,
		Kind: o.kind, Pod: o.pod, Class: o.class, Account: o.account, Login: o.login, Program: o.ProgramName,
		Version: version.Number(),
	}
	if options.Vault.Address != "" {
		options.VaultToken, options.VaultTokenError = o.VaultToken()
	}
	options.Kube, options.KubeHost, options.KubeError = o.quietClient()
	if options.KubeError == nil {
		if options.Namespace, options.KubeError = o.ClusterNamespace(); options.KubeError != nil {
			options.Kube = nil
		}
	}
	clearLine := func() {}
	text := &printer{out: o.Out, width: terminalWidth(o.Out), color: o.Colored(o.Out), verbose: o.verbose}
	if o.output == "" {
		options.Found = func(c doctor.Check) {
			clearLine()
			text.add(c)
		}
		if cli.IsTerminal(o.ErrOut) {
			// A check is printed when it is done; a slow one is announced.
			options.Slow = func(check string) { display.Fprintf(o.ErrOut, "waiting for %s …\r", check) }
			clearLine = func() { fmt.Fprint(o.ErrOut, "\x1b[K") }
		}
	}
	checks := doctor.Run(ctx, options)
	if err := ctx.Err(); err != nil {
		return err
	}
	if o.output == "" {
		text.finish()
	} else {
		if err := cli.WriteJSON(o.Out, map[string]any{"checks": checks}); err != nil {
			return err
		}
	}
	return o.verdict(checks)
}

// quietClient returns a client without warnings, which are reported as checks.
func (o *Options) quietClient() (kubernetes.Interface, string, error) {
	config, err := o.KubeFlags.ToRESTConfig()
	if err != nil {
		return nil, "", fmt.Errorf("reading the kubeconfig: %w", err)
	}
	config.QPS = -1
	config.UserAgent = "secretmanager/" + version.Number()
	config.WarningHandler = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, "", fmt.Errorf("reading the kubeconfig: %w", err)
	}
	return client, config.Host, nil
}

// verdict returns the error for the results.
func (o *Options) verdict(checks []doctor.Check) error {
	var broken, unknown []string
	for _, c := range checks {
		switch c.State {
		case doctor.Broken:
			broken = append(broken, c.Name)
		case doctor.Unknown:
			unknown = append(unknown, c.Name)
		}
	}
	switch {
	case len(checks) > 0 && checks[0].State == doctor.Broken:
		return errors.New("the cluster could not be checked: " + checks[0].Detail)
	case len(broken) > 0:
		return cli.ToDo(fmt.Errorf("%s broken: %s", cli.Plural(len(broken), "check is", "checks are"),
			strings.Join(broken, ", ")))
	case len(unknown) > 0:
		return fmt.Errorf("nothing is known to be broken, but the result of %s is unknown: %s",
			cli.Plural(len(unknown), "check", "checks"), strings.Join(unknown, ", "))
	}
	return nil
}

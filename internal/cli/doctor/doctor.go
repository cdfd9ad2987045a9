// Package doctor is the verb doctor: it prints what internal/doctor finds.
package doctor

import (
	"cmp"
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
	pod            string

	group string // of the checks that were printed last
	color bool   // print colors
}

// NewCommand returns the command doctor.
func NewCommand(p *cli.Factory) *cobra.Command {
	o := &Options{Factory: p}
	c := &cobra.Command{
		Use:   "doctor [POD]",
		Short: "Diagnose the installation and print the commands that fix it",
		Long: `Check everything between the cluster and the secret files, and print for each check:
ok, broken with the command that fixes it, or unknown. Without arguments that covers
the installation; with POD also all that its volumes depend on, and why the pod waits
in ContainerCreating; with --class a SecretProviderClass, before there is a pod.

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
	return c
}

// Complete implements cli.Options.
func (o *Options) Complete(_ *cobra.Command, args []string) error {
	o.args = args
	if len(args) > 0 {
		o.pod = args[0]
		for _, kind := range []string{"pod/", "pods/", "po/"} { // as kubectl get -o name prints it, or takes it
			o.pod = strings.TrimPrefix(o.pod, kind)
		}
	}
	return nil
}

// Validate implements cli.Options.
func (o *Options) Validate() error {
	var p cli.Problems
	p.Add(cli.ValidateOutput(o.output, "json"))
	named := len(o.args) > 0
	p.If(named && o.pod == "", "POD is empty: leave it out to check the installation alone")
	if strings.Contains(o.pod, "/") {
		p.Add(fmt.Errorf("%q is not the name of a pod: name its namespace with -n", o.args[0]))
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
		Pod: o.pod, Class: o.class, Account: o.account, Login: o.login, Program: o.ProgramName, Version: version.Number(),
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
	if o.output == "" {
		o.color = o.Colored(o.Out)
		options.Found = func(c doctor.Check) {
			clearLine()
			o.print(c)
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
	if o.output == "json" {
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

// print prints a check as text.
func (o *Options) print(c doctor.Check) {
	if group := cmp.Or(c.Subject, "installation"); group != o.group {
		if o.group != "" {
			fmt.Fprintln(o.Out)
		}
		o.group = group
		display.Fprintf(o.Out, "%s\n", group)
	}
	colors := map[doctor.State]string{doctor.OK: cli.Green, doctor.Broken: cli.Red, doctor.Unknown: cli.Yellow}
	before, after := "", ""
	if o.color {
		before, after = colors[c.State], cli.Plain
	}
	display.Fprintf(o.Out, "  "+before+"%-7s"+after+"  %-15s  %s\n", c.State, c.Name, c.Detail)
	line := func(what, text string) { display.Fprintf(o.Out, "  %7s  %-15s  %s: %s\n", "", "", what, text) }
	for _, text := range c.Warnings {
		line("warning", text)
	}
	for _, text := range c.Fixes {
		// On its own line, for copying.
		line("fix", text)
	}
	if c.Advice != "" {
		line("note", c.Advice)
	}
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

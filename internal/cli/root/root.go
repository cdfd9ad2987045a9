// Package root makes the root command of all verbs and runs it.
package root

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/spf13/cobra"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/completion"
	"github.com/secretmanager-io/secretmanager/internal/cli/doctor"
	"github.com/secretmanager-io/secretmanager/internal/cli/edit"
	"github.com/secretmanager-io/secretmanager/internal/cli/encrypt"
	"github.com/secretmanager-io/secretmanager/internal/cli/lint"
	"github.com/secretmanager-io/secretmanager/internal/cli/mount"
	"github.com/secretmanager-io/secretmanager/internal/cli/rewrap"
	"github.com/secretmanager-io/secretmanager/internal/cli/rotate"
	"github.com/secretmanager-io/secretmanager/internal/cli/status"
	"github.com/secretmanager-io/secretmanager/internal/cli/trim"
	"github.com/secretmanager-io/secretmanager/internal/cli/vaultsetup"
	"github.com/secretmanager-io/secretmanager/internal/cli/verify"
	versionverb "github.com/secretmanager-io/secretmanager/internal/cli/version"
	"github.com/secretmanager-io/secretmanager/internal/version"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Run runs a command line and returns the exit code.
func Run(ctx context.Context, env cli.Environment, args []string) int {
	p := cli.NewFactory(env)
	root := NewCommand(p)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return cli.ExitDone
	}
	if !p.Started {
		err = cli.Usage(err)
	}
	return cli.ReportError(p.ErrOut, p.ProgramName, err)
}

// NewCommand returns the root command with all verbs.
func NewCommand(p *cli.Factory) *cobra.Command {
	root := &cobra.Command{
		Use:   "secretmanager",
		Short: "Keep Kubernetes Secrets as Vault transit ciphertext",
		Long: `Write Kubernetes Secrets that hold only Vault transit ciphertext, show their state,
and rotate their keys.

The commands connect to Kubernetes as kubectl does (KUBECONFIG, --context, -n), and
to Vault as the vault command does (VAULT_ADDR, VAULT_TOKEN, the token helper or
~/.vault-token, VAULT_NAMESPACE, VAULT_CACERT and so on). The Vault token is sent to
the address of --vault-addr or VAULT_ADDR, and never to an address in a manifest or
in the cluster.`,
		Version:       version.Number(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: p.ProgramName},
	}
	root.SetVersionTemplate(version.Line("secretmanager") + "\n")
	root.SetIn(p.In)
	root.SetOut(p.Out)
	root.SetErr(p.ErrOut)
	p.KubeFlags.AddFlags(root.PersistentFlags())
	root.PersistentFlags().StringSliceVar(&p.VaultAddress, "vault-addr", nil,
		"address of Vault, or addresses of one cluster, separated by commas (default VAULT_ADDR)")
	root.PersistentFlags().BoolVar(&p.InsecureHTTP, "vault-insecure-http", false,
		"accept an http address of Vault outside the loopback interface, "+
			"for development: tokens and plaintext cross the network unencrypted ("+transit.EnvInsecureHTTP+")")
	for _, verb := range []func(*cli.Factory) *cobra.Command{
		vaultsetup.NewCommand, encrypt.NewCommand, edit.NewCommand, status.NewCommand, rotate.NewCommand,
		rewrap.NewCommand, trim.NewCommand, lint.NewCommand, verify.NewCommand, mount.NewCommand, doctor.NewCommand,
		completion.NewCommand, versionverb.NewCommand,
	} {
		c := verb(p)
		c.Example = strings.ReplaceAll(c.Example, "secretmanager ", p.ProgramName+" ")
		runE := c.RunE
		c.RunE = func(cmd *cobra.Command, args []string) error {
			p.Started = true
			p.Audit = transit.Audit{RunID: rand.Text(), Verb: cmd.Name()}
			cmd.SetContext(transit.WithAudit(cmd.Context(), p.Audit))
			return runE(cmd, args)
		}
		root.AddCommand(c)
	}
	if err := completion.Register(p, root); err != nil {
		panic(err) // a flag does not exist: every call would panic
	}
	return root
}

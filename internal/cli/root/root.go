// Package root makes the root command of all verbs and runs it.
package root

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

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

// exitTimeout is the time that a verb has to end after a signal. A person expects the prompt within a second.
const exitTimeout = 800 * time.Millisecond

// Main runs a command line until it ends or a signal comes, and returns the exit code. After a signal, the verb has
// some time to say what it has done; it does not get it if it cannot be interrupted, or after a second signal.
func Main(env cli.Environment, args []string) int {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	ctx, interrupt := context.WithCancelCause(context.Background())
	p := cli.NewFactory(env)
	done := make(chan int, 1)
	go func() { done <- run(ctx, interrupt, p, args) }()
	select {
	case code := <-done:
		return code
	case s := <-signals:
		interrupt(cli.Interrupted{Signal: s})
	}
	select {
	case code := <-done:
		return code
	case <-signals:
	case <-time.After(exitTimeout):
	}
	p.Close()
	return cli.ReportError(p.ErrOut, p.ProgramName, context.Cause(ctx))
}

// Run runs a command line and returns the exit code.
func Run(ctx context.Context, env cli.Environment, args []string) int {
	ctx, interrupt := context.WithCancelCause(ctx)
	defer interrupt(nil)
	return run(ctx, interrupt, cli.NewFactory(env), args)
}

func run(ctx context.Context, interrupt context.CancelCauseFunc, p *cli.Factory, args []string) int {
	p.Begin(ctx, interrupt)
	root := NewCommand(p)
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	p.Close()
	switch cause := (cli.Interrupted{}); {
	case errors.As(context.Cause(ctx), &cause): // the result may be incomplete, also without an error
		err = cli.WithCause(err, cause)
	case err == nil:
		return cli.ExitDone
	case !p.Started:
		err = cli.Usage(err)
	}
	return cli.ReportError(p.ErrOut, command.CommandPath(), err)
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
in the cluster.

A request that has no response ends after --request-timeout, 10 seconds by default, and
a command after 30 seconds without a successful response of Vault or of Kubernetes. A
longer --request-timeout extends both. After two seconds a terminal shows what the
command waits for. Ctrl-C ends every command, and the exit code is then 130.

Output on a terminal has colors, unless NO_COLOR is set or TERM is dumb.`,
		Version:       version.Number(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: p.ProgramName},
	}
	root.SetVersionTemplate(version.Line("secretmanager") + "\n")
	root.SetIn(p.In)
	root.SetOut(p.Out)
	root.SetErr(p.ErrOut)
	p.AddFlags(root.PersistentFlags())
	for _, verb := range []func(*cli.Factory) *cobra.Command{
		vaultsetup.NewCommand, encrypt.NewCommand, edit.NewCommand, status.NewCommand, rotate.NewCommand,
		rewrap.NewCommand, trim.NewCommand, lint.NewCommand, verify.NewCommand, mount.NewCommand, doctor.NewCommand,
		completion.NewCommand, versionverb.NewCommand,
	} {
		c := verb(p)
		c.Example = strings.ReplaceAll(c.Example, "secretmanager ", p.ProgramName+" ")
		runE := c.RunE
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if err := p.SetTimeouts(cmd.Flags()); err != nil {
				return err
			}
			p.Started = true
			p.Audit = transit.Audit{RunID: rand.Text(), Verb: cmd.Name()}
			cmd.SetContext(transit.WithAudit(cmd.Context(), p.Audit))
			return p.ExplainKey(cmd.Context(), runE(cmd, args))
		}
		root.AddCommand(c)
	}
	if err := completion.Register(p, root); err != nil {
		panic(err) // a flag does not exist: every call would panic
	}
	return root
}

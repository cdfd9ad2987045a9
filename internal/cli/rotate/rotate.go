// Package rotate is the verb rotate: it runs the rotator with the rights of the user.
package rotate

import (
	"context"
	"errors"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/options/rotation"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// Options are the flags of the verb.
type Options struct {
	*cli.Factory
	rotation rotation.Rotation
	all      bool
	dryRun   string
	output   string
}

// NewCommand returns the verb rotate.
func NewCommand(p *cli.Factory) *cobra.Command {
	o := &Options{Factory: p}
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Rotate keys now and rewrap every Secret",
		Long: `Do what the rotator does, with your own rights: give keys a new version where one is
due, have Vault encrypt every older entry again without revealing it, and report
whether every entry has its target version. With --retire old versions that no
ciphertext uses become unusable. To delete them, see secretmanager trim.
The Secrets in the namespaces of -n are rewrapped, or with -A in all namespaces. If a key
has Secrets in other namespaces too, a new version applies to all of them.

The output has a line for each key, and then what is not done and why. This run does
not change the record of the nightly run, which alerts read: secretmanager status shows
both.

It can be interrupted and run again at any point: old ciphertext decrypts until its
version is retired. The exit code is 0 when every entry has its target version.`,
		Example: `  # print what would be done
  secretmanager rotate -A --transit-key matrix --dry-run

  # rotate one key now, whatever its age
  secretmanager rotate -A --transit-key matrix --rotate=always

  # rewrap the Secrets of two namespaces to the target version
  secretmanager rotate -n demo,shop --transit-key matrix --rotate=never`,
		Args: cobra.NoArgs,
		RunE: cli.RunE(o),
	}
	f := c.Flags()
	o.rotation.AddFlags(f, p.Getenv)
	cli.AllNamespacesFlag(c, &o.all)
	cli.DryRunFlag(c, &o.dryRun, "client")
	cli.OutputFlag(c, &o.output, "wide", "json", "yaml")
	cli.FixedValues(c, "rotate", string(rotator.Auto), string(rotator.Always), string(rotator.Never))
	return c
}

// Complete implements cli.Options.
func (o *Options) Complete(*cobra.Command, []string) error {
	o.rotation.DryRun = o.dryRun == "client"
	return nil
}

// Validate implements cli.Options.
func (o *Options) Validate() error {
	var p cli.Problems
	p.Add(cli.ValidateOutput(o.output, "wide", "json", "yaml"), cli.ValidateValue("--dry-run", o.dryRun, "none", "client"),
		o.ValidateNamespaces(o.all))
	p.Add(o.rotation.Validate()...)
	return p.Err()
}

// Run implements cli.Options.
func (o *Options) Run(ctx context.Context) error {
	vault, err := o.LimitedVaultSession(o.rotation.VaultQPS)
	if err != nil {
		return err
	}
	kube, err := o.KubeClientAs(ciphertext.RotatorManager, o.rotation.KubeQPS)
	if err != nil {
		return err
	}
	if o.rotation.Namespaces, err = o.Namespaces(o.all); err != nil {
		return err
	}
	if err := o.CheckNamespaces(ctx, kube, o.rotation.Namespaces); err != nil {
		return err
	}
	o.rotation.Waiting = o.Wait
	done := o.showProgress()
	report, err := rotator.Run(ctx, vault, kube, o.rotation.Options)
	done()
	if errors.Is(err, rotator.ErrNotInstalled) {
		return cli.WithHint(err, "install the rotator (docs/install.md), or to rotate only by hand: "+
			"kubectl -n "+o.rotation.StateNamespace+" apply -f manifests/rotator/state.yaml")
	}
	if report == nil {
		return err
	}
	if o.output == "json" || o.output == "yaml" {
		return errors.Join(o.PrintDocument(report, o.output), err)
	}
	writeErr := o.write(report)
	if errors.Is(err, rotator.ErrIncomplete) {
		err = o.incomplete(report)
	}
	return errors.Join(writeErr, err)
}

// showProgress draws a progress bar on a terminal. The returned function removes it.
func (o *Options) showProgress() (done func()) {
	if !o.Animated(o.ErrOut) {
		return func() {}
	}
	// With an interval, the library turns the spinner in a goroutine that shares the state of the
	// bar without a lock.
	bar := progressbar.NewOptions(-1, progressbar.OptionSetSpinnerChangeInterval(0),
		progressbar.OptionSetWriter(o.ErrOut), progressbar.OptionClearOnFinish(),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetPredictTime(true))
	phase := ""
	o.rotation.Progress = func(p rotator.Progress) {
		if p.Phase != phase {
			phase = p.Phase
			bar.Reset()
			bar.Describe(phase)
		}
		total := p.Total
		if total == 0 {
			total = -1
		}
		bar.ChangeMax(total)
		bar.Set(p.Done)
	}
	return func() { bar.Finish() }
}

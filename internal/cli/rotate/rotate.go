// Package rotate is the verb rotate: it runs the rotator with the rights of the user.
package rotate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/options/rotation"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// Options are the flags of the verb.
type Options struct {
	*cli.Factory
	rotation rotation.Rotation
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
This covers the whole cluster unless -n names a namespace, or several separated by
commas.

It can be interrupted and run again at any point: old ciphertext decrypts until its
version is retired. The exit code is 0 when every entry has its target version.`,
		Example: `  # print what would be done
  secretmanager rotate --transit-key matrix --dry-run

  # rotate one key now, whatever its age
  secretmanager rotate --transit-key matrix --rotate=always`,
		Args: cobra.NoArgs,
		RunE: cli.RunE(o),
	}
	f := c.Flags()
	o.rotation.AddFlags(f, p.Getenv)
	f.StringVar(&o.dryRun, "dry-run", "none",
		"none, or client, the default without a value: report what would be done, and change nothing")
	f.Lookup("dry-run").NoOptDefVal = "client"
	f.StringVarP(&o.output, "output", "o", "", "json or yaml: print the whole report")
	cli.FixedValues(c, "output", "json", "yaml")
	cli.FixedValues(c, "dry-run", "none", "client")
	cli.FixedValues(c, "rotate", string(rotator.Auto), string(rotator.Always), string(rotator.Never))
	return c
}

// Complete implements cli.Options.
func (o *Options) Complete(*cobra.Command, []string) error {
	o.rotation.DryRun = o.dryRun == "client"
	if ns := *o.KubeFlags.Namespace; ns != "" {
		o.rotation.Namespaces = strings.Split(ns, ",")
	}
	return nil
}

// Validate implements cli.Options.
func (o *Options) Validate() error {
	var p cli.Problems
	p.Add(cli.ValidateOutput(o.output, "json", "yaml"), cli.ValidateValue("--dry-run", o.dryRun, "none", "client"))
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
	if o.output != "" {
		return errors.Join(o.PrintDocument(report, o.output), err)
	}
	return errors.Join(o.summary(report), err)
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

func (o *Options) summary(report *rotator.Report) error {
	table := printers.GetNewTabWriter(o.Out)
	fmt.Fprintln(table, "KEY\tVERSION\tTARGET\tSECRETS\tREWRAPPED\tCURRENT\tPENDING\tUNRESOLVED\tVERSIONS IN USE")
	for _, k := range report.Keys {
		version := fmt.Sprint(k.Before)
		if newest := max(k.After, k.Target); newest != k.Before { // in a dry run, After is the same
			version = fmt.Sprintf("%d -> %d", k.Before, newest)
		}
		var inUse []string
		for _, v := range slices.Sorted(maps.Keys(k.Versions)) {
			inUse = append(inUse, fmt.Sprintf("%d (%s)", v, cli.Plural(k.Versions[v], "entry", "entries")))
		}
		display.Fprintf(table, "%s/%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", k.Mount, k.Name, version, k.Target, k.Secrets,
			k.Rewrapped,
			k.Current, k.Pending, k.Unresolved.Count, strings.Join(inUse, ", "))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, k := range report.Keys {
		if k.RotateReason != "" {
			display.Fprintf(o.ErrOut, "%s/%s: %s\n", k.Mount, k.Name, k.RotateReason)
		}
		if k.Unsettled != nil {
			display.Fprintf(o.ErrOut, "%s/%s: version %d is unsettled until %s: take a snapshot of Vault, because older "+
				"backups do not have it\n", k.Mount, k.Name, k.Target, k.Unsettled.UTC().Format(time.RFC3339))
		}
		if k.NotCovered > 0 {
			display.Fprintf(o.ErrOut, "%s/%s: %s newer than version %d, which older backups of Vault do not have: what wrote "+
				"them uses another settle time\n", k.Mount, k.Name, cli.Plural(k.NotCovered, "entry is", "entries are"), k.Target)
		}
		if k.OlderManifests > 0 {
			display.Fprintf(o.ErrOut, "%s/%s: kubectl applied %s from manifests that are older now: rewrap the manifests too\n",
				k.Mount, k.Name, cli.Plural(k.OlderManifests, "Secret", "Secrets"))
		}
		if r := k.Retire; r != nil {
			display.Fprintf(o.ErrOut, "%s/%s: min_decryption_version %d -> %d: %s\n", k.Mount, k.Name, r.From, r.To, r.Reason)
			for _, p := range r.WouldBreak {
				display.Fprintf(o.ErrOut, "would break: %s\n", p)
			}
			for _, p := range r.Released {
				display.Fprintf(o.ErrOut, "released: %s\n", p)
			}
		}
		if k.Error != "" {
			display.Fprintf(o.ErrOut, "failed: %s/%s: %s\n", k.Mount, k.Name, k.Error)
		}
		for _, p := range k.Reverted.Items {
			display.Fprintf(o.ErrOut, "reverted: %s\n", p)
		}
		for _, p := range k.Unresolved.Items {
			display.Fprintf(o.ErrOut, "unresolved: %s\n", p)
		}
	}
	for _, p := range report.Unassigned.Items {
		display.Fprintf(o.ErrOut, "unassigned: %s\n", p)
	}
	if found := report.Undecryptable; found.Count > 0 {
		display.Fprintf(o.ErrOut, "%d old texts decrypt with no key that is due, and prevent nothing: for example %s\n",
			found.Count, found.Items[0])
	}
	if found := report.OlderReleases; found.Count > 0 {
		display.Fprintf(o.ErrOut, "%d old texts are in old Helm revisions, and prevent nothing: for example %s\n",
			found.Count, found.Items[0])
	}
	for _, p := range report.NotSelected.Items {
		display.Fprintf(o.ErrOut, "not selected: %s\n", p)
	}
	return nil
}

// Package status is the verb status: it prints the inventory of ciphertext Secrets.
package status

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/inventory"
	"github.com/secretmanager-io/secretmanager/internal/options"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Options are the options of status.
type Options struct {
	*cli.Factory
	settle    options.Settle
	all       bool
	selector  string
	output    string
	follow    bool
	stale     bool
	simulated string        // a key version, or belowTarget; empty without --simulate-retire
	keyPoll   time.Duration // interval of a watch
	// stateNamespace is the namespace of the rotator's results.
	stateNamespace string
}

// belowTarget is the value of --simulate-retire without a version.
const belowTarget = "below-target"

// NewCommand returns the command status.
func NewCommand(p *cli.Factory) *cobra.Command {
	o := &Options{Factory: p, keyPoll: 10 * time.Second}
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the key versions and the state of ciphertext Secrets",
		Long: `Show the ciphertext Secrets with their key, the oldest and the newest key version
in use, the version that every entry should have at least, the scope, the GitOps tool that manages the
Secret, and the time since the rotator last wrote it. A second table sums them up
by key. If you may read the rotator's ConfigMaps, a third table has its last run, and why it did or did not
retire old versions. STATE is

  current  every entry has the target version of the key, or a newer one
  behind   some entry does not; the rotator or rewrap updates it
  broken   some entry does not decrypt: retired, malformed or from another Vault
  unknown  the key could not be read, for example because there is no token

The target is the newest version that is older than --settle, so that backups of Vault
that are not older have it. Standard error says what is broken. Without rights in Vault the rest still works:
unknown values are shown as "?". REWRAPPED is the time of the rotator's last write
as the API server records it; a rewrap in Git does not change it.

With -w each Secret is shown again when it changes, until the command is interrupted;
a Secret that was deleted is "deleted". With --stale only Secrets that are behind or
broken are shown: the exit code is 3 if there are any, and 1 if that is unknown.

With --simulate-retire the output is instead what would break if a key version and
all older ones were retired now, or without a version, all below the target. It
covers all Secrets of all namespaces, unless -n names one, whatever their type and
labels: as the rotator does before it retires, it has Vault rewrap each text of these
versions in their entries, annotations and Helm releases, and discards the result.
What decrypts would break. The keys are those that the ciphertext Secrets name, or
with -l those that match it. The token needs read on transit/keys/KEY and update on
transit/rewrap/KEY in Vault. The exit code is 3 if something would break, and 1 if
that is unknown for some key. It does not cover ciphertext outside of Secrets, in Git
or in backups: secretmanager rewrap --check checks files.

docs/reference/status.md describes the JSON, which is stable.`,

		Example: `  secretmanager status -A
  secretmanager status -n demo -l app=matrix -o json
  secretmanager status -A --stale
  secretmanager status -n demo -w
  secretmanager status --simulate-retire
  secretmanager status --simulate-retire=3 -l secretmanager.io/transit-key=matrix`,
		Args: func(c *cobra.Command, args []string) error {
			// "--simulate-retire 3" is a flag and an argument to cobra.
			if len(args) == 1 && o.simulated == belowTarget {
				o.simulated = args[0]
				return nil
			}
			return cobra.NoArgs(c, args)
		},
		RunE: cli.RunE(o),
	}
	f := c.Flags()
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "list the Secrets of all namespaces")
	f.StringVarP(&o.selector, "selector", "l", "", "label `selector` that the Secrets must match")
	f.BoolVarP(&o.follow, "watch", "w", false, "keep running and show each Secret that changes")
	f.BoolVar(&o.stale, "stale", false, "show only Secrets that are behind or broken; exit code 3 if there are any")
	f.StringVar(&o.simulated, "simulate-retire", "",
		"show what would break if this key `version` and all older ones were retired now; without a version, if all "+
			"below the target were")
	f.Lookup("simulate-retire").NoOptDefVal = belowTarget
	o.settle.AddFlags(f, p.Getenv)
	f.StringVar(&o.stateNamespace, "state-namespace", rotator.DefaultStateNamespace,
		"`namespace` of the ConfigMaps of the rotator")
	f.StringVarP(&o.output, "output", "o",
		"", "output `format`: wide, json, yaml or name; not yaml with -w, not name with --simulate-retire")
	cli.FixedValues(c, "output", "wide", "json", "yaml", "name")
	return c
}

// Complete implements cli.Options.
func (o *Options) Complete(*cobra.Command, []string) error { return nil }

// Validate implements cli.Options.
func (o *Options) Validate() error {
	var p cli.Problems
	p.Add(o.settle.Validate()...)
	formats := []string{"wide", "json", "yaml", "name"}
	switch {
	case o.simulated != "":
		formats = []string{"wide", "json", "yaml"}
		p.If(o.follow || o.stale, "--simulate-retire cannot be combined with --watch or --stale")
		if v, err := strconv.Atoi(o.simulated); o.simulated != belowTarget && (err != nil || v < 1) {
			p.Add(display.Errorf("invalid --simulate-retire %q: must be a key version, a number from 1", o.simulated))
		}
	case o.follow:
		formats = []string{"wide", "json", "name"}
		p.If(o.stale, "--stale cannot be combined with --watch, which has no exit code of its own")
	}
	p.Add(cli.ValidateOutput(o.output, formats...), cli.ValidateSelector(o.selector))
	return p.Err()
}

// simulatedVersion returns the version of --simulate-retire; 0 means all below the target.
func (o *Options) simulatedVersion() int {
	version, _ := strconv.Atoi(o.simulated) // Validate has checked it
	return version
}

// Run implements cli.Options.
func (o *Options) Run(ctx context.Context) error {
	namespace, err := o.namespace()
	if err != nil {
		return err
	}
	kube, err := o.KubeClient()
	if err != nil {
		return err
	}
	if o.follow {
		return o.watch(ctx, kube, namespace)
	}
	withTotals := o.output != "name" && o.simulated == ""
	var addLastRuns func([]*inventory.KeyTotal)
	if withTotals {
		reading, cancel := context.WithCancel(ctx)
		defer cancel()
		addLastRuns = o.readLastRuns(reading, kube)
	}
	rows, err := inventory.List(ctx, kube, namespace, o.selector)
	if err != nil {
		return err
	}
	if o.simulated != "" {
		return o.simulate(ctx, kube, namespace, rows)
	}
	if o.output != "name" || o.stale {
		o.readKeys(ctx, rows)
	}
	show := rows
	if o.stale {
		show = slices.DeleteFunc(slices.Clone(rows), func(r *inventory.Secret) bool { return !r.Stale() })
	}
	if len(rows) == 0 && (o.output == "" || o.output == "wide") {
		fmt.Fprintln(o.ErrOut, "no ciphertext Secrets found")
	}
	var totals []*inventory.KeyTotal
	if withTotals {
		totals = inventory.Totals(rows)
		addLastRuns(totals)
	}
	if err := o.show(show, totals); err != nil || !o.stale {
		return err
	}
	return o.staleErr(rows)
}

// namespace returns the namespace to list; empty for all.
func (o *Options) namespace() (string, error) {
	switch {
	case o.all:
		return "", nil
	case o.simulated == "":
		return o.ClusterNamespace()
	case *o.KubeFlags.Namespace != "":
		display.Fprintf(o.ErrOut, "note: only namespace %s is covered, and a key may be in use in other namespaces\n",
			*o.KubeFlags.Namespace)
	}
	return *o.KubeFlags.Namespace, nil
}

// readKeys reads the keys from Vault and sets the states of the Secrets.
func (o *Options) readKeys(ctx context.Context, rows []*inventory.Secret) {
	if len(rows) == 0 {
		return
	}
	keys := o.newKeyReader()
	keys.Read(ctx, rows)
	for _, r := range rows {
		keys.SetState(r)
	}
}

// show writes rows, and the totals of all Secrets.
func (o *Options) show(rows []*inventory.Secret, totals []*inventory.KeyTotal) error {
	switch o.output {
	case "json":
		return o.printJSON(rows, totals)
	case "yaml":
		return o.PrintDocument(newDocument(rows, totals), o.output)
	case "name":
		for _, r := range rows {
			display.Fprintf(o.Out, "secret/%s\n", r.Name)
		}
		return nil
	}
	if len(rows) == 0 {
		return nil
	}
	table := o.newTable()
	table.header()
	for _, r := range rows {
		table.row(r)
	}
	if err := table.out.Flush(); err != nil {
		return err
	}
	if !o.stale {
		if err := o.writeTotals(totals); err != nil {
			return err
		}
		if err := o.writeLastRuns(totals, table.now); err != nil {
			return err
		}
		o.noteUnsettled(totals)
	}
	for _, r := range rows {
		o.reportBroken(r)
	}
	return nil
}

// noteUnsettled names the keys whose target version may be missing in a backup of Vault.
func (o *Options) noteUnsettled(totals []*inventory.KeyTotal) {
	for _, t := range totals {
		if t.Unsettled != nil {
			key := ciphertext.Key{Mount: t.Mount, Name: t.Name}
			display.Fprintf(o.ErrOut, "note: %s\n",
				cli.Unsettled(key, transit.Target{Version: t.Target, Unsettled: *t.Unsettled}))
		}
	}
}

// staleErr returns the error of --stale. An unknown state comes first.
func (o *Options) staleErr(rows []*inventory.Secret) error {
	count := map[inventory.State]int{}
	for _, r := range rows {
		count[r.State]++
	}
	of := cli.Plural(len(rows), "Secret", "Secrets")
	switch stale := count[inventory.Behind] + count[inventory.Broken]; {
	case count[inventory.Unknown] > 0:
		return display.Errorf("the state of %d of %s is unknown: their keys could not be read from Vault",
			count[inventory.Unknown], of)
	case stale > 0:
		return cli.ToDo(
			cli.WithHint(display.Errorf("%d behind and %d broken, of %s", count[inventory.Behind], count[inventory.Broken], of),
				"secretmanager rotate brings those that are behind to the newest version"))
	}
	display.Fprintf(o.ErrOut, "nothing is behind or broken, of %s\n", of)
	return nil
}

func (o *Options) reportBroken(r *inventory.Secret) {
	for _, problem := range r.AllProblems() {
		display.Fprintf(o.ErrOut, "broken: %s/%s: %s\n", r.Namespace, r.Name, problem)
	}
}

// newKeyReader returns a reader that reports failures on standard error.
func (o *Options) newKeyReader() *inventory.KeyReader {
	note := func(text string) { display.Fprintf(o.ErrOut, "note: %s\n", text) }
	session, err := o.VaultSession()
	if err != nil {
		session = nil
	}
	r := inventory.NewKeyReader(session, o.settle.Duration, note)
	if err != nil {
		r.Note(display.Errorf("no key can be read from Vault: %w", err))
	}
	return r
}

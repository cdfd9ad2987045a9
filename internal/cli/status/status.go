// Package status is the verb status: it prints the inventory of ciphertext Secrets.
package status

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/inventory"
	"github.com/spf13/cobra"
)

type Options struct {
	*cli.Factory
	all      bool
	selector string
	output   string
	follow   bool
	stale    bool
	retired  string        // a key version, or newest; empty if it is not asked for
	keyPoll  time.Duration // while it is watched
}

// newest is what --if-retired means without a version.
const newest = "all-but-newest"

func NewCommand(p *cli.Factory) *cobra.Command {
	o := &Options{Factory: p, keyPoll: keyPoll}
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what every ciphertext Secret is encrypted with",
		Long: `Show the ciphertext Secrets with their key, the oldest and the newest key version
in use, the newest version that the key has, the scope, the GitOps tool that keeps
the Secret, and how long ago the rotator last wrote it. Below them each key with
what its Secrets come to. STATE is

  current  every entry is at the newest version of the key
  behind   some entry is not; the rotator, or rewrap, will bring it there
  broken   some entry does not open: retired, malformed or made by another Vault
  unknown  Vault did not tell, for instance because there is no token

What is broken is said on standard error. Without rights in Vault the rest works:
what is not known is "?". REWRAPPED is the time that the API server has noted for
the rotator's last write; a rewrap in Git is not seen by it.

With -w each Secret that changes is shown again, until it is interrupted; one that
goes is "deleted". With --stale only what is behind or broken is shown: the exit
code is 3 if there is any, and 1 if that could not be found out.

With --if-retired it shows instead what would break if a key version and all older
ones were retired now, or without a version all but the newest: each entry, and
which GitOps tool keeps it there. All namespaces are looked at, unless -n names
one. The exit code is 3 if something would break, and 1 if that cannot be told of
all. Ciphertext outside of the cluster, in Git or in backups, is not seen:
secretmanager rewrap --check looks at files.

The JSON is described in docs/reference/status.md, and stays as it is.`,

		Example: `  secretmanager status -A
  secretmanager status -n demo -l app=matrix -o json
  secretmanager status -A --stale
  secretmanager status -n demo -w
  secretmanager status --if-retired
  secretmanager status --if-retired=3 -l secretmanager.io/transit-key=matrix`,
		Args: func(c *cobra.Command, args []string) error {
			// "--if-retired 3" is a flag and an argument to cobra.
			if len(args) == 1 && o.retired == newest {
				o.retired = args[0]
				return nil
			}
			return cobra.NoArgs(c, args)
		},
		RunE: cli.RunE(o),
	}
	f := c.Flags()
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "the Secrets of all namespaces")
	f.StringVarP(&o.selector, "selector", "l", "", "label selector that they must match")
	f.BoolVarP(&o.follow, "watch", "w", false, "go on and show each Secret that changes")
	f.BoolVar(&o.stale, "stale", false, "only what is behind or broken; exit code 3 if there is any")
	f.StringVar(&o.retired, "if-retired", "", "what would break if this key `version` and all older ones were retired now; without one, if all but the newest were")
	f.Lookup("if-retired").NoOptDefVal = newest
	f.StringVarP(&o.output, "output", "o", "", "wide, json, yaml or name; with -w not yaml, with --if-retired only json")
	cli.FixedValues(c, "output", "wide", "json", "yaml", "name")
	return c
}

// Complete implements cli.Options.
func (o *Options) Complete(*cobra.Command, []string) error { return nil }

// Validate implements cli.Options.
func (o *Options) Validate() error {
	var p cli.Problems
	formats := []string{"wide", "json", "yaml", "name"}
	switch {
	case o.retired != "":
		formats = []string{"json"}
		p.If(o.follow || o.stale, "--if-retired cannot be combined with --watch or --stale")
		if v, err := strconv.Atoi(o.retired); o.retired != newest && (err != nil || v < 1) {
			p.Add(display.Errorf("invalid --if-retired %q: must be a key version, a number from 1", o.retired))
		}
	case o.follow:
		formats = []string{"wide", "json", "name"}
		p.If(o.stale, "--stale cannot be combined with --watch, which has no exit code of its own")
	}
	p.Add(cli.ValidateOutput(o.output, formats...), cli.ValidateSelector(o.selector))
	return p.Err()
}

// retiredVersion is the version of --if-retired; 0 means all but the newest.
func (o *Options) retiredVersion() int {
	version, _ := strconv.Atoi(o.retired) // checked
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
	rows, err := inventory.List(ctx, kube, namespace, o.selector)
	if err != nil {
		return err
	}
	if o.output != "name" || o.stale {
		o.readKeys(ctx, rows)
	}
	if o.retired != "" {
		return o.showRetirement(rows)
	}
	show := rows
	if o.stale {
		show = slices.DeleteFunc(slices.Clone(rows), func(r *inventory.Secret) bool { return !r.Stale() })
	}
	if err := o.show(show, rows); err != nil || !o.stale {
		return err
	}
	return o.staleErr(rows)
}

// namespace is where to look; empty is everywhere.
func (o *Options) namespace() (string, error) {
	switch {
	case o.all:
		return "", nil
	case o.retired == "":
		return o.ClusterNamespace()
	case *o.KubeFlags.Namespace != "":
		display.Fprintf(o.ErrOut, "note: only namespace %s is looked at, and a key may be in use in others\n", *o.KubeFlags.Namespace)
	}
	return *o.KubeFlags.Namespace, nil
}

// readKeys asks Vault about the keys and judges the rows by its answers.
func (o *Options) readKeys(ctx context.Context, rows []*inventory.Secret) {
	if len(rows) == 0 {
		return
	}
	keys := o.newKeyReader()
	keys.Ask(ctx, inventory.KeysOf(rows))
	for _, r := range rows {
		keys.Judge(r)
	}
}

// show writes rows, and what all of them come to.
func (o *Options) show(rows, all []*inventory.Secret) error {
	switch o.output {
	case "json":
		return o.printJSON(rows, inventory.Totals(all))
	case "yaml":
		return o.PrintDocument(newDocument(rows, inventory.Totals(all)), o.output)
	case "name":
		for _, r := range rows {
			display.Fprintf(o.Out, "secret/%s\n", r.Name)
		}
		return nil
	}
	if len(all) == 0 {
		fmt.Fprintln(o.ErrOut, "no ciphertext Secrets found")
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
		if err := o.writeTotals(inventory.Totals(all)); err != nil {
			return err
		}
	}
	for _, r := range rows {
		o.sayBroken(r)
	}
	return nil
}

// staleErr says whether there is something to do; that it is not known comes first.
func (o *Options) staleErr(rows []*inventory.Secret) error {
	count := map[inventory.State]int{}
	for _, r := range rows {
		count[r.State]++
	}
	of := cli.Plural(len(rows), "Secret", "Secrets")
	switch stale := count[inventory.Behind] + count[inventory.Broken]; {
	case count[inventory.Unknown] > 0:
		return display.Errorf("whether %d of %s are behind is not known: Vault did not tell", count[inventory.Unknown], of)
	case stale > 0:
		return cli.ToDo(cli.WithHint(display.Errorf("%d behind and %d broken, of %s", count[inventory.Behind], count[inventory.Broken], of),
			"secretmanager rotate brings those to the newest version that are behind"))
	}
	display.Fprintf(o.ErrOut, "nothing is behind or broken, of %s\n", of)
	return nil
}

func (o *Options) sayBroken(r *inventory.Secret) {
	for _, problem := range r.AllProblems() {
		display.Fprintf(o.ErrOut, "broken: %s/%s: %s\n", r.Namespace, r.Name, problem)
	}
}

// newKeyReader returns a reader of keys that notes on standard error what Vault does not tell.
func (o *Options) newKeyReader() *inventory.KeyReader {
	note := func(text string) { display.Fprintf(o.ErrOut, "note: %s\n", text) }
	session, err := o.VaultSession()
	if err != nil {
		session = nil
	}
	r := inventory.NewKeyReader(session, note)
	if err != nil {
		r.Say(display.Errorf("nothing is known from Vault: %w", err))
	}
	return r
}

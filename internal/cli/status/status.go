// Package status is the verb status: it prints the inventory of ciphertext Secrets.
package status

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

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
	names     []string
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
		Use:   "status [NAME...]",
		Short: "Show the key versions and the state of ciphertext Secrets",
		Long: `Show the ciphertext Secrets with their key, their state, the key versions in use,
and the version that every entry should have at least. A second table sums them up
by key. If you may read the rotator's ConfigMaps, the end has its last nightly run,
why it did not retire old versions, and the last run that somebody started. With NAME,
the output has one line for each entry of these Secrets. STATE is

  current  every entry has the target version of the key, or a newer one
  behind   some entry does not; the rotator or rewrap updates it
  broken   some entry does not decrypt: retired, malformed or from another Vault
  unknown  the key could not be read, for example because there is no token

On a terminal, more than 100 Secrets are not all listed: those that are current are
only counted. -o wide lists all, and has the scope, the GitOps tool that manages the
Secret, and the time since the rotator last wrote it.

The target is the newest version that is older than --settle, so that backups of Vault
that are not older have it. Standard error says what is broken. Without rights in Vault the rest still works:
unknown values are shown as "?". REWRAPPED is the time of the rotator's last write
as the API server records it; a rewrap in Git does not change it.

With -w each Secret is shown again when it changes, with the time, until the command
is interrupted; a Secret that was deleted is "deleted". With --stale only Secrets that
are behind or broken are shown: the exit code is 3 if there are any, and 1 if that is
unknown or no Secret was found. A namespace or Secret that does not exist is an error.

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
  secretmanager status matrix-secrets -n demo
  secretmanager status -n demo -l app=matrix -o json
  secretmanager status -A --stale
  secretmanager status -n demo -w
  secretmanager status -A --simulate-retire
  secretmanager status -A --simulate-retire=3 -l secretmanager.io/transit-key=matrix`,
		RunE: cli.RunE(o),
	}
	f := c.Flags()
	cli.AllNamespacesFlag(c, &o.all)
	cli.SelectorFlag(c, &o.selector)
	f.BoolVarP(&o.follow, "watch", "w", false, "keep running and show each Secret that changes")
	f.BoolVar(&o.stale, "stale", false, "show only Secrets that are behind or broken; exit code 3 if there are any")
	f.StringVar(&o.simulated, "simulate-retire", "",
		"show what would break if this key `version` and all older ones were retired now; without a version, if all "+
			"below the target were")
	f.Lookup("simulate-retire").NoOptDefVal = belowTarget
	o.settle.AddFlags(f, p.Getenv)
	f.StringVar(&o.stateNamespace, "state-namespace", rotator.DefaultStateNamespace,
		"`namespace` of the ConfigMaps of the rotator")
	cli.OutputFlag(c, &o.output, "wide", "json", "yaml", "name")
	return c
}

// Complete implements cli.Options.
func (o *Options) Complete(_ *cobra.Command, args []string) error {
	// "--simulate-retire 3" is a flag and an argument to cobra.
	if len(args) == 1 && o.simulated == belowTarget {
		o.simulated, args = args[0], nil
	}
	o.names = args
	return nil
}

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
	p.If(len(o.names) > 0 && (o.all || o.selector != "" || o.simulated != ""),
		"NAME cannot be combined with -A, -l or --simulate-retire")
	p.Add(o.ValidateNamespaces(o.all))
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
	namespaces, err := o.namespaces()
	if err != nil {
		return err
	}
	kube, err := o.KubeClient()
	if err != nil {
		return err
	}
	if o.follow {
		if err := o.CheckNamespaces(ctx, kube, namespaces); err != nil {
			return err
		}
		return o.watch(ctx, kube, namespaces)
	}
	withTotals := (o.output != "name" || o.stale) && o.simulated == ""
	var addLastRuns func(*view)
	if withTotals {
		reading, cancel := context.WithCancel(ctx)
		defer cancel()
		addLastRuns = o.readLastRuns(reading, kube)
	}
	rows, missing, err := o.list(ctx, kube, namespaces)
	if err != nil {
		return err
	}
	if o.simulated != "" {
		if missing == nil && len(rows) == 0 {
			missing = o.ErrNothingFound(namespaces, o.selector)
		}
		if missing != nil {
			return missing
		}
		return o.simulate(ctx, kube, namespaces, rows)
	}
	if o.output != "name" || o.stale {
		o.readKeys(ctx, rows)
	}
	v := &view{rows: rows, total: len(rows)}
	if withTotals {
		addLastRuns(v)
		v.totals = inventory.Totals(rows)
		v.addLastRuns()
	}
	v.count = countStates(rows)
	if o.stale {
		v.rows = slices.DeleteFunc(slices.Clone(rows), func(r *inventory.Secret) bool { return !r.Stale() })
	}
	if err := o.show(v); err != nil {
		return err
	}
	switch {
	case missing != nil:
		return missing
	case len(rows) == 0 && o.stale:
		return o.ErrNothingFound(namespaces, o.selector)
	case len(rows) == 0 && (o.output == "" || o.output == "wide"):
		display.Fprintf(o.ErrOut, "no ciphertext Secrets found %s\n", o.Where(namespaces, o.selector))
	case o.stale:
		return o.staleErr(v)
	}
	return nil
}

// namespaces returns the namespaces to list; none means all. A simulation covers all unless -n names some: a key is
// not retired in a namespace.
func (o *Options) namespaces() ([]string, error) {
	flag := *o.KubeFlags.Namespace
	if o.simulated == "" || flag != "" {
		if o.simulated != "" {
			display.Fprintf(o.ErrOut, "note: only -n %s is covered, and a key may be in use in other namespaces\n", flag)
		}
		return o.Namespaces(o.all)
	}
	return nil, nil
}

// list returns the Secrets that the options select. It returns as missing which names and namespaces do not exist.
func (o *Options) list(ctx context.Context, kube kubernetes.Interface, namespaces []string) (rows []*inventory.Secret,
	missing, err error) {
	if len(o.names) == 0 {
		if rows, err = inventory.List(ctx, kube, namespaces, o.selector); err != nil {
			return nil, nil, err
		}
		return rows, o.CheckNamespaces(ctx, kube, withoutSecrets(namespaces, rows)), nil
	}
	namespace, err := o.ClusterNamespace()
	if err != nil {
		return nil, nil, err
	}
	for _, name := range o.names {
		secret, err := kube.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		switch {
		case err != nil:
			missing = errors.Join(missing, display.Errorf("reading Secret %s/%s: %w", namespace, name, err))
		case !inventory.IsCiphertext(secret):
			missing = errors.Join(missing, display.Errorf("Secret %s/%s is not a ciphertext Secret: it has neither type %s "+
				"nor label %s", namespace, name, ciphertext.Type, ciphertext.LabelTransitKey))
		default:
			rows = append(rows, inventory.NewSecret(secret))
		}
	}
	if missing != nil {
		missing = cli.WithHint(missing, "secretmanager status -n "+namespace+" lists the ciphertext Secrets of "+
			"the namespace, and -A those of all namespaces")
	}
	return rows, missing, nil
}

// withoutSecrets returns the namespaces in which no Secret was found: they may not exist.
func withoutSecrets(namespaces []string, rows []*inventory.Secret) []string {
	found := map[string]bool{}
	for _, r := range rows {
		found[r.Namespace] = true
	}
	return slices.DeleteFunc(slices.Clone(namespaces), func(n string) bool { return found[n] })
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

// view is what status shows.
type view struct {
	rows    []*inventory.Secret // to show
	total   int                 // number of Secrets, with those that are not shown
	count   map[inventory.State]int
	totals  []*inventory.KeyTotal
	summary *rotator.Summary // nil if it could not be read
}

func countStates(rows []*inventory.Secret) map[inventory.State]int {
	count := map[inventory.State]int{}
	for _, r := range rows {
		count[r.State]++
	}
	return count
}

// show writes the view.
func (o *Options) show(v *view) error {
	switch o.output {
	case "json":
		return o.printJSON(v)
	case "yaml":
		return o.PrintDocument(newDocument(v), o.output)
	case "name":
		for _, r := range v.rows {
			display.Fprintf(o.Out, "secret/%s\n", r.Name)
		}
		return nil
	}
	if len(v.rows) == 0 {
		return nil
	}
	now := time.Now()
	if err := o.writeRows(v, now); err != nil {
		return err
	}
	if len(o.names) == 0 && !o.stale {
		if err := o.writeTotals(v.totals); err != nil {
			return err
		}
		o.writeSummary(v, now)
		o.noteUnsettled(v.totals)
	}
	o.reportBroken(v.rows)
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
func (o *Options) staleErr(v *view) error {
	count, of := v.count, cli.Plural(v.total, "Secret", "Secrets")
	if count[inventory.Unknown] > 0 {
		return display.Errorf("the state of %d of %s is unknown: their keys could not be read from Vault",
			count[inventory.Unknown], of)
	}
	if count[inventory.Behind]+count[inventory.Broken] == 0 {
		display.Fprintf(o.ErrOut, "nothing is behind or broken, of %s\n", of)
		return nil
	}
	err := display.Errorf("%d behind and %d broken, of %s", count[inventory.Behind], count[inventory.Broken], of)
	var hints []string
	if count[inventory.Behind] > 0 {
		hints = append(hints, "bring those that are behind to the target version: "+o.rotateCommand(v.rows))
	}
	if count[inventory.Broken] > 0 {
		hints = append(hints, "rotate does not fix those that are broken: the lines above say why, and what to do")
	}
	return cli.ToDo(cli.WithHint(err, hints...))
}

// rotateCommand returns the command that rewraps the Secrets that are behind.
func (o *Options) rotateCommand(rows []*inventory.Secret) string {
	behind := slices.DeleteFunc(slices.Clone(rows), func(r *inventory.Secret) bool { return r.State != inventory.Behind })
	words := []string{"secretmanager", "rotate", "--rotate=never"}
	for _, key := range inventory.KeysOf(behind) {
		words = append(words, "--transit-key", key.Mount+"/"+key.Name)
	}
	if o.all {
		return display.ShellWords(append(words, "-A")...)
	}
	var namespaces []string
	for _, r := range behind {
		namespaces = append(namespaces, r.Namespace)
	}
	slices.Sort(namespaces)
	return display.ShellWords(append(words, "-n", strings.Join(slices.Compact(namespaces), ","))...)
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

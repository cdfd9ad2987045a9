package status

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/inventory"
)

// maxListed is the number of Secrets from which on a terminal does not list those that are current.
const maxListed = 100

// stateColumn is the index of the column with the state, in each table.
const stateColumn = 2

// table writes Secrets for people.
type table struct {
	*cli.Table
	namespace, wide, watch bool
	now                    time.Time
}

func (o *Options) newTable(now time.Time) *table {
	return &table{
		Table: o.NewTable(o.Out, stateColumn), namespace: o.all || strings.Contains(*o.KubeFlags.Namespace, ","),
		wide: o.output == "wide", watch: o.follow, now: now,
	}
}

// columns selects from all columns. At most seven are not wide.
func (t *table) columns(c map[string]string) (cells []string) {
	names := []string{"NAME", "KEY", "STATE", "ENTRIES", "VERSIONS", "TARGET"}
	if t.namespace {
		names = []string{"NAMESPACE", "NAME", "STATE", "KEY", "VERSIONS", "TARGET"}
	}
	switch {
	case t.watch:
		names = append(names, "TIME")
	case !t.namespace:
		names = append(names, "REWRAPPED")
	}
	if t.wide {
		for _, name := range []string{"ENTRIES", "REWRAPPED", "SCOPE", "MANAGED-BY", "MOUNT", "MIN-DECRYPTION"} {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		if c == nil {
			cells = append(cells, name)
		} else {
			cells = append(cells, c[name])
		}
	}
	return cells
}

func (t *table) header() { t.Header(t.columns(nil)...) }

func (t *table) row(r *inventory.Secret) {
	versions := number(r.Oldest)
	if r.Newest != r.Oldest {
		versions = fmt.Sprintf("%d-%d", r.Oldest, r.Newest)
	}
	t.Row(colorOf(r.State), t.columns(map[string]string{
		"NAMESPACE": r.Namespace, "NAME": r.Name, "KEY": cmp.Or(r.Key, "?"), "STATE": string(r.State),
		"ENTRIES": fmt.Sprint(len(r.Entries)), "VERSIONS": versions, "TARGET": number(r.Target),
		"REWRAPPED": t.rewrapped(r), "TIME": t.now.Format(time.TimeOnly), "SCOPE": cmp.Or(r.Scope, "?"),
		"MANAGED-BY": cmp.Or(r.ManagedBy, "-"), "MOUNT": r.Mount, "MIN-DECRYPTION": number(r.MinDecryption),
	})...)
}

// rewrapped returns the time since the rotator last wrote the Secret.
func (t *table) rewrapped(r *inventory.Secret) string {
	switch {
	case r.LastRewrap != nil:
		return duration.HumanDuration(t.now.Sub(r.LastRewrap.Time))
	case r.Rewrapped > 0:
		return "?" // the annotation was copied, the time was not
	}
	return "-"
}

func colorOf(s inventory.State) string {
	switch s {
	case inventory.Current:
		return cli.Green
	case inventory.Behind:
		return cli.Yellow
	case inventory.Broken:
		return cli.Red
	}
	return cli.Default
}

// number formats a version, which is 0 if it is unknown.
func number(n int) string {
	if n == 0 {
		return "?"
	}
	return fmt.Sprint(n)
}

// writeRows writes a line for each Secret, or with names for each entry.
func (o *Options) writeRows(v *view, now time.Time) error {
	if len(o.names) > 0 {
		return o.writeEntries(v.rows)
	}
	rows := v.rows
	if len(rows) > maxListed && o.output == "" && cli.IsTerminal(o.Out) {
		rows = slices.DeleteFunc(slices.Clone(rows), func(r *inventory.Secret) bool { return r.State == inventory.Current })
		display.Fprintf(o.ErrOut, "%s not listed: -o wide lists all\n",
			cli.Plural(len(v.rows)-len(rows), "Secret that is current is", "Secrets that are current are"))
	}
	if len(rows) == 0 {
		return nil
	}
	table := o.newTable(now)
	table.header()
	for _, r := range rows {
		table.row(r)
	}
	return table.Flush()
}

// writeEntries writes a line for each entry.
func (o *Options) writeEntries(rows []*inventory.Secret) error {
	table := o.NewTable(o.Out, stateColumn)
	header := []string{"NAME", "ENTRY", "STATE", "VERSION", "TARGET", "KEY"}
	if o.output == "wide" {
		header = append(header, "SCOPE", "MIN-DECRYPTION", "MANAGED-BY")
	}
	table.Header(header...)
	for _, r := range rows {
		for _, e := range r.Entries {
			state := r.EntryState(e)
			cells := []string{r.Name, e.Name, string(state), number(e.Version), number(r.Target), cmp.Or(r.Key, "?")}
			if o.output == "wide" {
				cells = append(cells, cmp.Or(r.Scope, "?"), number(r.MinDecryption), cmp.Or(r.ManagedBy, "-"))
			}
			table.Row(colorOf(state), cells...)
		}
	}
	return table.Flush()
}

func (o *Options) writeTotals(all []*inventory.KeyTotal) error {
	table := o.NewTable(o.Out, stateColumn)
	header := []string{"KEY", "LATEST", "STATE", "SECRETS", "ENTRIES", "BEHIND", "BROKEN"}
	wide := o.output == "wide"
	if wide {
		header = append(header, "CURRENT", "UNKNOWN", "MIN-DECRYPTION", "VERSIONS")
	}
	fmt.Fprintln(o.Out)
	table.Header(header...)
	for _, t := range all {
		state := t.State()
		cells := []string{t.Mount + "/" + t.Name, number(t.Latest), string(state), fmt.Sprint(t.Secrets),
			fmt.Sprint(t.Entries), fmt.Sprint(t.Behind), fmt.Sprint(t.Broken)}
		if wide {
			var versions []string
			for _, v := range slices.Sorted(maps.Keys(t.Versions)) {
				versions = append(versions, fmt.Sprintf("%d: %d", v, t.Versions[v]))
			}
			cells = append(cells, fmt.Sprint(t.Current), fmt.Sprint(t.Unknown), number(t.MinDecryption),
				cmp.Or(strings.Join(versions, ", "), "-"))
		}
		table.Row(colorOf(state), cells...)
	}
	return table.Flush()
}

// seen is a line of the JSON of a watch.
type seen struct {
	*inventory.Secret
	Seen time.Time `json:"seen"`
}

// watch shows all Secrets and then each one that changes, until the context ends.
func (o *Options) watch(ctx context.Context, kube kubernetes.Interface, namespaces []string) error {
	var table *table // nil until the first Secret
	w := inventory.Watcher{Kube: kube, Namespaces: namespaces, Selector: o.selector, Keys: o.newKeyReader(),
		KeyPoll: o.keyPoll}
	if len(o.names) > 0 {
		w.Select = func(r *inventory.Secret) bool { return slices.Contains(o.names, r.Name) }
	}
	w.Show = func(r *inventory.Secret) error {
		now := time.Now()
		switch o.output {
		case "json":
			text, err := json.Marshal(seen{r, now.UTC().Truncate(time.Second)})
			if err == nil {
				_, err = o.Out.Write(append(display.JSON(text), '\n'))
			}
			return err
		case "name":
			_, err := display.Fprintf(o.Out, "secret/%s\n", r.Name)
			return err
		}
		if table == nil {
			table = o.newTable(now)
			table.header()
		}
		table.now = now
		table.row(r)
		if r.State == inventory.Broken {
			o.reportBroken([]*inventory.Secret{r})
		}
		return nil
	}
	w.Flush = func() error {
		if table == nil {
			return nil
		}
		return table.Flush()
	}
	return w.Run(ctx)
}

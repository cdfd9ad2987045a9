package status

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/inventory"
)

// table writes Secrets for people. Its columns keep their width between flushes.
type table struct {
	out             flusher
	namespace, wide bool
	colored         bool
	now             time.Time
}

// flusher is a table that is written when it is flushed.
type flusher interface {
	io.Writer
	Flush() error
}

// bufferedTable buffers what a table writes cell by cell.
type bufferedTable struct {
	flusher
	buffer *bufio.Writer
}

func newBufferedTable(w io.Writer) flusher {
	buffer := bufio.NewWriter(w)
	return bufferedTable{printers.GetNewTabWriter(buffer), buffer}
}

func (t bufferedTable) Flush() error {
	if err := t.flusher.Flush(); err != nil {
		return err
	}
	return t.buffer.Flush()
}

func (o *Options) newTable() *table {
	return &table{
		out: newBufferedTable(o.Out), namespace: o.all, wide: o.output == "wide",
		colored: o.Colored(o.Out), now: time.Now(),
	}
}

// line writes the columns that the options select.
func (t *table) line(namespace string, columns []string, wide []string, state, color string) {
	if t.namespace {
		columns = append([]string{namespace}, columns...)
	}
	if t.wide {
		columns = append(columns, wide...)
	}
	before, after := "", ""
	if color != "" && t.colored {
		before, after = color, cli.Plain
	}
	cells := make([]any, 0, len(columns)+1)
	for _, column := range columns {
		cells = append(cells, column)
	}
	// The state is the last column, as colors would shift the columns after it.
	display.Fprintf(t.out, strings.Repeat("%s\t", len(columns))+before+"%s"+after+"\n", append(cells, state)...)
}

func (t *table) header() {
	t.line("NAMESPACE", []string{"NAME", "KEY", "ENTRIES", "OLDEST", "NEWEST", "TARGET", "SCOPE", "MANAGED-BY",
		"REWRAPPED"},
		[]string{"MOUNT", "MIN-DECRYPTION"}, "STATE", "")
}

func (t *table) row(r *inventory.Secret) {
	t.line(r.Namespace, []string{
		r.Name, cmp.Or(r.Key, "?"), fmt.Sprint(len(r.Entries)), number(r.Oldest), number(r.Newest), number(r.Target),
		cmp.Or(r.Scope, "?"), cmp.Or(r.ManagedBy, "-"), t.rewrapped(r),
	}, []string{r.Mount, number(r.MinDecryption)}, string(r.State), stateColours[r.State])
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

var stateColours = map[inventory.State]string{inventory.Current: cli.Green, inventory.Behind: cli.Yellow,
	inventory.Broken: cli.Red}

// number formats a version, which is 0 if it is unknown.
func number(n int) string {
	if n == 0 {
		return "?"
	}
	return fmt.Sprint(n)
}

func (o *Options) writeTotals(all []*inventory.KeyTotal) error {
	table := newBufferedTable(o.Out)
	fmt.Fprintln(table, "\nKEY\tLATEST\tMIN-DECRYPTION\tSECRETS\tCURRENT\tBEHIND\tBROKEN\tUNKNOWN\tENTRIES\tVERSIONS")
	for _, t := range all {
		var versions []string
		for _, v := range slices.Sorted(maps.Keys(t.Versions)) {
			versions = append(versions, fmt.Sprintf("%d: %d", v, t.Versions[v]))
		}
		display.Fprintf(table, "%s/%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", t.Mount, t.Name, number(t.Latest),
			number(t.MinDecryption),
			t.Secrets, t.Current, t.Behind, t.Broken, t.Unknown, t.Entries, cmp.Or(strings.Join(versions, ", "), "-"))
	}
	return table.Flush()
}

// watch shows all Secrets and then each one that changes, until the context ends.
func (o *Options) watch(ctx context.Context, kube kubernetes.Interface, namespace string) error {
	var table *table // nil until the first Secret
	w := inventory.Watcher{Kube: kube, Namespace: namespace, Selector: o.selector, Keys: o.newKeyReader(),
		KeyPoll: o.keyPoll}
	w.Show = func(r *inventory.Secret) error {
		switch o.output {
		case "json":
			text, err := json.Marshal(r)
			if err == nil {
				_, err = o.Out.Write(append(display.JSON(text), '\n'))
			}
			return err
		case "name":
			_, err := display.Fprintf(o.Out, "secret/%s\n", r.Name)
			return err
		}
		if table == nil {
			table = o.newTable()
			table.header()
		}
		table.now = time.Now()
		table.row(r)
		if r.State == inventory.Broken {
			o.reportBroken(r)
		}
		return nil
	}
	w.Flush = func() error {
		if table == nil {
			return nil
		}
		return table.out.Flush()
	}
	return w.Run(ctx)
}

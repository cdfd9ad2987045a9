package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/display"

	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"
)

// statusTable writes rows for people. Its columns stay where they are from one
// flush to the next.
type statusTable struct {
	out             flusher
	namespace, wide bool
	coloured        bool
	now             time.Time
}

// flusher is a table that is written when it is flushed.
type flusher interface {
	io.Writer
	Flush() error
}

// bufferedTable hands on what a table writes, cell by cell, in large pieces.
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

func (o *status) newTable() *statusTable {
	return &statusTable{
		out: newBufferedTable(o.Out), namespace: o.all || o.retired != "", wide: o.output == "wide",
		coloured: o.coloured(o.Out), now: time.Now(),
	}
}

// line writes the columns that are asked for.
func (t *statusTable) line(namespace string, columns []string, wide []string, state, colour string) {
	if t.namespace {
		columns = append([]string{namespace}, columns...)
	}
	if t.wide {
		columns = append(columns, wide...)
	}
	before, after := "", ""
	if colour != "" && t.coloured {
		before, after = colour, plain
	}
	cells := make([]any, 0, len(columns)+1)
	for _, column := range columns {
		cells = append(cells, column)
	}
	// The last column: what colours it takes no room in the others.
	display.Fprintf(t.out, strings.Repeat("%s\t", len(columns))+before+"%s"+after+"\n", append(cells, state)...)
}

func (t *statusTable) header() {
	t.line("NAMESPACE", []string{"NAME", "KEY", "ENTRIES", "OLDEST", "NEWEST", "LATEST", "SCOPE", "MANAGED-BY", "REWRAPPED"},
		[]string{"MOUNT", "MIN-DECRYPTION"}, "STATE", "")
}

func (t *statusTable) row(r *statusRow) {
	t.line(r.Namespace, []string{
		r.Name, cmp.Or(r.Key, "?"), fmt.Sprint(len(r.Entries)), number(r.Oldest), number(r.Newest), number(r.Latest),
		cmp.Or(r.Scope, "?"), cmp.Or(r.ManagedBy, "-"), t.rewrapped(r),
	}, []string{r.Mount, number(r.MinDecryption)}, string(r.State), stateColours[r.State])
}

// rewrapped is how long ago the rotator last wrote the Secret.
func (t *statusTable) rewrapped(r *statusRow) string {
	switch {
	case r.LastRewrap != nil:
		return duration.HumanDuration(t.now.Sub(r.LastRewrap.Time))
	case r.Rewrapped > 0:
		return "?" // the note of it came along, the time did not
	}
	return "-"
}

var stateColours = map[state]string{stateCurrent: green, stateBehind: yellow, stateBroken: red}

// number is a version that Vault or a Secret may not have told.
func number(n int) string {
	if n == 0 {
		return "?"
	}
	return fmt.Sprint(n)
}

// keyTotal is what the Secrets of a key are together. Its JSON is a promise, as
// that of statusRow is.
type keyTotal struct {
	Mount         string      `json:"mount"`
	Name          string      `json:"name"`
	Latest        int         `json:"latestVersion,omitempty"`
	MinDecryption int         `json:"minDecryptionVersion,omitempty"`
	Secrets       int         `json:"secrets"`
	Entries       int         `json:"entries"`
	Current       int         `json:"current"` // Secrets in that state, here and below
	Behind        int         `json:"behind"`
	Broken        int         `json:"broken"`
	Unknown       int         `json:"unknown"`
	Versions      map[int]int `json:"versions"` // entries by the version that they are of
}

// totals are by mount and name. A Secret that names no key is in none of them.
func totals(rows []*statusRow) []*keyTotal {
	all := []*keyTotal{}
	for _, key := range keysOf(rows) {
		all = append(all, &keyTotal{Mount: key.Mount, Name: key.Name, Versions: map[int]int{}})
	}
	slices.SortFunc(all, func(a, b *keyTotal) int {
		return cmp.Or(cmp.Compare(a.Mount, b.Mount), cmp.Compare(a.Name, b.Name))
	})
	byKey := map[[2]string]*keyTotal{}
	for _, t := range all {
		byKey[[2]string{t.Mount, t.Name}] = t
	}
	for _, r := range rows {
		t := byKey[[2]string{r.Mount, r.Key}]
		if t == nil {
			continue
		}
		t.Latest, t.MinDecryption = r.Latest, r.MinDecryption
		t.Secrets, t.Entries = t.Secrets+1, t.Entries+len(r.Entries)
		*map[state]*int{stateCurrent: &t.Current, stateBehind: &t.Behind, stateBroken: &t.Broken, stateUnknown: &t.Unknown}[r.State]++
		for _, e := range r.Entries {
			if e.Version > 0 {
				t.Versions[e.Version]++
			}
		}
	}
	return all
}

func (o *status) writeTotals(all []*keyTotal) error {
	table := newBufferedTable(o.Out)
	fmt.Fprintln(table, "\nKEY\tLATEST\tMIN-DECRYPTION\tSECRETS\tCURRENT\tBEHIND\tBROKEN\tUNKNOWN\tENTRIES\tOF VERSION")
	for _, t := range all {
		var versions []string
		for _, v := range slices.Sorted(maps.Keys(t.Versions)) {
			versions = append(versions, fmt.Sprintf("%d: %d", v, t.Versions[v]))
		}
		display.Fprintf(table, "%s/%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", t.Mount, t.Name, number(t.Latest), number(t.MinDecryption),
			t.Secrets, t.Current, t.Behind, t.Broken, t.Unknown, t.Entries, cmp.Or(strings.Join(versions, ", "), "-"))
	}
	return table.Flush()
}

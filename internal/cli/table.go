package cli

import (
	"bufio"
	"io"

	"github.com/liggitt/tabwriter"

	"github.com/secretmanager-io/secretmanager/internal/display"
)

// Default is the foreground color of the terminal. Its sequence is as long as the sequences of the other colors.
const Default = "\x1b[39m"

// Table writes columns for people, two spaces apart. They keep their width between flushes.
type Table struct {
	columns *tabwriter.Writer
	buffer  *bufio.Writer // the tabwriter writes cell by cell
	colored int           // column with colors; -1 for none
}

// NewTable returns a table on a stream. The column of this index has colors, if the stream can show them.
func (p *Factory) NewTable(w io.Writer, colored int) *Table {
	buffer := bufio.NewWriter(w)
	if !p.Colored(w) {
		colored = -1
	}
	return &Table{tabwriter.NewWriter(buffer, 0, 8, 2, ' ', tabwriter.RememberWidths), buffer, colored}
}

// Header writes the names of the columns.
func (t *Table) Header(cells ...string) { t.Row(Default, cells...) }

// Row writes cells, with the color in the column that has colors.
func (t *Table) Row(color string, cells ...string) {
	for i, cell := range cells {
		end := "\t"
		if i == len(cells)-1 {
			end = "\n"
		}
		if i == t.colored {
			// The tabwriter counts the sequences as text. They have the same length in each row.
			display.Fprintf(t.columns, color+"%s"+Plain+end, cell)
			continue
		}
		display.Fprintf(t.columns, "%s"+end, cell)
	}
}

// Flush writes the rows.
func (t *Table) Flush() error {
	if err := t.columns.Flush(); err != nil {
		return err
	}
	return t.buffer.Flush()
}

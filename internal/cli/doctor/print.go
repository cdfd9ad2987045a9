package doctor

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/doctor"
)

// printer prints checks as text: a section for each subject, and at the end the commands that fix what is broken.
type printer struct {
	out     io.Writer
	width   int  // of the terminal; 0: lines are not wrapped
	color   bool // print colors
	verbose bool // print checks that are ok too

	section []doctor.Check // not printed yet, of one subject
	broken  []doctor.Check
}

// terminalWidth returns the width of a terminal, and 0 for anything else.
func terminalWidth(out any) int {
	f, ok := out.(interface{ Fd() uintptr })
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// add takes the result of a check. A section is printed when it is complete.
func (p *printer) add(c doctor.Check) {
	if len(p.section) > 0 && p.section[0].Subject != c.Subject {
		p.flush()
	}
	p.section = append(p.section, c)
	if c.State == doctor.Broken {
		p.broken = append(p.broken, c)
	}
}

// row is a line of a section.
type row struct {
	state, name, text string
	check             doctor.Check
}

// flush prints the section.
func (p *printer) flush() {
	if len(p.section) == 0 {
		return
	}
	ok := 0
	var rows []row
	for _, c := range p.section {
		switch {
		case c.State == doctor.OK && len(c.Warnings) == 0:
			ok++
			if p.verbose {
				rows = append(rows, row{"ok", c.Name, c.Detail, c})
			}
		case c.State == doctor.OK:
			ok++
			if !p.verbose {
				// The warnings are enough.
				rows = append(rows, row{"warning", c.Name, c.Warnings[0], doctor.Check{Warnings: c.Warnings[1:], Fixes: c.Fixes,
					Alternatives: c.Alternatives, Inspect: c.Inspect, Advice: c.Advice, State: c.State}})
				continue
			}
			rows = append(rows, row{"ok", c.Name, c.Detail, c})
		case c.DependsOn != "" && !p.verbose:
			rows = addDependent(rows, c)
		default:
			rows = append(rows, row{string(c.State), c.Name, c.Detail, c})
		}
	}
	count := fmt.Sprintf("%d of %d checks ok", ok, len(p.section))
	if ok == len(p.section) {
		count = cli.Plural(ok, "check ok", "checks ok")
	}
	display.Fprintf(p.out, "%s: %s\n", cmp.Or(p.section[0].Subject, "installation"), count)
	width := 0
	for _, r := range rows {
		width = max(width, len(r.name))
	}
	for _, r := range rows {
		p.row(r, width)
	}
	p.section = nil
}

// addDependent adds a check to the row of those that depend on the same one.
func addDependent(rows []row, c doctor.Check) []row {
	i := slices.IndexFunc(rows, func(r row) bool { return r.state == "skipped" && r.name == c.DependsOn })
	if i < 0 {
		return append(rows, row{state: "skipped", name: c.DependsOn, text: "not checked because of it: " + c.Name})
	}
	rows[i].text += ", " + c.Name
	return rows
}

// row prints a line, wrapped under its own column, and what belongs to the check.
func (p *printer) row(r row, nameWidth int) {
	colors := map[string]string{"ok": cli.Green, "broken": cli.Red, "unknown": cli.Yellow, "warning": cli.Yellow}
	before, after := colors[r.state], cli.Plain
	if !p.color || before == "" {
		before, after = "", ""
	}
	indent := 2 + len("warning") + 2 + nameWidth + 2
	display.Fprintf(p.out, "  "+before+"%-7s"+after+"  %-*s  ", r.state, nameWidth, r.name)
	p.wrap(r.text, indent)
	for _, text := range r.check.Warnings {
		p.indented(indent, "warning: "+text)
	}
	if r.check.Advice != "" {
		p.indented(indent, "note: "+r.check.Advice)
	}
	for _, text := range r.check.Inspect {
		// On its own line, for copying.
		display.Fprintf(p.out, "%*ssee: %s\n", indent, "", text)
	}
	if r.check.State != doctor.Broken {
		p.commands(r.check, indent)
	}
}

func (p *printer) indented(indent int, text string) {
	display.Fprintf(p.out, "%*s", indent, "")
	p.wrap(text, indent)
}

// wrap prints a text whose first line begins in a column, and continues it there.
func (p *printer) wrap(text string, column int) {
	const least = 20 // where the terminal is narrow, longer lines are easier to read
	width := max(p.width-column, least)
	line := 0
	for i, word := range strings.Fields(text) {
		size := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case p.width > 0 && line+1+size > width:
			display.Fprintf(p.out, "\n%*s", column, "")
			line = 0
		default:
			display.Fprintf(p.out, " ")
			line++
		}
		display.Fprintf(p.out, "%s", word)
		line += size
	}
	display.Fprintf(p.out, "\n")
}

// commands prints the commands that fix a check, each on its own line, for copying.
func (p *printer) commands(c doctor.Check, indent int) {
	for _, text := range c.Fixes {
		display.Fprintf(p.out, "%*s%s\n", indent, "", text)
	}
	for _, choice := range c.Alternatives {
		p.indented(indent, "if "+choice.When+":")
		for _, text := range choice.Fixes {
			display.Fprintf(p.out, "%*s%s\n", indent+2, "", text)
		}
	}
}

// finish prints the last section and, for each broken check, the commands that fix it.
func (p *printer) finish() {
	p.flush()
	printed := map[string]bool{} // one command can fix several checks
	fixable := slices.DeleteFunc(p.broken, func(c doctor.Check) bool {
		key := fmt.Sprint(c.Fixes, c.Alternatives)
		seen := printed[key]
		printed[key] = true
		return seen || len(c.Fixes)+len(c.Alternatives) == 0
	})
	if len(fixable) == 0 {
		return
	}
	display.Fprintf(p.out, "\nFix first:\n")
	for _, c := range fixable {
		decide := ""
		switch {
		case len(c.Alternatives) > 1:
			decide = ": choose one"
		case len(c.Alternatives) == 1:
			decide = ": decide whether this is right"
		}
		p.indented(2, c.Name+" of "+cmp.Or(c.Subject, "the installation")+decide)
		p.commands(c, 4)
	}
}

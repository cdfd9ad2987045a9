package cli

import (
	"io"
	"os"

	"golang.org/x/term"
)

// IsTerminal is whether a person reads, or writes, there.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Animated is whether something may move there: a bar is drawn by going back.
func (p *Factory) Animated(w io.Writer) bool { return IsTerminal(w) && p.Getenv("TERM") != "dumb" }

// Colored is whether colours may be used there: see no-color.org.
func (p *Factory) Colored(w io.Writer) bool { return p.Animated(w) && p.Getenv("NO_COLOR") == "" }

// The colours of a terminal's own palette.
const (
	Red    = "\x1b[31m"
	Green  = "\x1b[32m"
	Yellow = "\x1b[33m"
	Plain  = "\x1b[0m"
)

package cli

import (
	"io"
	"os"

	"golang.org/x/term"
)

// IsTerminal reports whether a stream is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Animated reports whether a progress bar can be drawn on a stream.
func (p *Factory) Animated(w io.Writer) bool { return IsTerminal(w) && p.Getenv("TERM") != "dumb" }

// Colored reports whether colors can be used on a stream: see no-color.org.
func (p *Factory) Colored(w io.Writer) bool { return p.Animated(w) && p.Getenv("NO_COLOR") == "" }

// Colors of the terminal's palette.
const (
	Red    = "\x1b[31m"
	Green  = "\x1b[32m"
	Yellow = "\x1b[33m"
	Plain  = "\x1b[0m"
)

package cli

import (
	"io"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// IsTerminal reports whether a stream is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(interface{ Fd() uintptr }) // an *os.File, or more than one
	return ok && term.IsTerminal(int(f.Fd()))
}

// Animated reports whether a progress bar can be drawn on a stream.
func (p *Factory) Animated(w io.Writer) bool { return IsTerminal(w) && p.Getenv("TERM") != "dumb" }

// NewBar returns a progress bar on standard error, nil without a terminal. The total is unknown.
func (p *Factory) NewBar(description string) *progressbar.ProgressBar {
	if !p.Animated(p.ErrOut) {
		return nil
	}
	return progressbar.NewOptions(-1, progressbar.OptionSetSpinnerChangeInterval(0), progressbar.OptionSetWriter(p.ErrOut),
		progressbar.OptionClearOnFinish(), progressbar.OptionShowCount(), progressbar.OptionSetDescription(description))
}

// Colored reports whether colors can be used on a stream: see no-color.org.
func (p *Factory) Colored(w io.Writer) bool { return p.Animated(w) && p.Getenv("NO_COLOR") == "" }

// Colors of the terminal's palette.
const (
	Red    = "\x1b[31m"
	Green  = "\x1b[32m"
	Yellow = "\x1b[33m"
	Plain  = "\x1b[0m"
)

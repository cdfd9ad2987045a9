package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// isTerminal is whether a person reads, or writes, there.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// animated is whether something may move there: a bar is drawn by going back.
func (p *program) animated(w io.Writer) bool { return isTerminal(w) && p.getenv("TERM") != "dumb" }

// coloured is whether colours may be used there: see no-color.org.
func (p *program) coloured(w io.Writer) bool { return p.animated(w) && p.getenv("NO_COLOR") == "" }

// The colours of a terminal's own palette.
const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	plain  = "\x1b[0m"
)

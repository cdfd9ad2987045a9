package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/secretmanager-io/secretmanager/internal/display"
)

// Interrupted is the cause of the context of a verb that a signal ends.
type Interrupted struct{ Signal os.Signal }

func (Interrupted) Error() string { return "interrupted" }

// Is makes it a cancellation.
func (Interrupted) Is(target error) bool { return target == context.Canceled }

// interruptible is standard input that a signal interrupts: nothing else ends a blocked read.
type interruptible struct {
	*os.File
	ctx context.Context //nolint:containedctx // the context of the verb, which reads through [io.Reader]
}

// Read implements [io.Reader].
func (i interruptible) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	// The read may last longer than the caller's use of p.
	buffer, done := make([]byte, len(p)), make(chan result, 1)
	go func() {
		n, err := i.File.Read(buffer)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return copy(p, buffer[:r.n]), r.err
	case <-i.ctx.Done():
		return 0, context.Cause(i.ctx)
	}
}

// WriteTo implements [io.WriterTo] in place of the file, whose reads are not interruptible.
func (i interruptible) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{i}) }

// Begin prepares the factory for a verb that runs with the context. interrupt ends the context as a signal does.
func (p *Factory) Begin(ctx context.Context, interrupt context.CancelCauseFunc) {
	p.interrupt = interrupt
	if f, ok := p.In.(*os.File); ok {
		p.In = interruptible{f, ctx}
	}
}

// Ask asks for one line on the terminal, and returns it without spaces around it.
func (p *Factory) Ask(question string) (string, error) {
	display.Fprintf(p.ErrOut, "%s", question)
	var line []byte
	for one := make([]byte, 1); ; {
		n, err := p.In.Read(one) // byte by byte: what follows may be for an editor
		if n == 1 && one[0] != '\n' {
			line = append(line, one[0])
			continue
		}
		if n == 0 && err != nil && !errors.Is(err, io.EOF) || n == 0 && len(line) == 0 {
			fmt.Fprintln(p.ErrOut)
			return "", err
		}
		return strings.TrimSpace(string(line)), nil
	}
}

const (
	keyInterrupt = 0x03 // Ctrl-C
	keyEnd       = 0x04 // Ctrl-D
	keyClear     = 0x15 // Ctrl-U
	// maxHidden is more than a Secret can hold.
	maxHidden = 2 << 20
	// pasteTimeout is the time after Enter within which more input is part of the same paste.
	pasteTimeout = 100 * time.Millisecond
)

// errManyLines is the error of a value that was pasted and has several lines. The rest of the paste must not go to the
// shell.
var errManyLines = errors.New("the value has several lines, and only the first one would be read: put it in a file, " +
	"or pipe it to standard input")

// ReadHidden reads a value that a person types on the terminal, which does not show it: one line, or with lines all
// text until Ctrl-D. The terminal is in raw mode, because otherwise it drops what is beyond its limit for one line.
func (p *Factory) ReadHidden(prompt string, lines bool) ([]byte, error) {
	terminal, ok := p.In.(interface {
		io.Reader
		Fd() uintptr
	})
	if !ok {
		return nil, errors.New("standard input is not a terminal")
	}
	state, err := term.MakeRaw(int(terminal.Fd())) // before anybody sees the prompt and types
	if err != nil {
		return nil, fmt.Errorf("hiding the input: %w", err)
	}
	restore := func() { _ = term.Restore(int(terminal.Fd()), state) }
	undo := p.AtExit(restore)
	display.Fprintf(p.ErrOut, "%s: ", prompt)
	h := &hidden{lines: lines, input: make(chan []byte), done: make(chan struct{})}
	go h.read(terminal)
	text, err := h.text()
	close(h.done)
	restore()
	undo()
	fmt.Fprintln(p.ErrOut)
	if errors.Is(err, Interrupted{os.Interrupt}) && p.interrupt != nil {
		p.interrupt(err) // in raw mode the terminal sends no signal
	}
	return text, err
}

// hidden is the state of a hidden input.
type hidden struct {
	lines bool
	input chan []byte // is closed at the end of the input
	err   error       // of the input, after it is closed
	done  chan struct{}
}

// read sends what is typed, until the text is complete.
func (h *hidden) read(from io.Reader) {
	defer close(h.input)
	for {
		buffer := make([]byte, 4096)
		n, err := from.Read(buffer)
		select {
		case h.input <- buffer[:n]:
		case <-h.done:
			return
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				h.err = err
			}
			return
		}
	}
}

func (h *hidden) text() ([]byte, error) {
	var text []byte
	for chunk := range h.input {
		for i, c := range chunk {
			switch {
			case c == keyInterrupt:
				return nil, Interrupted{os.Interrupt}
			case c == keyEnd:
				return text, nil
			case c == keyClear:
				text = text[:bytes.LastIndexByte(text, '\n')+1]
			case c == 0x08 || c == 0x7f:
				_, size := utf8.DecodeLastRune(text)
				text = text[:len(text)-size]
			case (c == '\r' || c == '\n') && !h.lines:
				return text, h.checkEnd(chunk[i+1:])
			case c == '\r':
				text = append(text, '\n')
			case c < ' ' && c != '\t' && c != '\n': // as an arrow key sends
				return nil, errors.New("the value has a control character: put it in a file, or pipe it to standard input")
			default:
				text = append(text, c)
			}
			if len(text) > maxHidden {
				return nil, fmt.Errorf("the value is longer than %d bytes", maxHidden)
			}
		}
	}
	return text, h.err
}

// checkEnd reports whether more input came with the line, and drops it.
func (h *hidden) checkEnd(rest []byte) (err error) {
	for {
		if len(bytes.Trim(rest, "\r\n")) > 0 {
			err = errManyLines
		}
		timer := time.NewTimer(pasteTimeout)
		select {
		case more, open := <-h.input:
			timer.Stop()
			if !open {
				return err
			}
			rest = more
		case <-timer.C:
			return err
		}
	}
}

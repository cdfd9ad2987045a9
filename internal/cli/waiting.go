package cli

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/display"
)

const (
	// waitShownAfter is the time after which a terminal shows what the command waits for.
	waitShownAfter = 2 * time.Second
	// waitPoll is the interval of the checks.
	waitPoll = 250 * time.Millisecond
)

// wait is something that a command may be waiting for.
type wait interface {
	// since returns what the command waits for, and since when; a zero time if it does not wait.
	since(now time.Time) (what string, began time.Time)
}

// waitLine is the line of a terminal that shows what the command waits for. It is erased before anything else is
// written, and when the wait is over.
type waitLine struct {
	out io.Writer // nil without a terminal

	mu      sync.Mutex
	waits   map[wait]bool
	shown   bool
	started bool
	stopped chan struct{}
}

func newWaitLine(out io.Writer) *waitLine {
	return &waitLine{out: out, waits: map[wait]bool{}, stopped: make(chan struct{})}
}

// add watches a wait until remove is called.
func (l *waitLine) add(w wait) (remove func()) {
	if l == nil || l.out == nil {
		return func() {}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits[w] = true
	if !l.started {
		l.started = true
		go l.run()
	}
	return func() {
		l.mu.Lock()
		delete(l.waits, w)
		l.mu.Unlock()
		l.update()
	}
}

func (l *waitLine) run() {
	ticker := time.NewTicker(waitPoll)
	defer ticker.Stop()
	for {
		select {
		case <-l.stopped:
			return
		case <-ticker.C:
			l.update()
		}
	}
}

// update shows the longest wait, or erases the line.
func (l *waitLine) update() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	longest, longestWhat := time.Duration(0), ""
	for w := range l.waits {
		if what, began := w.since(now); !began.IsZero() && now.Sub(began) > longest {
			longest, longestWhat = now.Sub(began), what
		}
	}
	if longest < waitShownAfter {
		l.eraseLocked()
		return
	}
	l.shown = true
	display.Fprintf(l.out, eraseLine+"waiting for %s (%s)", longestWhat, longest.Truncate(time.Second))
}

const eraseLine = "\r\x1b[K"

// erase makes room for other output.
func (l *waitLine) erase() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.eraseLocked()
}

func (l *waitLine) eraseLocked() {
	if l.shown {
		l.shown = false
		display.Fprintf(l.out, eraseLine)
	}
}

// stop erases the line for good.
func (l *waitLine) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.eraseLocked()
	clear(l.waits)
	select {
	case <-l.stopped:
	default:
		close(l.stopped)
	}
}

// besideWaitLine writes to a terminal that has the line.
type besideWaitLine struct {
	*os.File
	line *waitLine
}

// Write implements [io.Writer].
func (b besideWaitLine) Write(text []byte) (int, error) {
	b.line.erase()
	return b.File.Write(text)
}

// ReadFrom implements [io.ReaderFrom] in place of the file, which would not erase the line.
func (b besideWaitLine) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{b}, r)
}

// named is a wait that began when it was added.
type named struct {
	what  string
	began time.Time
}

func (n *named) since(time.Time) (string, time.Time) { return n.what, n.began }

// Wait shows what the command waits for on a terminal, if that takes longer than two seconds, until done is called.
func (p *Factory) Wait(what string) (done func()) {
	return p.line.add(&named{what, time.Now()})
}

package programs

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// The intervals of reports: on a terminal a report replaces the line, in a log it adds
// one.
const (
	terminalInterval = time.Second
	logInterval      = 15 * time.Second
)

// progress reports on a stream that a long task is still running: on a terminal in one
// line that is updated, otherwise in a new line from time to time.
type progress struct {
	out      io.Writer
	terminal bool
	what     string
	start    time.Time
	quit     chan struct{}
	done     sync.WaitGroup
}

// newProgress starts to report what on the standard error stream.
func newProgress(what string) *progress {
	info, err := os.Stderr.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	return startProgress(os.Stderr, terminal, what)
}

func startProgress(out io.Writer, terminal bool, what string) *progress {
	p := &progress{out: out, terminal: terminal, what: what, start: time.Now(), quit: make(chan struct{})}
	interval := logInterval
	if terminal {
		interval = terminalInterval
	}
	p.show()
	p.done.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-p.quit:
				return
			case <-ticker.C:
				p.show()
			}
		}
	})
	return p
}

func (p *progress) elapsed() time.Duration {
	return time.Since(p.start).Round(time.Second)
}

func (p *progress) show() {
	elapsed := ""
	if t := p.elapsed(); t > 0 {
		elapsed = " " + t.String()
	}
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s …%s", p.what, elapsed)
		return
	}
	fmt.Fprintf(p.out, "%s …%s\n", p.what, elapsed)
}

// stop ends the report and returns how long the task took.
func (p *progress) stop() time.Duration {
	close(p.quit)
	p.done.Wait()
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	return p.elapsed()
}

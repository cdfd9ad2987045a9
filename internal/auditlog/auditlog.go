// Package auditlog writes audit records to a stream, and never blocks the caller.
package auditlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/secretmanager-io/secretmanager/internal/clock"
)

const (
	// MaxQueue bounds the bytes of queued records: about 3,000 mounts of a few entries, or one of the longest.
	MaxQueue = 2 << 20
	// reportInterval is the minimum time between two reports of lost records.
	reportInterval = time.Minute
	// flushTimeout bounds the wait for queued records when the process ends.
	flushTimeout = 2 * time.Second
)

// Log writes records to a stream. It queues each record; a goroutine writes them and ends when the queue is empty. So
// no mount waits for the stream. A stream that is too slow or fails loses records, which are counted, but never blocks
// a pod. Only the audit devices of Vault are complete.
//
// A nil *Log writes nothing. A Log is safe for concurrent use.
type Log struct {
	out           io.Writer
	log           *slog.Logger
	written, lost prometheus.Counter
	now           func() clock.Reading

	torn bool // the last line was written in part; only the goroutine uses this

	mu           sync.Mutex
	queue        [][]byte
	bytes        int           // of the queue and of the line that is being written
	done         chan struct{} // closed when the goroutine ends; nil while none runs
	unreported   int           // lost records since the last report
	reported     clock.Reading // time of the last report
	everReported bool
}

// New returns a log that writes to a stream; nil for a nil stream. The counters count written and lost records.
func New(out io.Writer, log *slog.Logger, written, lost prometheus.Counter) *Log {
	if out == nil {
		return nil
	}
	return &Log{out: out, log: log, written: written, lost: lost, now: clock.Now}
}

// Write queues a line, or drops it if there is no room.
func (a *Log) Write(line []byte) {
	if a == nil || len(line) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.bytes > 0 && a.bytes+len(line) > MaxQueue {
		a.drop(errors.New("the stream is too slow"))
		return
	}
	a.queue, a.bytes = append(a.queue, line), a.bytes+len(line)
	if a.done == nil {
		a.done = make(chan struct{})
		go a.run(a.done)
	}
}

// run writes the queue until it is empty.
func (a *Log) run(done chan struct{}) {
	defer close(done)
	for {
		a.mu.Lock()
		if len(a.queue) == 0 {
			a.queue, a.done = nil, nil
			a.mu.Unlock()
			return
		}
		line := a.queue[0]
		a.queue[0], a.queue = nil, a.queue[1:]
		a.mu.Unlock()

		text := line
		if a.torn {
			text = append([]byte{'\n'}, line...)
		}
		n, err := a.out.Write(text)
		a.torn = err != nil && (n > 0 || a.torn)

		a.mu.Lock()
		a.bytes -= len(line)
		if err != nil {
			a.drop(err)
		} else {
			a.written.Inc()
		}
		a.mu.Unlock()
	}
}

// drop counts a record that will not be written; a.mu is held.
func (a *Log) drop(cause error) {
	a.lost.Inc()
	a.unreported++
	if now := a.now(); !a.everReported || now.Since(a.reported) >= reportInterval {
		// In a goroutine, because the log may be slow too and the lock is held.
		go a.log.Error("audit records lost", "records", a.unreported, "error", cause)
		a.unreported, a.reported, a.everReported = 0, now, true
	}
}

// Flush waits until the queue is empty, for two seconds at most.
func (a *Log) Flush(ctx context.Context) {
	if a == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	a.mu.Lock()
	done := a.done
	a.mu.Unlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
		a.log.Error("the last audit records were not written", "waited", flushTimeout)
	}
}

// File returns a stream that appends to a file. After the file was renamed or removed, as logrotate does, the next
// write creates a new one. The stream is not safe for concurrent use.
func File(path string) (io.Writer, error) {
	f := &file{path: path}
	return f, f.open()
}

type file struct {
	path string
	file *os.File
	info os.FileInfo
}

func (f *file) open() error {
	opened, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the audit log: %w", err)
	}
	info, err := opened.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("opening the audit log: %w", err), opened.Close())
	}
	f.file, f.info = opened, info
	return nil
}

func (f *file) Write(line []byte) (int, error) {
	if info, err := os.Stat(f.path); f.file == nil || err != nil || !os.SameFile(info, f.info) {
		if f.file != nil {
			f.file.Close()
			f.file = nil
		}
		if err := f.open(); err != nil {
			return 0, err
		}
	}
	return f.file.Write(line)
}

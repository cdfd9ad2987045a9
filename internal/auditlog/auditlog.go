// Package auditlog writes audit records to a stream without ever waiting for it.
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
	// MaxQueue bounds the bytes of queued records: about 3,000 mounts of a few entries, or
	// one of the longest.
	MaxQueue = 2 << 20
	// reportInterval is the minimum time between two reports of lost records.
	reportInterval = time.Minute
	// flushTimeout bounds how long the end of the process waits for queued records.
	flushTimeout = 2 * time.Second
)

// auditLog writes records to a stream. No mount waits for that: records queue, and
// a goroutine that lasts as long as there are any writes them. A stream that does
// not take them fast enough, or at all, costs records and never a pod its files;
// each lost record is counted. Vault's audit devices are what no request gets past.
//
// A nil *Log writes nothing.
type Log struct {
	out           io.Writer
	log           *slog.Logger
	written, lost prometheus.Counter
	now           func() clock.Reading

	torn bool // the last line was written in part; the goroutine's

	mu           sync.Mutex
	queue        [][]byte
	bytes        int           // of the queue, and of what is being written
	done         chan struct{} // closed when the goroutine has ended; nil while none runs
	missing      int           // records lost since the log mentioned them
	reported     clock.Reading // when that was
	everReported bool
}

// New returns a log that writes to a stream; nil if there is none.
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
	a.missing++
	if now := a.now(); !a.everReported || now.Since(a.reported) >= reportInterval {
		// Not while the lock is held: the log may be as slow.
		go a.log.Error("audit records lost", "records", a.missing, "error", cause)
		a.missing, a.reported, a.everReported = 0, now, true
	}
}

// Flush waits until what is queued now is written, for a while.
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

// File returns a stream that appends to a file. When the file has been renamed or removed,
// as logrotate does, the next record makes a new one. It is for one goroutine at a time.
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

package provider

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
	// maxAuditQueue bounds the bytes of records that wait to be written: about 3,000
	// mounts of a few entries, or one of the longest.
	maxAuditQueue = 2 << 20
	// auditReport is how often the log mentions lost records at most.
	auditReport = time.Minute
	// auditFlush is how long the end of the process waits for records to be written.
	auditFlush = 2 * time.Second
)

// auditLog writes records to a stream. No mount waits for that: records queue, and
// a goroutine that lasts as long as there are any writes them. A stream that does
// not take them fast enough, or at all, costs records and never a pod its files;
// each lost record is counted. Vault's audit devices are what no request gets past.
//
// A nil *auditLog writes nothing.
type auditLog struct {
	out           io.Writer
	log           *slog.Logger
	written, lost prometheus.Counter
	now           func() clock.Reading

	torn bool // the last line was written in part; the goroutine's

	mu       sync.Mutex
	queue    [][]byte
	bytes    int           // of the queue, and of what is being written
	done     chan struct{} // closed when the goroutine has ended; nil while none runs
	missing  int           // records lost since the log mentioned them
	reported clock.Reading // when that was
	ever     bool          // whether it ever was
}

func newAuditLog(out io.Writer, log *slog.Logger, written, lost prometheus.Counter) *auditLog {
	if out == nil {
		return nil
	}
	return &auditLog{out: out, log: log, written: written, lost: lost, now: clock.Now}
}

// write queues a line, or drops it if there is no room.
func (a *auditLog) write(line []byte) {
	if a == nil || len(line) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.bytes > 0 && a.bytes+len(line) > maxAuditQueue {
		a.lose(errors.New("the stream takes them too slowly"))
		return
	}
	a.queue, a.bytes = append(a.queue, line), a.bytes+len(line)
	if a.done == nil {
		a.done = make(chan struct{})
		go a.run(a.done)
	}
}

// run writes the queue until it is empty.
func (a *auditLog) run(done chan struct{}) {
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
			a.lose(err)
		} else {
			a.written.Inc()
		}
		a.mu.Unlock()
	}
}

// lose counts a record that will not be written; a.mu is held.
func (a *auditLog) lose(why error) {
	a.lost.Inc()
	a.missing++
	if now := a.now(); !a.ever || now.Since(a.reported) >= auditReport {
		// Not while the lock is held: the log may be as slow.
		go a.log.Error("audit records lost", "records", a.missing, "error", why)
		a.missing, a.reported, a.ever = 0, now, true
	}
}

// flush waits until what is queued now is written, for a while.
func (a *auditLog) flush(ctx context.Context) {
	if a == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, auditFlush)
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
		a.log.Error("the last audit records were not written", "waited", auditFlush)
	}
}

// AuditFile returns a stream that appends to a file, for [Config.Audit]. When the
// file has been renamed or removed, as logrotate does it, the next record makes a
// new one. It is for one goroutine at a time.
func AuditFile(path string) (io.Writer, error) {
	f := &auditFile{path: path}
	return f, f.open()
}

type auditFile struct {
	path string
	file *os.File
	info os.FileInfo
}

func (f *auditFile) open() error {
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the audit log: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("opening the audit log: %w", err), file.Close())
	}
	f.file, f.info = file, info
	return nil
}

func (f *auditFile) Write(line []byte) (int, error) {
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

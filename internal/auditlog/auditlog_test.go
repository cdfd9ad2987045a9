package auditlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/secretmanager-io/secretmanager/internal/clock"
)

// logBuffer is a log that tests can read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func counter() prometheus.Counter { return prometheus.NewCounter(prometheus.CounterOpts{Name: "x"}) }

func value(c prometheus.Counter) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for !condition() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("the condition never became true")
		}
	}
}

// TestQueueIsBounded verifies that a blocked stream loses records and needs no more memory than the queue.
func TestQueueIsBounded(t *testing.T) {
	reader, writer := io.Pipe()
	lost := counter()
	a := New(writer, slog.New(slog.DiscardHandler), counter(), lost)
	line := bytes.Repeat([]byte{'x'}, 64<<10)
	for range 2 * MaxQueue / len(line) {
		a.Write(line)
	}
	a.mu.Lock()
	queued := a.bytes
	a.mu.Unlock()
	if queued > MaxQueue || value(lost) == 0 {
		t.Errorf("%d bytes wait, and %v records are lost", queued, value(lost))
	}
	reader.Close()
}

// failing is a stream whose writes fail as configured.
type failing struct {
	bytes.Buffer
	results []int // number of bytes that the next writes accept; -1: all, without an error
}

var errStream = errors.New("no space left on device")

func (f *failing) Write(p []byte) (int, error) {
	n := -1
	if len(f.results) > 0 {
		n, f.results = f.results[0], f.results[1:]
	}
	if n < 0 {
		return f.Buffer.Write(p)
	}
	f.Buffer.Write(p[:n])
	return n, errStream
}

// TestFailingStream verifies that records that cannot be written are counted and reported once a
// minute, without their content, and that the record after them begins a new line.
func TestFailingStream(t *testing.T) {
	out := &failing{results: []int{-1, 0, 3, 0, -1, -1}}
	var log logBuffer
	written, lost := counter(), counter()
	a := New(out, slog.New(slog.NewTextHandler(&log, nil)), written, lost)
	now := clock.Now()
	a.now = func() clock.Reading { return now }
	for i := range 6 {
		a.Write(fmt.Appendf(nil, "record-%d\n", i))
		a.Flush(t.Context())
	}
	if want := "record-0\nrec\nrecord-4\nrecord-5\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	if value(written) != 3 || value(lost) != 3 {
		t.Errorf("%v written, %v lost", value(written), value(lost))
	}
	waitFor(t, func() bool { return log.String() != "" })
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "no space left") ||
		strings.Contains(text, "record-") {
		t.Errorf("the log:\n%s", text)
	}
	out.results = []int{0}
	now = now.Add(reportInterval)
	a.Write([]byte("record-6\n"))
	a.Flush(t.Context())
	waitFor(t, func() bool { return strings.Count(log.String(), "\n") == 2 })
	if !strings.Contains(log.String(), "records=3") { // the two that were not reported, and this one
		t.Errorf("the log:\n%s", log.String())
	}
}

// TestFile verifies that records are appended, that other users cannot read them, and that a file
// that was rotated is created again.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := File(path)
	if err != nil {
		t.Fatal(err)
	}
	say := func(text string) {
		t.Helper()
		if _, err := io.WriteString(out, text); err != nil {
			t.Fatal(err)
		}
	}
	say("one\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	say("two\n")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	say("three\n")
	for file, want := range map[string]string{path + ".1": "before\none\n", path: "three\n"} {
		got, err := os.ReadFile(file)
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", file, got, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := File(filepath.Join(path, "x")); err == nil ||
		!regexp.MustCompile("opening the audit log: .*not a directory").MatchString(err.Error()) {
		t.Errorf("%v", err)
	}
}

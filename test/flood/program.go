package flood

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	idleConnections = 10000
	perSecond       = 5000
	probes          = 100
	// startTimeout is generous for a busy machine.
	startTimeout = time.Minute
	// maxGrowth bounds the growth of a program's memory during an attack: some hundred KiB for each possible connection,
	// and garbage that Go has not collected yet.
	maxGrowth = 48 << 20
)

// A Program is a process of a program under attack.
type Program struct {
	name, logFile string
	pid           int
	exited        chan struct{}
}

// Start builds the command in dir and runs it until the test ends. The test fails if the program ends earlier.
func Start(t *testing.T, dir string, env []string, args ...string) *Program {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8, and /proc")
	}
	source, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := &Program{name: filepath.Base(source), logFile: filepath.Join(t.TempDir(), "log"), exited: make(chan struct{})}
	path := filepath.Join(t.TempDir(), p.name)
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, source).CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", p.name, err, out)
	}
	log, err := os.Create(p.logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the process has its own copy
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.Stderr = env, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.pid = cmd.Process.Pid
	go func() {
		_ = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.check(t)
		_ = cmd.Process.Kill() // it may have ended
		<-p.exited
	})
	return p
}

// check fails the test if the program has ended.
func (p *Program) check(t *testing.T) {
	t.Helper()
	select {
	case <-p.exited:
		text, _ := os.ReadFile(p.logFile)
		t.Fatalf("%s ended; its log:\n%s", p.name, text[max(0, len(text)-4000):])
	default:
	}
}

// Address returns the address on which the program listens for a purpose.
func (p *Program) Address(t *testing.T, what string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	address, err := Listening(ctx, p.logFile, what)
	if err != nil {
		p.check(t)
		t.Fatal(err)
	}
	return address
}

// Listening returns the address for a purpose from a program's log, which is in JSON.
func Listening(ctx context.Context, logFile, what string) (string, error) {
	for {
		text, err := os.ReadFile(logFile)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(text)) {
			var entry struct{ Msg, For, Address string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "listening" && entry.For == what {
				return entry.Address, nil
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for %q in a log: %w\n%s", what, ctx.Err(), text)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// A Probe is a probe of the kubelet.
type Probe struct {
	URL     string
	Timeout time.Duration
}

// probe probes as the kubelet does: over a new connection.
func (p Probe) probe(ctx context.Context) error {
	client := &http.Client{Timeout: p.Timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("HTTP %d: %s", resp.StatusCode, text)
	}
	return err
}

// Succeeds waits until the probe succeeds.
func (p Probe) Succeeds(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	for p.probe(ctx) != nil {
		if ctx.Err() != nil {
			t.Fatalf("%s: %v", p.URL, p.probe(t.Context()))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// probeRepeatedly makes at least a hundred probes, and continues until the attack has lasted for some time. Every probe
// must succeed.
func (p Probe) probeRepeatedly(t *testing.T, enough func() bool) {
	t.Helper()
	var slowest time.Duration
	n := 0
	for ; n < probes || !enough(); n++ {
		began := time.Now()
		if err := p.probe(t.Context()); err != nil {
			t.Fatalf("probe %d: %v", n, err)
		}
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("%d probes, the slowest in %s", n, slowest)
}

// Survives attacks the target with idle connections, and with a flood of requests. Meanwhile each probe must succeed,
// and the program's memory must not grow.
func (p *Program) Survives(t *testing.T, target Target, probe Probe) {
	probe.Succeeds(t)
	before := p.peak(t)
	t.Run("idle", func(t *testing.T) {
		stop, err := Idle(t.Context(), target, idleConnections)
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		probe.probeRepeatedly(t, func() bool { return true })
		p.check(t)
	})
	t.Run("flood", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var made atomic.Int64
		ended := make(chan Result, 1)
		go func() {
			r, err := run(ctx, target, perSecond, &made)
			if err != nil {
				t.Error(err)
			}
			ended <- r
		}()
		probe.probeRepeatedly(t, func() bool { return made.Load() >= 2*perSecond || ctx.Err() != nil })
		cancel()
		r := <-ended
		t.Log(r)
		p.check(t)
		if r.OK+r.Other == 0 {
			t.Error("no request of the flood got a response")
		}
	})
	if growth := p.peak(t) - before; growth > maxGrowth {
		t.Errorf("the program's memory has grown by %d MiB", growth>>20)
	}
}

// peak returns the peak of the program's resident memory in bytes.
func (p *Program) peak(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "\nVmHWM:")
	kib, err := strconv.ParseInt(strings.Fields(after + " ?")[0], 10, 64)
	if err != nil {
		t.Fatalf("the peak of memory in /proc: %v", err)
	}
	return kib << 10
}

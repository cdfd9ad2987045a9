package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/secretmanager-io/secretmanager/test/flood"
)

const (
	// floodChild is the first argument of a child process that floods or is flooded.
	floodChild = "flood-child"
	// floodRate is in requests per second, each on a new connection.
	floodRate = 5000
	// minFloodRate is what a flood must reach for its figures to count.
	minFloodRate = floodRate * 9 / 10
	// floodSources is so high that the limit for one address does not apply.
	floodSources = 250
	// maxFlood bounds a flood, even if its parent process ends.
	maxFlood = time.Minute
	// mountEvery leaves time between mounts, because the flood loads the machine.
	mountEvery = 2 * time.Millisecond

	bareListener = "a bare listener"
)

// floodRun has the durations of repeated mounts during a flood of a port.
type floodRun struct {
	Port      string  `json:"port"`
	PerSecond float64 `json:"perSecond"` // connections of the flood
	OK        float64 `json:"ok"`        // share of them with a response of 200
	Mounts    int     `json:"mounts"`
	P50       float64 `json:"p50ms"`
	P99       float64 `json:"p99ms"`
	CPU       float64 `json:"cpu"`           // share of a processor that the provider used
	RSS       int64   `json:"residentBytes"` // of the provider, afterwards

	target flood.Target
	samples
	result flood.Result
}

// floods measures repeated mounts during a flood of each port.
func floods(ctx context.Context, e *environment, dir string, o options,
	say func(string, ...any)) (runs []floodRun, err error) {
	p, err := startProvider(ctx, dir, "flooded", e.vault.Address, e.api.Kubeconfig, "--pprof-addr=127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(p.explain(err), p.stop()) }()
	bare, err := startChild(exec.Command(os.Args[0], floodChild, "listen"))
	if err != nil {
		return nil, err
	}
	defer bare.stop()
	exporterLog := filepath.Join(dir, "exporter.log")
	exporter, err := startExporter(dir, exporterLog, e.api.Kubeconfig)
	if err != nil {
		return nil, err
	}
	defer exporter.stop()

	address, err := bare.waitLine()
	if err != nil {
		return nil, err
	}
	runs = []floodRun{{Port: bareListener, target: flood.Target{Address: address, Path: "/", Sources: floodSources}}}
	startCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, port := range []struct{ name, log, listener, path string }{
		{"the provider's health", p.logFile, "health probes", "/healthz"},
		{"its metrics", p.logFile, "metrics", "/metrics"},
		{"its profiles", p.logFile, "profiles", "/debug/pprof/heap"},
		{"the exporter's metrics", exporterLog, "metrics", "/metrics"},
	} {
		address, err := flood.Listening(startCtx, port.log, port.listener)
		if err != nil {
			return nil, err
		}
		runs = append(runs,
			floodRun{Port: port.name, target: flood.Target{Address: address, Path: port.path, Sources: floodSources}})
	}
	calls, err := (&cell{From: fromKubelet, Kind: kindRepeat}).calls(ctx, e, nil, p, e.volumes[1], 1)
	if err != nil {
		return nil, err
	}
	if err := calls[0](ctx); err != nil {
		return nil, err
	}
	for round := range o.rounds {
		say("round %d of %d: floods", round+1, o.rounds)
		for i := range runs {
			if err := runs[i].round(ctx, p, calls[0]); err != nil {
				return nil, fmt.Errorf("flood of %s: %w", runs[i].Port, err)
			}
		}
	}
	for i := range runs {
		runs[i].summarize()
		if f := runs[i]; f.PerSecond < minFloodRate {
			return nil, fmt.Errorf("the flood of %s made %.0f connections per second, want at least %d: "+
				"the machine is busy, or out of ports; wait a minute and try again", f.Port, f.PerSecond, minFloodRate)
		}
	}
	return runs, nil
}

// round floods the port from a child process, and measures.
func (f *floodRun) round(ctx context.Context, p *provider, repeat call) error {
	child, err := startChild(exec.Command(os.Args[0], floodChild, "flood", f.target.Address, f.target.Path))
	if err != nil {
		return err
	}
	defer child.stop()
	if _, err := child.waitLine(); err != nil { // until it floods
		return err
	}
	tick := time.NewTicker(mountEvery)
	defer tick.Stop()
	s, err := runWorkers(ctx, p, 1, func(int) call { <-tick.C; return repeat })
	if err != nil {
		return err
	}
	result, err := child.end()
	if err != nil {
		return err
	}
	var r flood.Result
	if err := json.Unmarshal(result, &r); err != nil {
		return fmt.Errorf("result of the flood: %w", err)
	}
	f.add(s)
	f.result.Made += r.Made
	f.result.OK += r.OK
	f.result.Took += r.Took
	f.RSS, err = p.rss()
	return err
}

func (f *floodRun) summarize() {
	slices.Sort(f.latencies)
	f.Mounts = len(f.latencies)
	f.P50, f.P99 = milliseconds(percentile(f.latencies, 50)), milliseconds(percentile(f.latencies, 99))
	f.CPU = ratio(f.cpu.Seconds(), f.wall.Seconds())
	f.PerSecond, f.OK = f.result.Rate(), ratio(float64(f.result.OK), float64(f.result.Made))
}

func floodBudgets(runs []floodRun) (all []budget) {
	var floor float64
	for _, f := range runs {
		if f.Port == bareListener {
			floor = f.P99
			continue
		}
		all = append(all, budget{Name: "repeated mount p99: flood of " + f.Port, Unit: "ms", Limit: 2, Measured: f.P99,
			Floor: floor}.evaluated())
	}
	return all
}

// A child is a process that ends when its standard input is closed, or with this process.
type child struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout io.Reader
}

func startChild(cmd *exec.Cmd) (*child, error) {
	cmd.SysProcAttr = childAttributes()
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &child{cmd, stdin, stdout}, cmd.Start()
}

func startExporter(dir, logFile, kubeconfig string) (*child, error) {
	log, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own copy
	cmd := exec.Command(filepath.Join(dir, rotatorName), "export", "--metrics-addr=127.0.0.1:0", "--log-format=json",
		"--kubeconfig="+kubeconfig)
	cmd.Env, cmd.Stderr = []string{}, log
	return startChild(cmd)
}

// waitLine reads one line of the child's output, byte by byte to leave the rest.
func (c *child) waitLine() (string, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(c.stdout, b); err != nil {
			return "", fmt.Errorf("%s ended: %w", c.cmd, err)
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
}

// end ends the child and returns the rest of its output.
func (c *child) end() ([]byte, error) {
	if err := c.stdin.Close(); err != nil {
		return nil, err
	}
	return io.ReadAll(c.stdout)
}

func (c *child) stop() {
	_ = c.cmd.Process.Kill() // it may have ended already
	_ = c.cmd.Wait()
}

// runFloodChild is the main function of the child. It ends when its standard input is
// closed, a flood after a minute at most.
func runFloodChild(args []string) int {
	ctx, cancel := context.WithTimeout(context.Background(), maxFlood)
	defer cancel()
	parentEnded := func(do func()) { go func() { _, _ = io.Copy(io.Discard, os.Stdin); do() }() }
	var err error
	switch {
	case len(args) == 1 && args[0] == "listen":
		parentEnded(func() { os.Exit(0) })
		err = listenBare()
	case len(args) == 3 && args[0] == "flood":
		parentEnded(cancel)
		var r flood.Result
		time.AfterFunc(200*time.Millisecond, func() { fmt.Println("flooding") })
		if r, err = flood.Run(ctx, flood.Target{Address: args[1], Path: args[2], Sources: floodSources},
			floodRate); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(r)
		}
	default:
		err = fmt.Errorf("unknown arguments %q", args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// listenBare responds to each connection with the least possible work.
func listenBare() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	buffer := make([]byte, 4096)
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(buffer); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
		}
		_ = c.Close()
	}
}

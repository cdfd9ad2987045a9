package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

const (
	providerName = "secretmanager-provider"
	rotatorName  = "secretmanager-rotator"
	cliName      = "secretmanager"
	bareListName = "barelist"
	// caRoots is the file that the Dockerfile adds to the programs.
	caRoots = "/etc/ssl/certs/ca-certificates.crt"
	// startTimeout and stopTimeout are sufficient for a busy machine.
	startTimeout = 30 * time.Second
	stopTimeout  = 20 * time.Second
)

// sizes has sizes in bytes.
type sizes struct {
	Provider int64 `json:"provider"`
	Rotator  int64 `json:"rotator"`
	// Image is the size of its files: both programs, and the CA roots if this machine
	// has them.
	Image int64 `json:"image"`
}

// build builds the programs as make build does.
func build(ctx context.Context, dir string, say func(string, ...any)) (s sizes, err error) {
	root, err := programs.Root()
	if err != nil {
		return s, err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/",
		"./cmd/"+providerName, "./cmd/"+rotatorName, "./cmd/"+cliName, "./test/bench/cmd/"+bareListName)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	// go build ends its children after an interrupt, but not after a kill.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTimeout
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return s, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for waiting := true; waiting; {
		select {
		case err := <-done:
			if err != nil {
				return s, fmt.Errorf("building the programs: %w\n%s", err, output.String())
			}
			waiting = false
		case <-tick.C:
			say("still building")
		}
	}
	for file, size := range map[string]*int64{filepath.Join(dir, providerName): &s.Provider,
		filepath.Join(dir, rotatorName): &s.Rotator} {
		info, err := os.Stat(file)
		if err != nil {
			return s, err
		}
		*size = info.Size()
	}
	s.Image = s.Provider + s.Rotator
	if info, err := os.Stat(caRoots); err == nil {
		s.Image += info.Size()
	}
	return s, nil
}

// provider is a running provider, and the driver that calls it.
type provider struct {
	*driver
	cmd     *exec.Cmd
	exited  chan struct{}
	logFile string
}

// startProvider starts the built provider as its DaemonSet does, and waits until it responds. Only the main goroutine
// may call it.
func startProvider(ctx context.Context, dir, name, vault, kubeconfig string, more ...string) (*provider, error) {
	socket := filepath.Join(dir, name+".sock")
	args := append([]string{"--endpoint=" + socket, "--version-key-file=" + filepath.Join(dir, name+".key"),
		"--health-addr=127.0.0.1:0", "--metrics-addr=127.0.0.1:0", "--log-format=json", "--vault-addr=" + vault,
		"--vault-auth-mount=jwt", "--kubeconfig=" + kubeconfig}, more...)
	p := &provider{
		cmd:    exec.Command(filepath.Join(dir, providerName), args...),
		exited: make(chan struct{}), logFile: filepath.Join(dir, name+".log"),
	}
	log, err := os.Create(p.logFile)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own copy
	p.cmd.Stderr = log
	p.cmd.Env = []string{} // none of the caller's Vault settings
	p.cmd.SysProcAttr = childAttributes()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // its log has the cause
		close(p.exited)
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	go func() {
		select {
		case <-p.exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	if p.driver, err = dial(ctx, socket); err != nil {
		return nil, errors.Join(p.explain(err), p.stop())
	}
	return p, nil
}

// explain adds the end of the provider's log to an error.
func (p *provider) explain(err error) error {
	if err == nil {
		return nil
	}
	text, readErr := os.ReadFile(p.logFile)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	return fmt.Errorf("%w\nend of the provider's log:\n%s", err, text[max(0, len(text)-4000):])
}

// stop ends the provider as a DaemonSet does. The provider finishes its calls.
func (p *provider) stop() error {
	var errs []error
	if p.driver != nil {
		errs = append(errs, p.conn.Close())
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		errs = append(errs, err)
	}
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-p.exited:
	case <-timeout.C:
		errs = append(errs, fmt.Errorf("the provider did not end within %s of SIGTERM", stopTimeout), p.cmd.Process.Kill())
		<-p.exited
	}
	return errors.Join(errs...)
}

// clockTick is the unit of times in /proc: USER_HZ of the kernel, which is 100 on every
// platform of Go.
const clockTick = 10 * time.Millisecond

// cpu returns the processor time that the provider has used.
func (p *provider) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("reading the processor time of the provider, which needs Linux: %w", err)
	}
	return parseStat(string(text))
}

// parseStat adds utime and stime, the 14th and 15th field of /proc/PID/stat. The
// second is the name in parentheses, which may have spaces.
func parseStat(text string) (time.Duration, error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/PID/stat has only %d fields after the name", len(fields))
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

// rss returns the resident memory of the provider in bytes.
func (p *provider) rss() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("reading the memory of the provider, which needs Linux: %w", err)
	}
	return parseKB(string(text), "VmRSS:")
}

// parseKB returns the bytes of a line such as "VmRSS:	   20480 kB".
func parseKB(text, name string) (int64, error) {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name && fields[2] == "kB" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("no line %s", name)
}

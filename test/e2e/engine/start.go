package engine

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/secretmanager-io/secretmanager/test/e2e/step"
)

// state is the directory of an engine that this package started. It is outside the repository, because the engine can
// outlive the clone.
const state = "/run/secretmanager-e2e"

var (
	pidFile = filepath.Join(state, "dockerd.pid")
	logFile = filepath.Join(state, "dockerd.log")
)

// startLimit bounds the time until an engine responds, and the time until it stops.
const startLimit = time.Minute

//go:embed runc-without-sys-resource
var runcWrapper []byte

// start starts the engine on this machine.
func (e *Engine) start(ctx context.Context) error {
	if os.Getenv("DOCKER_HOST") != "" {
		return fmt.Errorf("the Docker engine at DOCKER_HOST=%s does not respond: %w", os.Getenv("DOCKER_HOST"), e.ping(ctx))
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("no Docker engine responds, and starting one needs root: start it (systemctl start docker), "+
			"or let this user reach it (group docker): %w", e.ping(ctx))
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		if err := step.Install(ctx, "the Docker engine", "docker.io"); err != nil {
			return err
		}
	}
	return step.Do(ctx, "starting the Docker engine", func(ctx context.Context) error {
		if _, err := os.Stat("/run/systemd/system"); err == nil {
			if _, err := step.Run(step.Command(ctx, "systemctl", "start", "docker")); err != nil {
				return err
			}
			return e.await(ctx, nil)
		}
		return e.startHere(ctx)
	})
}

// startHere starts dockerd in a separate session, so that it continues to run when this process ends.
func (e *Engine) startHere(ctx context.Context) error {
	configuration, err := configure()
	if err != nil {
		return fmt.Errorf("writing the engine's configuration: %w", err)
	}
	log, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("dockerd", "--config-file", configuration, "--pidfile", pidFile)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := closeOnExec(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := e.await(ctx, ended); err != nil {
		text, _ := os.ReadFile(logFile)
		if len(text) > 4000 {
			text = text[len(text)-4000:]
		}
		return fmt.Errorf("%w; its log ends:\n%s", err, text)
	}
	return nil
}

// await waits until the engine responds or ended is closed.
func (e *Engine) await(ctx context.Context, ended <-chan error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("not within %s", startLimit))
	defer cancel()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := e.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("dockerd ended: %w", cmp.Or(err, errors.New("exit status 0")))
		case <-ctx.Done():
			return fmt.Errorf("waiting for the engine to respond: %w (last: %w)", context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}

// closeOnExec prevents the engine, which may outlive this process, from inheriting its file descriptors: otherwise
// `flock FILE make e2e` would keep its lock.
func closeOnExec() error {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("listing our open files: %w", err)
	}
	for _, file := range open {
		if fd, err := strconv.Atoi(file.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}

// configure writes the configuration of dockerd and returns its path.
//
// Without CAP_SYS_RESOURCE, runc cannot start a privileged container such as a node, because Docker requests all
// capabilities that it knows. The wrapper removes that capability from the request.
func configure() (string, error) {
	if err := os.MkdirAll(state, 0o755); err != nil {
		return "", err
	}
	configuration := map[string]any{}
	limited, err := lacksSysResource()
	if err != nil {
		return "", err
	}
	if limited {
		wrapper := filepath.Join(state, "runc-without-sys-resource")
		if err := os.WriteFile(wrapper, runcWrapper, 0o755); err != nil {
			return "", err
		}
		configuration["runtimes"] = map[string]any{"without-sys-resource": map[string]any{"path": wrapper}}
		configuration["default-runtime"] = "without-sys-resource"
	}
	text, err := json.Marshal(configuration)
	if err != nil {
		return "", err
	}
	path := filepath.Join(state, "daemon.json")
	return path, os.WriteFile(path, text, 0o644)
}

// lacksSysResource reports whether CAP_SYS_RESOURCE, capability 24, is missing
// from the bounding set.
func lacksSysResource() (bool, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(status)) {
		if value, found := strings.CutPrefix(line, "CapBnd:"); found {
			set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			return err == nil && set&(1<<24) == 0, err
		}
	}
	return false, errors.New("/proc/self/status has no line CapBnd")
}

// StopStarted stops the engine if this package started it, in this process or an earlier one, and no container runs in
// it.
func (e *Engine) StopStarted(ctx context.Context) error {
	text, err := os.ReadFile(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("reading %s: %w", pidFile, err)
	}
	if !isEngine(pid) {
		return os.Remove(pidFile)
	}
	containers, err := e.Run(ctx, "ps", "--quiet")
	if err != nil {
		return err
	}
	if containers != "" {
		step.Logf("the Docker engine stays, process %d: other containers run in it", pid)
		return nil
	}
	return step.Do(ctx, "stopping the Docker engine", func(ctx context.Context) error {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, startLimit)
		defer cancel()
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for isEngine(pid) {
			select {
			case <-ctx.Done():
				return fmt.Errorf("process %d is still there: %w", pid, ctx.Err())
			case <-ticker.C:
			}
		}
		return nil
	})
}

// isEngine reports whether the process is a dockerd: the pid in the file may belong to another program now.
func isEngine(pid int) bool {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || strings.TrimSpace(string(name)) != "dockerd" {
		return false
	}
	// A child process exists until its parent has waited for it.
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

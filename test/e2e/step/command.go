package step

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// grace is how long an interrupted command may take to clean up.
	grace = 10 * time.Second
	// tailLines is how much of a failed command's output goes into the error.
	tailLines = 25
)

// Command returns the named command, which is interrupted when ctx ends.
//
// It gets a process group of its own: Ctrl-C at the terminal reaches only us, so
// that we decide what is stopped in which order.
func Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = grace
	return cmd
}

// Run runs the command and returns what it printed on its standard output, less
// the space around it. The error says which command it was, and ends with the
// last lines of both its streams.
func Run(cmd *exec.Cmd) (string, error) {
	var stdout, both bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &both
	}
	err := cmd.Run()
	if err == nil {
		return strings.TrimSpace(stdout.String()), nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%s is not installed: %w", filepath.Base(cmd.Path), err)
	}
	both.Write(stdout.Bytes())
	err = fmt.Errorf("%s: %w", commandLine(cmd), err)
	if text := tail(both.String()); text != "" {
		err = fmt.Errorf("%w\n%s", err, text)
	}
	return strings.TrimSpace(stdout.String()), err
}

// Install installs Debian packages. It needs root and apt-get; without them the
// error names the packages to install and what for.
func Install(ctx context.Context, why string, packages ...string) error {
	list := strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("%s is missing: install what Debian calls %q (as root on Debian this is done for you)", why, list)
	}
	return Do(ctx, "installing "+list, func(ctx context.Context) error {
		for _, args := range [][]string{{"update", "-q"},
			append([]string{"install", "-q", "-y", "--no-install-recommends"}, packages...)} {
			cmd := Command(ctx, "apt-get", args...)
			// RUNLEVEL=1 keeps an installed service from being started where no
			// service manager runs: dockerd may need settings of ours.
			cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
			if _, err := Run(cmd); err != nil {
				return err
			}
		}
		return nil
	})
}

// commandLine is the command as an error names it: the program and its verb.
func commandLine(cmd *exec.Cmd) string {
	args := cmd.Args[1:]
	if len(args) > 3 {
		args = append(args[:3:3], "…")
	}
	return strings.Join(append([]string{filepath.Base(cmd.Path)}, args...), " ")
}

func tail(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > tailLines {
		lines = append([]string{"…"}, lines[len(lines)-tailLines:]...)
	}
	return strings.Join(lines, "\n")
}

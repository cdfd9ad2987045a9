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
	// grace is the time that an interrupted command has to clean up.
	grace = 10 * time.Second
	// tailLines bounds the lines of a failed command's output in the error.
	tailLines = 25
)

// Command returns the named command, which is interrupted when ctx ends.
//
// It has its own process group: Ctrl-C at the terminal interrupts only this process, which
// stops commands in the right order.
func Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = grace
	return cmd
}

// Run runs the command and returns its standard output without leading and trailing
// space. The error has the command and the last lines of both streams.
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

// Install installs Debian packages. It needs root and apt-get. Without them, the error
// names the packages and their purpose.
func Install(ctx context.Context, why string, packages ...string) error {
	list := strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("%s is missing: install what Debian calls %q (as root on Debian this is done for you)", why, list)
	}
	return Do(ctx, "installing "+list, func(ctx context.Context) error {
		for _, args := range [][]string{{"update", "-q"},
			append([]string{"install", "-q", "-y", "--no-install-recommends"}, packages...)} {
			cmd := Command(ctx, "apt-get", args...)
			// RUNLEVEL=1 prevents that an installed service starts if no service manager
			// runs: dockerd may need other settings.
			cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
			if _, err := Run(cmd); err != nil {
				return err
			}
		}
		return nil
	})
}

// commandLine returns the name of the command for errors: the program and its verb.
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

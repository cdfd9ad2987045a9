package programs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// tailLines bounds the lines of a failed compiler's output in the error.
const tailLines = 30

// arguments are those of `go` that write the program to the file out.
func (p program) arguments(out string) []string {
	args := []string{"build", "-mod=readonly", "-trimpath", "-buildvcs=false",
		"-ldflags", strings.TrimSpace("-s -w " + p.ldflags)}
	if p.tags != "" {
		args = append(args, "-tags", p.tags)
	}
	return append(args, "-o", out, p.pkg)
}

// build compiles the program and renames it to path.
func build(ctx context.Context, root, name string, p program, path string) error {
	temporary := path + ".new"
	defer os.Remove(temporary) // does not exist after a rename

	cmd := exec.CommandContext(ctx, "go", p.arguments(temporary)...)
	cmd.Dir = filepath.Join(root, p.dir)
	cmd.Env = environment(os.Environ(), cmd.Dir)
	// An interrupt lets the go command remove its temporary files. It starts compilers, so send it to the whole group. If
	// this process dies, the kernel sends it when the thread that forked ends, so that thread must stay alive.
	cmd.SysProcAttr = buildAttributes()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 5 * time.Second
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	report := newProgress("building " + name)
	output, err := cmd.CombinedOutput()
	took := report.stop()
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("building %s: %w", name, context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("building %s: %w: the Go toolchain must be installed to build what tests run against", name, err)
	case err != nil:
		return fmt.Errorf("building %s in %s: %w\n%s", name, p.dir, err, tail(string(output), tailLines))
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("keeping the built %s: %w", name, err)
	}
	fmt.Fprintf(os.Stderr, "built %s in %s\n", name, took)
	return nil
}

// environment returns the caller's environment without variables that would change the
// result: tests with -race, with coverage or for another platform must build the same
// programs. Proxies and caches are kept.
func environment(inherited []string, dir string) []string {
	drop := map[string]bool{
		"CGO_ENABLED": true, "GOARCH": true, "GOEXPERIMENT": true, "GOFIPS140": true,
		"GOFLAGS": true, "GOOS": true, "GOWORK": true, "PWD": true,
	}
	kept := make([]string, 0, len(inherited)+4)
	for _, variable := range inherited {
		name, _, _ := strings.Cut(variable, "=")
		if !drop[name] {
			kept = append(kept, variable)
		}
	}
	// GOFLAGS must not be empty, or what `go env -w GOFLAGS` wrote applies.
	return append(kept, "CGO_ENABLED=0", "GOFIPS140=off", "GOFLAGS=-trimpath", "GOWORK=off", "PWD="+dir)
}

// tail returns the last lines of text.
func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(all) > lines {
		all = append([]string{"…"}, all[len(all)-lines:]...)
	}
	return strings.Join(all, "\n")
}

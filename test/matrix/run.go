package matrix

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

// A Suite is what runs in each column.
type Suite struct {
	Name   string
	dir    string // relative to the root of the repository
	args   []string
	driver bool // whether the result depends on the version of the driver
}

// RunsIn reports whether the suite runs in a column. A suite that needs no driver runs once for each Kubernetes.
func (s Suite) RunsIn(c Column) bool { return s.driver || c.Driver.Name == programs.Driver.Default }

// Suites are the tests whose result depends on the version of Kubernetes: those with a real API server, and those with
// a whole cluster.
var Suites = []Suite{
	{Name: "API server", dir: ".", args: []string{"-timeout=20m", "./test/admission", "./test/chart", "./test/testenv",
		"./cmd/secretmanager-rotator"}},
	{Name: "cluster", dir: "test/e2e", args: []string{"-timeout=60m", "."}, driver: true},
}

// Run runs the suite in the column. It writes the output of the tests to log, and the names of failed tests to
// progress. Failed tests are part of the result, not an error.
func Run(ctx context.Context, c Column, s Suite, log, progress io.Writer) (Result, error) {
	root, err := programs.Root()
	if err != nil {
		return Result{}, err
	}
	r := Result{Column: c.String(), Suite: s.Name, Start: time.Now().Truncate(time.Second),
		Kubernetes: c.Kubernetes.Tag, Driver: c.Driver.Tag}
	if r.Commit, err = commit(ctx, root); err != nil {
		return Result{}, err
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-count=1", "-p=1"}, s.args...)...)
	cmd.Dir = filepath.Join(root, s.dir)
	cmd.Env = append(os.Environ(), programs.Kubernetes.Variable+"="+c.Kubernetes.Name,
		programs.Driver.Variable+"="+c.Driver.Name)
	cmd.Stderr = log
	// The tests remove their cluster when they are interrupted.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 3 * time.Minute
	output, err := cmd.StdoutPipe()
	if err != nil {
		return Result{}, err
	}
	if err := cmd.Start(); err != nil {
		return Result{}, err
	}
	readErr := r.read(output, log, progress)
	waitErr := cmd.Wait()
	r.Seconds = int(time.Since(r.Start).Round(time.Second).Seconds())
	switch {
	case ctx.Err() != nil:
		return Result{}, context.Cause(ctx)
	case readErr != nil:
		return Result{}, fmt.Errorf("reading the output of go test: %w", readErr)
	case waitErr != nil && len(r.Failed) == 0:
		return Result{}, fmt.Errorf("go test: %w, without a failed test", waitErr)
	case r.Passed == 0:
		r.Failed = append(r.Failed, "no test ran")
	}
	return r, nil
}

func commit(ctx context.Context, root string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", "rev-parse", "HEAD")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git rev-parse HEAD: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// read counts the tests in the output of go test -json.
func (r *Result) read(output io.Reader, log, progress io.Writer) error {
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var event struct{ Action, Package, Test, Output string }
		if json.Unmarshal(lines.Bytes(), &event) != nil {
			fmt.Fprintf(log, "%s\n", lines.Bytes())
			continue
		}
		io.WriteString(log, event.Output)
		if strings.Contains(event.Test, "/") {
			continue
		}
		test := event.Test != ""
		switch {
		case event.Action == "pass" && test:
			r.Passed++
		case event.Action == "skip" && test:
			r.Skipped++
		case event.Action == "fail" && (test || !r.failedIn(event.Package)):
			name := strings.TrimSuffix(event.Package+"."+event.Test, ".")
			r.Failed = append(r.Failed, name)
			fmt.Fprintf(progress, "failed: %s\n", name)
		}
	}
	return lines.Err()
}

// failedIn reports whether a test of the package failed. A package without one fails if it does not build, or if its
// TestMain fails.
func (r *Result) failedIn(pkg string) bool {
	return slices.ContainsFunc(r.Failed, func(name string) bool { return strings.HasPrefix(name, pkg+".") })
}

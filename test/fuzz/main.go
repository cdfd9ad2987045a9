// Command fuzz fuzzes every Fuzz target of the repository, one after another, each for the given time. `make fuzz` runs
// it. It discovers the targets, so a new one need not be listed anywhere. A finding does not stop the run; the exit
// code is 1 at the end. The go command keeps the failing input in testdata/fuzz/NAME of the package, where `go test`
// runs it from then on: commit it with the fix.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("fuzz", flag.ContinueOnError)
	fuzzTime := flags.String("time", "10m", "fuzz each target for this `duration`, or number of inputs such as 1000x")
	only := flags.String("run", "", "fuzz only the targets that match this `regexp`")
	root := flags.String("root", "", "`directory` of the repository (default: the one around the working directory)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected arguments: %q", flags.Args())
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("invalid -run: %w", err)
	}
	if *root == "" {
		if *root, err = programs.Root(); err != nil {
			return err
		}
	}
	targets, err := discover(ctx, *root)
	if err != nil {
		return err
	}
	var selected []target
	for _, t := range targets {
		if match.MatchString(t.name) {
			selected = append(selected, t)
		}
	}
	if len(selected) == 0 {
		return fmt.Errorf("none of the %d targets matches %q", len(targets), *only)
	}
	var failed []string
	for i, t := range selected {
		fmt.Fprintf(out, "=== %d of %d: %s, for %s\n", i+1, len(selected), t, *fuzzTime)
		start := time.Now()
		if err := t.fuzz(ctx, *fuzzTime, out); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("interrupted in %s", t)
			}
			failed = append(failed, t.String())
			fmt.Fprintf(out, "--- FAIL: %s after %s: %v\n", t, time.Since(start).Round(time.Second), err)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d targets failed: %s", len(failed), len(selected), strings.Join(failed, ", "))
	}
	fmt.Fprintf(out, "%d targets passed\n", len(selected))
	return nil
}

// fuzz runs the target's seeds, and then fuzzes it.
func (t target) fuzz(ctx context.Context, fuzzTime string, out io.Writer) error {
	seeds, err := t.seeds(ctx, out)
	if err != nil {
		return err
	}
	if seeds == 0 {
		return errors.New("the target has no seeds: call f.Add")
	}
	fmt.Fprintf(out, "%d seeds pass\n", seeds)
	// By default each new input is made shorter for up to a minute. With the long inputs of package manifest that took all
	// the time: only 29 inputs were tried in 25 seconds.
	return t.goTest(ctx, out, "-fuzz", "^"+t.name+"$", "-fuzztime", fuzzTime, "-fuzzminimizetime", "100x")
}

// seeds runs the target with its seeds alone, and returns how many there are.
func (t target) seeds(ctx context.Context, out io.Writer) (int, error) {
	var output strings.Builder
	if err := t.goTest(ctx, &output, "-v", "-count", "1"); err != nil {
		fmt.Fprint(out, output.String())
		return 0, fmt.Errorf("a seed fails: %w", err)
	}
	return strings.Count(output.String(), "=== RUN   "+t.name+"/"), nil
}

func (t target) goTest(ctx context.Context, out io.Writer, args ...string) error {
	args = append([]string{"test", "-run", "^" + t.name + "$"}, args...)
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.dir, out, out
	// The go command forwards the interrupt and removes its build output.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd.Run()
}

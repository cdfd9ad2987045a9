// Command matrix runs the tests against every version of Kubernetes and of the driver, one after another, and writes
// the results to test/matrix/results.json and docs/compatibility.md. `make e2e-matrix` runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/secretmanager-io/secretmanager/test/matrix"
	"github.com/secretmanager-io/secretmanager/test/programs"
)

func main() {
	column := flag.String("column", "", "run only the columns with this `text` in their name, such as 1.36")
	suite := flag.String("suite", "", "run only the suites with this `text` in their name")
	list := flag.Bool("list", false, "list the columns and run nothing")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, *column, *suite, *list); err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, column, suite string, list bool) error {
	columns, err := matrix.Columns()
	if err != nil {
		return err
	}
	root, err := programs.Root()
	if err != nil {
		return err
	}
	ran, failed := 0, 0
	for _, c := range columns {
		if !strings.Contains(c.String(), column) {
			continue
		}
		for _, s := range matrix.Suites {
			if !strings.Contains(s.Name, suite) || !s.RunsIn(c) {
				continue
			}
			ran++
			if list {
				fmt.Printf("%s: %s\n", c, s.Name)
				continue
			}
			ok, err := runSuite(ctx, root, c, s)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", c, s.Name, err)
			}
			if !ok {
				failed++
			}
		}
	}
	if !list {
		results, err := matrix.Load(root)
		if err != nil {
			return err
		}
		for _, problem := range results.Problems(columns) {
			fmt.Println("missing:", problem)
		}
	}
	switch {
	case ran == 0:
		return fmt.Errorf("no column has %q in its name, with a suite with %q", column, suite)
	case failed > 0:
		return fmt.Errorf("%d of %d suites failed", failed, ran)
	}
	return nil
}

// runSuite runs a suite, writes its result, and reports whether every test passed.
func runSuite(ctx context.Context, root string, c matrix.Column, s matrix.Suite) (bool, error) {
	name := strings.NewReplacer(" ", "-", ",", "").Replace(c.String() + " " + s.Name)
	path := filepath.Join(root, ".cache", "matrix", name+".log")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	log, err := os.Create(path)
	if err != nil {
		return false, err
	}
	defer log.Close()
	fmt.Printf("%s: %s … (log: %s)\n", c, s.Name, path)
	result, err := matrix.Run(ctx, c, s, log, os.Stdout)
	if err != nil {
		return false, err
	}
	fmt.Printf("%s: %s: %d passed, %d failed, %d s\n", c, s.Name, result.Passed, len(result.Failed), result.Seconds)
	results, err := matrix.Load(root)
	if err != nil {
		return false, err
	}
	results.Set(result)
	return len(result.Failed) == 0, results.Write(root)
}

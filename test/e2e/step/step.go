// Package step runs the long steps of setting up a cluster and their commands. It reports
// which step runs and how long it took, because a test run that prints nothing for minutes
// looks hung, and the output explains a failure in CI.
package step

import (
	"context"
	"fmt"
	"os"
	"time"
)

// reminder is the interval at which a long step reports that it is still running.
const reminder = 15 * time.Second

// Do runs f and reports on standard error when it begins, while it runs, and how long it
// took. The error is that of f, with the name of the step.
func Do(ctx context.Context, name string, f func(context.Context) error) error {
	start := time.Now()
	Logf("%s …", name)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		ticker := time.NewTicker(reminder)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				Logf("%s … still, after %.0f s", name, time.Since(start).Seconds())
			}
		}
	}()
	if err := f(ctx); err != nil {
		Logf("%s: failed after %.1f s", name, time.Since(start).Seconds())
		return fmt.Errorf("%s: %w", name, err)
	}
	Logf("%s: %.1f s", name, time.Since(start).Seconds())
	return nil
}

// Logf prints a line of progress.
func Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "e2e: "+format+"\n", args...)
}

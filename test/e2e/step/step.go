// Package step runs the long steps of setting up a cluster: it reports which one is
// going on and how long it took, and runs the commands they consist of.
//
// A test run that prints nothing for minutes looks hung, and one that fails in
// somebody else's CI is understood only from what it printed.
package step

import (
	"context"
	"fmt"
	"os"
	"time"
)

// reminder is the interval at which a long step reports that it is still running.
const reminder = 15 * time.Second

// Do runs f and reports on the standard error stream when it begins, while it
// lasts, and how long it took. The error is f's, with the step's name.
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

// Command demo shows the main features of SecretManager on one machine that has Go: with a
// real Vault, the real provider and the real command line. `secretmanager mount` replaces
// the kubelet and the driver.
//
// It listens on free ports of the loopback interface and writes only to a temporary
// directory, which it removes at the end, even after an interrupt.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		fmt.Fprintln(os.Stderr, "\ninterrupted; all started processes have ended")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	began := time.Now()
	d := newDemo(os.Stdout)
	defer func() { err = errors.Join(err, d.close()) }()
	for _, step := range []func(context.Context) error{
		d.build, d.startVault, d.setup, d.encrypt, d.mount, d.moveCiphertext, d.rotate, d.retire,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.printf("\nDone in %s. All processes have ended, and all files are removed.", time.Since(began).Round(time.Second))
	d.printf("Next: README.md, \"Use it\"; or `make e2e` for the same on a cluster.")
	return nil
}

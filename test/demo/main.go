// Command demo shows SecretManager's main job from start to end, on one machine
// and with Go alone: a real Vault, the real provider and the real command
// line, and in place of the kubelet and the driver `secretmanager mount`.
//
// It listens on free ports of the loopback interface, writes to a temporary
// directory alone, and leaves nothing behind, also when it is interrupted.
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
		fmt.Fprintln(os.Stderr, "\ninterrupted; everything that was started has ended")
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
	for _, act := range []func(context.Context) error{
		d.build, d.startVault, d.setup, d.encrypt, d.mount, d.moveCiphertext, d.rotate, d.retire,
	} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	d.printf("\nDone in %s. Nothing of it is left on this machine.", time.Since(began).Round(time.Second))
	d.printf("Next: README.md, \"Use it\"; or `make e2e` for the same on a cluster.")
	return nil
}

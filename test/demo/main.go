// Command demo is SecretManager's main job from start to end, on one machine
// and with nothing but Go: a real Vault, the real provider and the real command
// line, and in place of the kubelet and the driver `secretmanager mount`.
//
// It listens on free ports of the loopback interface, writes to a temporary
// folder alone, and leaves nothing behind, also when it is interrupted.
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
	s := newStage(os.Stdout)
	defer func() { err = errors.Join(err, s.close()) }()
	for _, act := range []func(context.Context) error{
		s.build, s.startVault, s.setup, s.encrypt, s.mount, s.move, s.rotate, s.retire,
	} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	s.say("\nDone in %s. Nothing of it is left on this machine.", time.Since(began).Round(time.Second))
	s.say("Next: README.md, \"Use it\"; or `make e2e` for the same on a cluster.")
	return nil
}

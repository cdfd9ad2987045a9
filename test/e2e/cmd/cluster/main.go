// Command cluster brings up a cluster to try things on and leaves it standing:
// kind with the Secrets Store CSI driver, a Vault, and the product as it is in
// this clone. A cluster that stands already is taken as it is, with the product
// brought up to date.
//
// It ends with how to use it, and how to remove it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	options := cluster.FromEnvironment()
	options.Keep, options.Reuse = true, true
	c, err := cluster.Start(ctx, options)
	if err != nil {
		return err
	}
	if err := c.InstallProduct(ctx); err != nil {
		return err
	}
	return c.Stop(ctx) // which keeps it, and says how to use it
}

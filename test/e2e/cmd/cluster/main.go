// Command cluster creates a cluster for manual tests and leaves it running: kind with the
// Secrets Store CSI driver, a Vault, and the product of this clone. If the cluster exists,
// it only updates the product.
//
// At its end it prints how to use and how to remove the cluster.
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
	options, err := cluster.FromEnvironment()
	if err != nil {
		return err
	}
	options.Keep, options.Reuse = true, true
	c, err := cluster.Start(ctx, options)
	if err != nil {
		return err
	}
	if err := c.InstallProduct(ctx); err != nil {
		return err
	}
	return c.Stop(ctx) // keeps the cluster, and prints how to use it
}

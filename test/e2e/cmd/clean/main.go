// Command clean removes what end-to-end tests leave with KEEP=1 or when they are killed:
// the cluster, the images that were built, and the Docker engine if the tests started it.
// It keeps .cache/.
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
	if err := cluster.Clean(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "clean:", err)
		os.Exit(1)
	}
}

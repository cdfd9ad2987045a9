// Package e2e has the end-to-end tests, which mount a SecretProviderClass in a pod of a
// real cluster. Package cluster creates the cluster before the first test.
//
// cluster.FromEnvironment describes the variables KEEP, REUSE and E2E_IMAGES.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
)

// shared is the cluster of all tests. Each test creates its own namespace.
var shared *cluster.Cluster

func TestMain(m *testing.M) {
	// The tests mostly wait, so their number in parallel does not depend on the number of
	// processors.
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	flag.Parse()
	if testing.Short() {
		fmt.Println("end-to-end tests are skipped with -short")
		return
	}
	os.Exit(run(m))
}

// run creates the cluster, runs the tests and deletes the cluster, also when it is
// interrupted.
func run(m *testing.M) int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.FromEnvironment())
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: bringing up the cluster:", err)
		return 1
	}
	shared = c

	code := make(chan int, 1)
	go func() { code <- m.Run() }()
	result := 1
	select {
	case result = <-code:
		if result != 0 {
			c.Dump(context.WithoutCancel(ctx), os.Stderr)
		}
	case <-ctx.Done():
		fmt.Fprintln(os.Stderr, "e2e: interrupted")
	}
	if err := c.Stop(context.WithoutCancel(ctx)); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: taking down the cluster:", err)
		return 1
	}
	return result
}

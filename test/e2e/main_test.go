// Package e2e holds the end-to-end tests: a pod, a SecretProviderClass, a mount, on
// a cluster of real parts, which package cluster brings up before the first test.
//
// See cluster.FromEnvironment for what KEEP, REUSE and E2E_IMAGES do.
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

// shared is the cluster of all tests. Each test makes a namespace of its own.
var shared *cluster.Cluster

func TestMain(m *testing.M) {
	// The tests mostly wait: for the kubelet, for a fault to be noticed. How many run
	// beside each other is not a matter of processors.
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

// run brings up the cluster, runs the tests and takes the cluster down, also when
// it is interrupted.
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

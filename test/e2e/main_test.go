// Package e2e has the end-to-end tests, which mount a SecretProviderClass in a pod of a
// real cluster. Package cluster creates the cluster before the first test.
//
// cluster.FromEnvironment describes the variables KEEP, REUSE, NODES and E2E_IMAGES.
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

// nodeTests matches the tests that need several nodes. The other tests need all pods on one node.
const nodeTests = "^TestNodes"

// selectTests selects the tests for the number of nodes, unless the command line does.
func selectTests(nodes int) error {
	switch {
	case nodes > 1 && flag.Lookup("test.run").Value.String() == "":
		return flag.Set("test.run", nodeTests)
	case nodes == 1 && flag.Lookup("test.skip").Value.String() == "":
		fmt.Println("the tests of several nodes do not run; NODES=3 make e2e runs them")
		return flag.Set("test.skip", nodeTests)
	}
	return nil
}

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
	options, err := cluster.FromEnvironment()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	if err := selectTests(options.Nodes); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	c, err := cluster.Start(ctx, options)
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

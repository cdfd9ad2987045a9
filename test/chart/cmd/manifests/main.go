// Command manifests writes the files that are generated from the Helm chart: manifests/, values.yaml of the chart, and
// docs/reference/chart.md. It prints the names of the files that changed. `make manifests` runs it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/secretmanager-io/secretmanager/test/chart"
	"github.com/secretmanager-io/secretmanager/test/programs"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	root, err := programs.Root()
	if err != nil {
		return err
	}
	home, err := os.MkdirTemp("", "helm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	helm, err := chart.NewHelm(ctx, home)
	if err != nil {
		return err
	}
	changed, err := chart.Write(ctx, helm, root)
	slices.Sort(changed)
	for _, name := range changed {
		fmt.Println(name)
	}
	return err
}

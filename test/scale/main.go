// Command scale prints the load of a large cluster on Vault and the API server,
// according to a model: with and without each of the provider's caches, in the steady
// state, in a rolling restart of all pods, when nodes reboot, and during a rotation.
// docs/scale.md has the tables.
//
// The model (model.go) consists of formulas. Its tests run the real provider for
// simulated nodes, each with its own Provider, in synthetic time. They simulate the
// mounts of the kubelet and the driver, and an in-process Vault and API server count the
// requests. The counts must match every figure of the model. A real Vault, a real API
// server and the real rotator verify for one node that the requests are the same.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, "scale has no arguments; its parameters are in model.go")
		os.Exit(2)
	}
	for i, table := range Tables(Large) {
		if i > 0 {
			fmt.Println()
		}
		fmt.Print(table)
	}
}

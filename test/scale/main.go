// Command scale prints what a large cluster asks of Vault and of the API server,
// according to a model: with and without each of the provider's caches, while nothing
// happens, in a rolling restart of all pods, when nodes reboot, and when a
// rotation rewraps everything. The tables are those of docs/scale.md.
//
// The model (model.go) is a few formulas. Its tests run the real provider for
// simulated nodes, each with a Provider of its own, in synthetic time: a volume
// is mounted and mounted again by what the kubelet and the driver do, and an
// in-process Vault and API server count the requests. Every figure of the model
// has to be what they count. A real Vault, a real API server and the real rotator
// show for one node that it is the same requests.
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

// Command secretmanager stores secrets in Kubernetes as Vault transit ciphertext, and manages them.
// Installed as kubectl-secretmanager it is a kubectl plugin.
//
// All verbs follow the same rules. Results go to standard output, everything else to standard error.
// Errors are lines that begin with "error:", followed by lines that begin with "hint:" if there is
// something to check. The exit code is 0 on success, 1 if something failed, 2 if the command line is
// invalid, 3 if a verb that checks for something to do has found it, and 128 and the number of the signal
// if one ended the command, such as 130 after Ctrl-C. The connection to Kubernetes
// is configured as for kubectl, that to Vault as for the vault command.
package main

import (
	"os"
	"path/filepath"
	"strings"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the ways to log in to clusters

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
)

func main() {
	os.Exit(root.Main(cli.Environment{
		IOStreams:   genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
		ProgramName: nameOf(os.Args[0]),
		Getenv:      os.Getenv,
	}, os.Args[1:]))
}

// nameOf returns the name with which the user runs this program.
func nameOf(arg0 string) string {
	if strings.HasPrefix(filepath.Base(arg0), "kubectl-") {
		return "kubectl secretmanager"
	}
	return "secretmanager"
}

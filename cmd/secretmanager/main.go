// Command secretmanager puts secrets into Kubernetes as Vault transit
// ciphertext and looks after them. Installed as kubectl-secretmanager it is a
// kubectl plugin.
//
// Every verb keeps to the same rules. What was asked for goes to standard
// output, everything else to standard error. Errors are lines that begin with
// "error:", followed by lines that begin with "hint:" where there is something
// to check. The exit code is 0 when all is done, 1 when something failed, 2 when
// the command line itself is wrong, and 3 when a verb that looks for something to
// do has found it. Kubernetes is reached as kubectl does
// it, Vault as the vault command does it.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the ways to log in to clusters

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := root.Run(ctx, cli.Environment{
		IOStreams:   genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
		ProgramName: nameOf(os.Args[0]),
		Getenv:      os.Getenv,
	}, os.Args[1:])
	stop()
	os.Exit(code)
}

// nameOf says how the user calls this program.
func nameOf(arg0 string) string {
	if strings.HasPrefix(filepath.Base(arg0), "kubectl-") {
		return "kubectl secretmanager"
	}
	return "secretmanager"
}

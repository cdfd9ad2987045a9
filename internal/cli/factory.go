// Package cli has what all verbs of the command line share: streams and environment, the
// connections to the cluster and to Vault, output formats, errors and exit codes. Each verb
// is a package below it, with NewCommand and Options.
package cli

import (
	"sync"
	"time"

	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/transit"
)

// The exit codes.
const (
	ExitDone   = 0
	ExitFailed = 1
	exitUsage  = 2
	ExitToDo   = 3 // nothing failed, and there is something to do
)

// Environment is the environment of the process.
type Environment struct {
	genericiooptions.IOStreams
	ProgramName string // in help texts
	Getenv      func(string) string
}

// Factory makes connections from the environment and the flags that all verbs share.
type Factory struct {
	Environment
	KubeFlags    *genericclioptions.ConfigFlags
	VaultAddress []string      // of --vault-addr
	Audit        transit.Audit // of the verb, for Vault's audit log
	// InsecureHTTP accepts an http address of Vault outside the loopback interface.
	InsecureHTTP bool
	Started      bool // a verb runs: later errors are not usage errors

	waitingMu sync.Mutex // serializes the output of waiting
}

// waiting tells the user what the command has been waiting for.
func (p *Factory) waiting(doing string, waited time.Duration) {
	p.waitingMu.Lock()
	defer p.waitingMu.Unlock()
	display.Fprintf(p.ErrOut, "waiting for a response: %s (%s)\n", doing, waited.Round(time.Second))
}

// NewFactory returns a factory without flags.
func NewFactory(env Environment) *Factory {
	return &Factory{Environment: env, KubeFlags: newKubeFlags()}
}

// Package cli has what all verbs of the command line share: streams and environment, the
// connections to the cluster and to Vault, output formats, errors and exit codes. Each verb
// is a package below it, with NewCommand and Options.
package cli

import (
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/secretmanager-io/secretmanager/transit"
)

// The exit codes.
const (
	ExitDone   = 0
	ExitFailed = 1
	exitUsage  = 2
	ExitToDo   = 3 // nothing failed, and there is something to do
)

// Environment is what a verb gets of the process it runs in.
type Environment struct {
	genericiooptions.IOStreams
	ProgramName string // of the program, in help texts
	Getenv      func(string) string
}

// Factory is the environment with the flags that all verbs share.
type Factory struct {
	Environment
	KubeFlags    *genericclioptions.ConfigFlags
	VaultAddress string        // of --vault-addr
	Audit        transit.Audit // of the verb, for Vault's audit log
	// InsecureHTTP accepts an http address of Vault outside the loopback interface.
	InsecureHTTP bool
	Started      bool // a verb has been reached: what fails from here on is not usage
}

// NewFactory returns a program without flags yet.
func NewFactory(env Environment) *Factory {
	return &Factory{Environment: env, KubeFlags: newKubeFlags()}
}

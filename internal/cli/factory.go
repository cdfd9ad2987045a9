// Package cli has what all verbs of the command line share: streams and environment, the
// connections to the cluster and to Vault, output formats, errors and exit codes. Each verb
// is a package below it, with NewCommand and Options.
package cli

import (
	"context"
	"io"
	"os"
	"sync"

	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/secretmanager-io/secretmanager/transit"
)

// The exit codes.
const (
	ExitDone   = 0
	ExitFailed = 1
	exitUsage  = 2
	ExitToDo   = 3   // nothing failed, and there is something to do
	exitSignal = 128 // and the number of the signal that ended the command
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

	// Own are the streams as the process has them, for programs that a verb starts. Those of Environment do more on
	// a terminal.
	Own genericiooptions.IOStreams

	interrupt   context.CancelCauseFunc
	line        *waitLine
	vault, kube *server
	atExit      atExit
}

// NewFactory returns a factory without flags.
func NewFactory(env Environment) *Factory {
	p := &Factory{Environment: env, KubeFlags: newKubeFlags(), Own: env.IOStreams, line: newWaitLine(nil)}
	if p.Animated(p.ErrOut) {
		p.line = newWaitLine(p.ErrOut)
		for _, stream := range []*io.Writer{&p.Out, &p.ErrOut} {
			if IsTerminal(*stream) {
				*stream = besideWaitLine{(*stream).(*os.File), p.line}
			}
		}
	}
	p.vault = &server{name: vaultName, timeout: requestTimeout, silence: silenceTimeout, line: p.line}
	p.kube = &server{name: "the Kubernetes API server", timeout: requestTimeout, silence: silenceTimeout, line: p.line}
	return p
}

// Close erases what the factory has drawn on the terminal, and undoes what must not outlast the process.
func (p *Factory) Close() {
	p.line.stop()
	p.atExit.run()
}

// AtExit has f called before the process ends, also if it ends while the verb still runs, unless undo is called.
// f must be safe for concurrent use with the verb.
func (p *Factory) AtExit(f func()) (undo func()) { return p.atExit.add(f) }

type atExit struct {
	mu    sync.Mutex
	next  int
	funcs map[int]func()
}

func (a *atExit) add(f func()) (undo func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.funcs == nil {
		a.funcs = map[int]func(){}
	}
	id := a.next
	a.next++
	a.funcs[id] = f
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.funcs, id)
	}
}

func (a *atExit) run() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.funcs {
		f()
	}
	a.funcs = nil
}

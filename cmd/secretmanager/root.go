package main

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/secretmanager-io/secretmanager/internal/version"
	"github.com/secretmanager-io/secretmanager/transit"
)

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitToDo   = 3 // nothing failed, and there is something to do
)

// environment is what a verb gets of the process it runs in.
type environment struct {
	genericiooptions.IOStreams
	name   string // of the program, in help texts
	getenv func(string) string
}

// program is the environment with the flags that all verbs share.
type program struct {
	environment
	kube      *genericclioptions.ConfigFlags
	vaultAddr string        // of --vault-addr
	audit     transit.Audit // of the verb, for Vault's audit log
	// insecureHTTP accepts an http address of Vault outside the loopback interface.
	insecureHTTP bool
	started      bool // a verb has been reached: what fails from here on is not usage
}

// run is the program: it returns the exit code.
func run(ctx context.Context, env environment, args []string) int {
	p := &program{environment: env, kube: kubeFlags()}
	root := p.command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	if !p.started {
		err = usage(err)
	}
	return report(p.ErrOut, p.name, err)
}

func (p *program) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "secretmanager",
		Short: "Keep Kubernetes Secrets as Vault transit ciphertext",
		Long: `Kubernetes Secrets that hold only Vault transit ciphertext: write them, see
what they are encrypted with, and renew key and ciphertext.

Kubernetes is reached as kubectl does it (KUBECONFIG, --context, -n), Vault as
the vault command does it (VAULT_ADDR, VAULT_TOKEN or the token helper or
~/.vault-token, VAULT_NAMESPACE, VAULT_CACERT and the like). The token goes to
the address of --vault-addr or VAULT_ADDR, and never to one that a manifest or
an object in the cluster names.`,
		Version:       version.Number(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: p.name},
	}
	root.SetVersionTemplate(version.Line("secretmanager") + "\n")
	root.SetIn(p.In)
	root.SetOut(p.Out)
	root.SetErr(p.ErrOut)
	p.kube.AddFlags(root.PersistentFlags())
	root.PersistentFlags().StringVar(&p.vaultAddr, "vault-addr", "", "address of Vault (default VAULT_ADDR)")
	root.PersistentFlags().BoolVar(&p.insecureHTTP, "vault-insecure-http", false, "accept an http address of Vault outside the loopback interface, for development: tokens and plaintext cross the network unencrypted ("+transit.EnvInsecureHTTP+")")
	for _, verb := range []func(*program) *cobra.Command{
		newVaultSetup, newEncrypt, newEdit, newStatus, newRotate, newRewrap, newLint, newVerify, newMount, newDoctor, newCompletion,
	} {
		c := verb(p)
		c.Example = strings.ReplaceAll(c.Example, "secretmanager ", p.name+" ")
		runE := c.RunE
		c.RunE = func(cmd *cobra.Command, args []string) error {
			p.started = true
			p.audit = transit.Audit{RunID: rand.Text(), Verb: cmd.Name()}
			cmd.SetContext(transit.WithAudit(cmd.Context(), p.audit))
			return runE(cmd, args)
		}
		root.AddCommand(c)
	}
	if err := p.complete(root); err != nil {
		panic(err) // of a flag that is not there: each run would show it
	}
	return root
}

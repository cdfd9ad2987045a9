package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/pflag"

	"github.com/secretmanager-io/secretmanager/internal/options"
	"github.com/secretmanager-io/secretmanager/internal/options/kubeoptions"
	"github.com/secretmanager-io/secretmanager/internal/options/rotation"
	"github.com/secretmanager-io/secretmanager/transit"
)

// retryVault bounds how long a run retries a request while Vault is unavailable. A restart of
// Vault must not end a run; an outage must.
const retryVault = time.Minute

// runOptions are the flags and the environment of a run.
type runOptions struct {
	rotation.Rotation
	vault     options.Vault
	role      string
	tokenFile string
	token     string
	kube      kubeoptions.Kubernetes
	log       options.Log
}

// parse reads the flags, and the environment where a flag is not given. The error names all
// problems.
func parse(args []string, getenv func(string) string, stderr io.Writer) (*runOptions, error) {
	o := &runOptions{token: getenv(api.EnvVaultToken)}
	f := newFlagSet("secretmanager-rotator", "rotates transit keys and rewraps every ciphertext Secret.\n"+
		"secretmanager-rotator export serves metrics of its runs to Prometheus.", stderr)
	f.StringSliceVarP(&o.Namespaces, "namespace", "n",
		nil, "`namespace` to list Secrets in; may be repeated (default: the whole cluster)")
	f.BoolVar(&o.Scheduled, "scheduled", false, "this is a run of the schedule: its results become the record that "+
		"metrics and alerts come from; without it, the run leaves only a note, which secretmanager status shows")
	f.BoolVar(&o.DryRun, "dry-run", false, "report what would be done, and change nothing")
	o.Rotation.AddFlags(f, getenv)
	o.vault.AddFlags(f, getenv, "")
	f.StringVar(&o.role, "vault-role", "", "`role` to log in as (default: no login, VAULT_TOKEN is used)")
	f.StringVar(&o.tokenFile, "vault-token-file", "",
		"`file` of the service account token to log in with, read at each login")
	o.kube.AddFlags(f)
	o.log.AddFlags(f)
	err := options.Parse(f, args, func() []error {
		return append(append(append(o.vault.Validate(), o.validateLogin()...), o.Rotation.Validate()...), o.log.Validate()...)
	})
	o.vault.RetryFor, o.vault.QPS = retryVault, o.VaultQPS
	return o, err
}

// newFlagSet returns an empty set, whose help begins with the description.
func newFlagSet(name, description string, stderr io.Writer) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SetOutput(stderr)
	f.SortFlags = false
	f.Usage = func() { fmt.Fprintf(stderr, "%s %s\n\nFlags:\n%s", name, description, f.FlagUsages()) }
	return f
}

func (o *runOptions) validateLogin() []error {
	switch {
	case o.role != "" && o.tokenFile == "":
		return []error{options.Invalid("vault-role", "needs --vault-token-file, the service account token to log in with")}
	case o.role == "" && o.tokenFile != "":
		return []error{options.Invalid("vault-token-file", "needs --vault-role, the role to log in as")}
	case o.role == "" && o.token == "":
		return []error{options.Invalid("vault-role",
			"is required with --vault-token-file, or VAULT_TOKEN in the environment")}
	}
	return nil
}

// tokens returns the source of Vault tokens: a login, or the token of the environment.
func (o *runOptions) tokens(client *transit.Client) transit.TokenSource {
	if o.role == "" {
		return transit.StaticToken(o.token)
	}
	return client.NewLoginSource(transit.Login{
		Namespace: o.vault.Namespace, Mount: o.vault.AuthMount, Role: o.role,
		JWT: func() (string, error) {
			text, err := os.ReadFile(o.tokenFile)
			if err != nil {
				return "",
					fmt.Errorf("reading the token to log in to Vault with: %w: check --vault-token-file and its projected volume", err)
			}
			return strings.TrimSpace(string(text)), nil
		},
	})
}

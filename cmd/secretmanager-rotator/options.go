package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/pflag"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

// options is what the flags and the environment say.
type options struct {
	rotator.Options

	vault          transit.Config
	vaultNamespace string
	authMount      string
	role           string
	tokenFile      string
	token          string

	kubeconfig string
	kubeQPS    float32

	logging
}

// errVersion is what --version gives: there is nothing more to do.
var errVersion = errors.New("the version is asked for")

// parse reads the flags; where one is not given the environment counts, as it
// does for Vault's own tools. It reports everything that is wrong at once.
func parse(args []string, getenv func(string) string, stderr io.Writer) (*options, error) {
	o := &options{vault: transit.FromEnvironment(getenv), token: getenv(api.EnvVaultToken)}
	o.vault.RetryFor = retryVault
	mode := ""
	f := pflag.NewFlagSet("secretmanager-rotator", pflag.ContinueOnError)
	f.SetOutput(stderr)
	f.SortFlags = false

	f.StringSliceVar(&o.Keys, "transit-key", nil, "name of a transit `key` to look after; may be repeated (default: every key found in the labels)")
	f.StringVar(&o.Mount, "transit-mount", "", "only Secrets whose transit engine is mounted at this `path` (default: each Secret's own)")
	f.StringSliceVarP(&o.Namespaces, "namespace", "n", nil, "`namespace` to look in; may be repeated (default: the whole cluster)")
	f.StringVarP(&o.Selector, "selector", "l", "", "label `selector` that Secrets must match besides")
	f.StringVar(&mode, "rotate", string(rotator.Auto), "whether keys get a new version: auto (when it is due), always, never")
	f.DurationVar(&o.MaxKeyAge, "max-key-age", rotator.DefaultMaxKeyAge, "age of the newest version at which a key is due")
	f.BoolVar(&o.DryRun, "dry-run", false, "find out and report, change nothing")
	f.BoolVar(&o.IncludeManaged, "include-managed", false, "write Secrets too that Argo CD or Flux keeps as they are in Git, and that are otherwise only reported")
	f.BoolVar(&o.Retire, "retire", false, "make Vault refuse old versions that no ciphertext needs any more")
	f.DurationVar(&o.RetireAfter, "retire-after", rotator.DefaultRetireAfter, "how long ciphertext must have been gone before its version is retired")
	f.BoolVar(&o.Trim, "trim", false, "delete for good the versions that have been retired for as long as --retire-after says")
	f.IntVar(&o.Concurrency, "concurrency", rotator.DefaultConcurrency, "Secrets written at the same time")
	f.StringVar(&o.StateNamespace, "state-namespace", rotator.DefaultStateNamespace, "`namespace` of the ConfigMap "+rotator.StateName)

	f.StringVar(&o.vault.Address, "vault-addr", o.vault.Address, "`URL` of Vault (VAULT_ADDR)")
	f.StringVar(&o.vaultNamespace, "vault-namespace", getenv(api.EnvVaultNamespace), "Vault `namespace` (VAULT_NAMESPACE)")
	f.StringVar(&o.vault.CACert, "vault-ca-cert", o.vault.CACert, "`file` of PEM certificates to trust (VAULT_CACERT)")
	f.StringVar(&o.vault.ClientCert, "vault-client-cert", o.vault.ClientCert, "`file` of the client certificate (VAULT_CLIENT_CERT)")
	f.StringVar(&o.vault.ClientKey, "vault-client-key", o.vault.ClientKey, "`file` of its key (VAULT_CLIENT_KEY)")
	f.StringVar(&o.vault.TLSServerName, "vault-tls-server-name", o.vault.TLSServerName, "`name` in Vault's certificate (VAULT_TLS_SERVER_NAME)")
	f.BoolVar(&o.vault.InsecureHTTP, "vault-insecure-http", o.vault.InsecureHTTP, "accept an http address of Vault outside the loopback interface, for development: tokens cross the network unencrypted ("+transit.EnvInsecureHTTP+")")
	f.StringVar(&o.authMount, "vault-auth-mount", "kubernetes", "`path` of the auth mount, of the kubernetes or the jwt kind")
	f.StringVar(&o.role, "vault-role", "", "`role` to log in as (default: no login, VAULT_TOKEN is used)")
	f.StringVar(&o.tokenFile, "vault-token-file", "", "`file` of the service-account token to log in with; read at each login")

	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig `file` (default: the cluster that this runs in)")
	f.Float32Var(&o.kubeQPS, "kube-qps", 50, "requests per second to the API server, at most")
	f.Float64Var(&o.vault.QPS, "vault-qps", 50, "requests per second to Vault, at most")
	o.flags(f)
	showVersion := f.Bool("version", false, "print the version and what it was built from, and end")
	f.Usage = func() {
		fmt.Fprintf(stderr, "secretmanager-rotator rotates transit keys and rewraps every ciphertext Secret;\nsecretmanager-rotator export tells Prometheus how its runs went.\n\nFlags:\n%s", f.FlagUsages())
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if *showVersion {
		return nil, errVersion
	}
	o.Rotate = rotator.Mode(mode)
	return o, errors.Join(o.check(f.Args()), o.logging.check(), o.Options.Validate())
}

func (o *options) check(args []string) error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(args) > 0 {
		problem("arguments that are not flags: %q", args)
	}
	if o.vault.Address == "" {
		problem("no address of Vault: give --vault-addr or set VAULT_ADDR")
	}
	if err := transit.CheckTransport(o.vault.Address, o.vault.InsecureHTTP); err != nil {
		problem("--vault-addr %w", err)
	}
	switch {
	case o.role != "" && o.tokenFile == "":
		problem("--vault-role %s needs --vault-token-file: the service-account token to log in with", o.role)
	case o.role == "" && o.tokenFile != "":
		problem("--vault-token-file needs --vault-role: the role to log in as")
	case o.role == "" && o.token == "":
		problem("no identity for Vault: give --vault-role and --vault-token-file, or set VAULT_TOKEN")
	}
	if o.MaxKeyAge == 0 {
		problem("--max-key-age 0: to rotate in any case give --rotate=always")
	}
	if o.kubeQPS <= 0 {
		problem("--kube-qps %v is not above 0", o.kubeQPS)
	}
	if o.vault.QPS <= 0 {
		problem("--vault-qps %v is not above 0", o.vault.QPS)
	}
	if o.Concurrency == 0 {
		problem("--concurrency 0 would do nothing")
	}
	return errors.Join(errs...)
}

// Package lint is the verb lint: it prints what internal/lint finds.
package lint

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/lint"
	"github.com/secretmanager-io/secretmanager/internal/manifestfile"
	"github.com/secretmanager-io/secretmanager/internal/options"
)

// Options are the options of lint.
type Options struct {
	*cli.Factory
	recursive  bool
	strict     bool
	minVersion int
	vault      bool
	settle     options.Settle
	output     string
	args       []string
}

// NewCommand returns the command lint.
func NewCommand(p *cli.Factory) *cobra.Command {
	o := &Options{Factory: p}
	c := &cobra.Command{
		Use:   "lint FILE...",
		Short: "Check manifests, without a cluster",
		Long: `Check the ciphertext Secrets in manifests, and their SecretProviderClasses of
provider secretmanager: whether all values are ciphertext, whether the metadata is
valid, and whether they fit together. Whether the ciphertext decrypts only Vault
knows: see secretmanager verify.

Files are YAML or JSON, of one document or several. A Secret is checked if its type
is secretmanager.io/ciphertext, or if it has a label or annotation of this prefix.
Ciphertext anywhere else is an error: in other objects, annotations and comments.
With -R directories are read, as secretmanager rewrap does.

Ciphertext of scope strict or namespace cannot be bound to a manifest without a
namespace: if all manifests go to one namespace, set -n. No kubeconfig is read.
Values are never shown.

With --vault the versions of the entries are compared with the target version of their
key, the newest version that is older than --settle. This needs read on the keys.
Otherwise lint sends no request to Vault.

The exit code is 0 without errors, 3 if there are any, with --strict also for
warnings, and 1 if a file or a key could not be read. The rules are:

` + lintRules(),
		Example: `  secretmanager lint matrix-secrets.yaml
  secretmanager lint -R deploy/ -n demo --min-version 3
  secretmanager lint -R deploy/ --strict -o github
  secretmanager lint -R deploy/ --vault
  kubectl kustomize deploy/ | secretmanager lint -`,
		Args: cobra.MinimumNArgs(1),
		RunE: cli.RunE(o),
	}
	f := c.Flags()
	f.BoolVarP(&o.recursive, "recursive", "R", false, "read directories, and those below them")
	f.BoolVar(&o.strict, "strict", false, "exit code 3 also for warnings")
	f.IntVar(&o.minVersion, "min-version", 0, "minimum key `version` of every entry")
	f.BoolVar(&o.vault, "vault", false, "compare key versions with those in Vault")
	o.settle.AddFlags(f, p.Getenv)
	f.StringVarP(&o.output, "output", "o", "", "output `format`: json, or github for annotations in GitHub Actions")
	return c
}

func lintRules() string {
	var b strings.Builder
	for _, r := range lint.Rules() {
		fmt.Fprintf(&b, "  %-14s %-8s %s\n", r.Name, r.Severity, r.About)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Complete implements cli.Options.
func (o *Options) Complete(_ *cobra.Command, args []string) error {
	o.args = args
	return nil
}

// Validate implements cli.Options.
func (o *Options) Validate() error {
	var p cli.Problems
	p.Add(cli.ValidateOutput(o.output, "json", "github"))
	p.If(o.minVersion < 0, "invalid --min-version: must not be negative")
	p.Add(o.settle.Validate()...)
	return p.Err()
}

// Run implements cli.Options.
func (o *Options) Run(ctx context.Context) error {
	// Files that can be read are checked even if others cannot.
	opened, unread := manifestfile.Open(o.In, o.ErrOut, o.args, o.recursive)
	if errors.Is(unread, manifestfile.ErrMixed) {
		return cli.Usage(unread)
	}
	var files []*lint.File
	for _, f := range opened {
		files = append(files, lint.Read(f.Name, f.Manifest))
	}
	keys, err := o.keys(ctx, files)
	unread = errors.Join(unread, err)
	result := result{Files: len(files), Findings: lint.Check(files,
		lint.Options{Namespace: *o.KubeFlags.Namespace, MinVersion: o.minVersion, Keys: keys})}
	result.count(files)
	if err := result.print(o.Out, o.output); err != nil {
		return err
	}
	found := fmt.Errorf("%s and %s", cli.Plural(result.Errors, "error", "errors"),
		cli.Plural(result.Warnings, "warning", "warnings"))
	switch {
	case unread != nil && len(result.Findings) > 0:
		return errors.Join(unread, found)
	case unread != nil:
		return unread
	case result.Errors > 0 || o.strict && result.Warnings > 0:
		return cli.ToDo(found)
	}
	display.Fprintf(o.ErrOut, "checked %s and %s in %s: ",
		cli.Plural(result.Secrets, "ciphertext Secret", "ciphertext Secrets"),
		cli.Plural(result.Classes, "class", "classes"), cli.Plural(result.Files, "file", "files"))
	if result.Warnings > 0 {
		display.Fprintf(o.ErrOut, "%s\n", cli.Plural(result.Warnings, "warning", "warnings"))
		return nil
	}
	fmt.Fprintln(o.ErrOut, "no problems")
	return nil
}

// keys reads the keys of the files from Vault. Entries of a key that cannot be read are not compared.
func (o *Options) keys(ctx context.Context, files []*lint.File) (map[ciphertext.Key]lint.KeyVersions, error) {
	used := lint.Keys(files)
	if !o.vault || len(used) == 0 {
		return nil, nil
	}
	session, err := o.VaultSession()
	if err != nil {
		return nil, err
	}
	keys := map[ciphertext.Key]lint.KeyVersions{}
	var errs []error
	for _, key := range used {
		info, err := session.Key(ctx, key)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		keys[key] = lint.KeyVersions{MinDecryption: info.MinDecryptionVersion, Latest: info.Latest,
			Target: session.Target(ctx, info, o.settle.Duration).Version}
	}
	return keys, errors.Join(errs...)
}

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
	forbid     bool
	exclude    []string
	patterns   []*manifestfile.Pattern
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
		Long: `Check the ciphertext Secrets in manifests, their SecretProviderClasses of provider
secretmanager, and the volumes of pods that mount these: whether all values are
ciphertext, whether the metadata is valid, and whether they fit together, from the
volume to the entry. Whether the ciphertext decrypts only Vault knows: see
secretmanager verify.

Files are YAML or JSON, of one document or several. A Secret is checked if its type
is secretmanager.io/ciphertext, or if it has a label or annotation of this prefix.
Ciphertext anywhere else is an error: in other objects, annotations and comments.
With -R directories are read, as secretmanager rewrap does.

Templates, for example of a Helm chart, are skipped and counted, but not a file from
which kubectl apply would create a Secret as it is. Check what templates are rendered to:
helm template CHART | secretmanager lint -. With --exclude, files and directories are
left out. Its patterns are as in a .gitignore file in the working directory:
"values.yaml" and "charts/" match at any level, "deploy/charts" and "/deploy" only from
there; * and ? match no slash, ** matches any directories.

Pods are those of Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs,
CronJobs, ReplicationControllers and PodTemplates. The files may be a part of what a
cluster has: what is not among them is at most a warning. What kustomize patches is
compared only in its output.

Ciphertext of scope strict or namespace cannot be bound to a manifest without a
namespace: if all manifests go to one namespace, set -n. No kubeconfig is read.
Values are never shown.

With --forbid-plaintext every entry of every Secret must be ciphertext, as the admission
policy forbid-plaintext requires, except for the types that it excepts:
kubernetes.io/service-account-token, dockercfg, dockerconfigjson and tls,
bootstrap.kubernetes.io/token and helm.sh/release.v1.

With --vault the versions of the entries are compared with the target version of their
key, the newest version that is older than --settle. This needs read on the keys.
Otherwise lint sends no request to Vault.

The exit code is 0 without errors, 3 if there are any, with --strict also for
warnings, and 1 if a file or a key could not be read, or if nothing was checked. The
rules are:

` + lintRules(),
		Example: `  secretmanager lint matrix-secrets.yaml
  secretmanager lint -R deploy/ -n demo --min-version 3
  secretmanager lint -R deploy/ --strict -o github
  secretmanager lint -R deploy/ --vault
  secretmanager lint -R . --exclude 'charts/*/templates/' --forbid-plaintext
  kubectl kustomize deploy/ | secretmanager lint -`,
		Args: cobra.MinimumNArgs(1),
		RunE: cli.RunE(o),
	}
	f := c.Flags()
	f.BoolVarP(&o.recursive, "recursive", "R", false, "read directories, and those below them")
	f.StringSliceVar(&o.exclude, "exclude", nil, "leave out paths that match the `pattern`, as in .gitignore")
	f.BoolVar(&o.strict, "strict", false, "exit code 3 also for warnings")
	f.IntVar(&o.minVersion, "min-version", 0, "minimum key `version` of every entry")
	f.BoolVar(&o.forbid, "forbid-plaintext", false, "no Secret may have plaintext, except some types")
	f.BoolVar(&o.vault, "vault", false, "compare key versions with those in Vault")
	o.settle.AddFlags(f, p.Getenv)
	f.StringVarP(&o.output, "output", "o", "", "output `format`: json, or github for annotations in GitHub Actions")
	cli.FixedValues(c, "output", "json", "github")
	return c
}

func lintRules() string {
	var b strings.Builder
	for _, r := range lint.Rules() {
		fmt.Fprintf(&b, "  %-19s %-8s %s\n", r.Name, r.Severity, r.About)
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
	for _, text := range o.exclude {
		pattern, err := manifestfile.ParsePattern(text)
		if err != nil {
			err = fmt.Errorf("--exclude: %w", err)
		}
		p.Add(err)
		o.patterns = append(o.patterns, pattern)
	}
	return p.Err()
}

// Run implements cli.Options.
func (o *Options) Run(ctx context.Context) error {
	// Files that can be read are checked even if others cannot.
	opened, unread := o.open(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted: not all files were read")
	}
	if errors.Is(unread, manifestfile.ErrMixed) {
		return cli.Usage(unread)
	}
	var files []*lint.File
	for _, f := range opened.Files {
		files = append(files, lint.Read(f.Name, f.Manifest))
	}
	keys, err := o.keys(ctx, files)
	unread = errors.Join(unread, err)
	findings := lint.Check(files, lint.Options{Namespace: *o.KubeFlags.Namespace, MinVersion: o.minVersion,
		ForbidPlaintext: o.forbid, Keys: keys})
	result := result{Files: len(files), Skipped: len(opened.Templates), Excluded: opened.Excluded,
		Counts: lint.Count(files), Findings: findings}
	result.count()
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
	case result.Files == 0:
		return errors.New("nothing was checked: all files were skipped or excluded")
	case o.recursive && !o.forbid && result.Secrets+result.Classes == 0:
		return display.Errorf("nothing was checked: no ciphertext Secret and no class of provider secretmanager is in the "+
			"%s of %s", cli.Plural(result.Files, "file", "files"), strings.Join(o.args, ", "))
	}
	o.report(&result)
	return nil
}

// open reads the files, with a progress bar on a terminal.
func (o *Options) open(ctx context.Context) (manifestfile.Opened, error) {
	bar := o.NewBar("files")
	reading := manifestfile.Options{Recursive: o.recursive, Note: o.ErrOut, Exclude: o.patterns, SkipTemplates: true,
		Progress: func() error {
			if bar != nil {
				bar.Add(1)
			}
			return ctx.Err()
		}}
	opened, err := reading.Open(o.In, o.args)
	if bar != nil {
		bar.Finish()
	}
	if n := len(opened.Templates); n > 0 {
		names := strings.Join(opened.Templates[:min(n, maxNames)], ", ")
		if n > maxNames {
			names += fmt.Sprintf(" and %d more", n-maxNames)
		}
		display.Fprintf(o.ErrOut, "note: skipped %s, which can be checked when rendered: %s\n"+
			"hint: helm template CHART | secretmanager lint -; to leave templates out, use --exclude\n",
			cli.Plural(n, "template", "templates"), names)
	}
	if unmatched := manifestfile.Unmatched(o.patterns); o.recursive && err == nil && len(unmatched) > 0 {
		display.Fprintf(o.ErrOut, "note: --exclude matches nothing: %s\n", strings.Join(unmatched, ", "))
	}
	return opened, err
}

// maxNames bounds how many skipped files are listed.
const maxNames = 10

// report prints what was checked.
func (o *Options) report(r *result) {
	skipped := ""
	if r.Skipped > 0 {
		skipped = ", skipped " + cli.Plural(r.Skipped, "template", "templates")
	}
	display.Fprintf(o.ErrOut, "checked %s, %s and %s in %s%s: ",
		cli.Plural(r.Secrets, "ciphertext Secret", "ciphertext Secrets"), cli.Plural(r.Classes, "class", "classes"),
		cli.Plural(r.Volumes, "volume", "volumes"), cli.Plural(r.Files, "file", "files"), skipped)
	if r.Warnings > 0 {
		display.Fprintf(o.ErrOut, "%s\n", cli.Plural(r.Warnings, "warning", "warnings"))
		return
	}
	fmt.Fprintln(o.ErrOut, "no problems")
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

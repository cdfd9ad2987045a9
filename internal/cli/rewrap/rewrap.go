// Package rewrap is the verb rewrap: it rewraps the ciphertext in manifests.
package rewrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/batch"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/filesecret"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/lint"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
	"github.com/secretmanager-io/secretmanager/internal/manifestfile"
	"github.com/secretmanager-io/secretmanager/internal/options"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Options are the options of rewrap.
type Options struct {
	*cli.Factory
	files     []string
	recursive bool
	check     bool
	dryRun    string
	settle    options.Settle
}

// NewCommand returns the command rewrap.
func NewCommand(p *cli.Factory) *cobra.Command {
	o := &Options{Factory: p}
	c := &cobra.Command{
		Use:   "rewrap FILE...",
		Short: "Rewrap the ciphertext in manifests to the target version of its key",
		Long: `Rewrap the ciphertext in manifests, such as those in Git: Vault encrypts every entry
below the target version of its key again, without revealing it, and the result
replaces the old ciphertext after it was verified. The target is the newest version
that is older than --settle. Everything else in the files stays byte for byte.

Files are YAML or JSON, of one document or several; objects other than ciphertext
Secrets are skipped. If there is an error in any file, none is written. For a symbolic
link, the target is replaced.

With -R directories are read, as kubectl does: files that end in .json, .yaml or .yml,
without following symbolic links to directories. Hidden files and directories such as
.git are skipped, and so are files that kubectl cannot read either and that have no
ciphertext, such as chart templates.

Ciphertext that is no entry of a ciphertext Secret, such as a copy in an annotation, in a
comment or in another object, is not rewrapped: it is listed, and the exit code is 3.

With --check nothing is written: the output lists the entries below the target
version, and such ciphertext. The exit code is 3 if there are any, and 1 if that is
unknown, an entry no longer decrypts, or the files have no entry. Use it in CI. With --dry-run=client Vault
rewraps, and no file is written.

A manifest without a namespace is in the one that kubectl would use. The token needs
read on the key and update on rewrap, for --check only read; no cluster is needed.`,
		Example: `  secretmanager rewrap matrix-secrets.yaml
  secretmanager rewrap -f matrix-secrets.yaml --dry-run=client
  secretmanager rewrap -R deploy/
  secretmanager rewrap --check -R deploy/
  kubectl get secret matrix-secrets -n demo -o yaml | secretmanager rewrap - > matrix-secrets.yaml`,
		RunE: cli.RunE(o),
	}
	f := c.Flags()
	cli.FilenameFlags(c, &o.files, &o.recursive)
	f.BoolVar(&o.check, "check", false, "write nothing; exit code 3 if an entry is below the target version of its key")
	o.settle.AddFlags(f, p.Getenv)
	cli.DryRunFlag(c, &o.dryRun, "client")
	return c
}

// item is an entry in a file.
type item struct {
	file     *manifestfile.File
	secret   *manifest.Secret
	entry    *manifest.Entry
	location string // NAMESPACE/NAME/ENTRY
	item     transit.Item
}

func (i item) fail(err error) error {
	return display.Errorf("%s: line %d: entry %s: %w", i.file.Name, i.entry.Line, i.location, err)
}

// Complete implements cli.Options.
func (o *Options) Complete(_ *cobra.Command, args []string) error {
	o.files = append(o.files, args...)
	return nil
}

// Validate implements cli.Options.
func (o *Options) Validate() error {
	var p cli.Problems
	p.If(len(o.files) == 0, "FILE is required; - is standard input")
	p.Add(cli.ValidateValue("--dry-run", o.dryRun, "none", "client"))
	p.Add(o.settle.Validate()...)
	return p.Err()
}

// Run implements cli.Options.
func (o *Options) Run(ctx context.Context) error {
	files, err := manifestfile.Open(o.In, o.ErrOut, o.files, o.recursive)
	if errors.Is(err, manifestfile.ErrMixed) {
		return cli.Usage(err)
	}
	for _, f := range files {
		err = errors.Join(err, f.Check())
	}
	if err != nil {
		return err
	}
	items, order, err := o.items(files)
	if err != nil {
		return err
	}
	var vault *transit.Session
	if len(order) > 0 {
		if vault, err = o.VaultSession(); err != nil {
			return err
		}
	}
	if o.check {
		if err := o.checkAll(ctx, vault, files, items, order); err != nil {
			return err
		}
		if len(order) == 0 {
			return cli.WithHint(display.Errorf("no ciphertext Secrets found in %s", strings.Join(o.files, ", ")),
				"nothing was checked: -R reads directories")
		}
		display.Fprintf(o.ErrOut, "every entry has the target version in %s\n", cli.Plural(len(files), "file", "files"))
		return nil
	}
	reports := io.Writer(o.Out)
	if o.files[0] == "-" {
		reports = o.ErrOut // standard output is the manifest
	}
	var errs []error
	var report []func()
	rewrapped, total := 0, 0
	for _, key := range order {
		target, err := o.rewrapKey(ctx, vault, key, items[key])
		errs = append(errs, err)
		for _, i := range items[key] {
			total++
			from := i.entry.Version()
			if _, changed := i.file.Texts[i.entry]; !changed {
				report = append(report,
					func() { display.Fprintf(reports, "%s: %s: version %d is current\n", i.file.Name, i.location, from) })
				continue
			}
			rewrapped++
			report = append(report,
				func() { display.Fprintf(reports, "%s: %s: version %d -> %d\n", i.file.Name, i.location, from, target) })
		}
	}
	if err := errors.Join(errs...); err != nil {
		return display.Errorf("no file was written:\n%w", err)
	}
	did := "rewrapped"
	if o.dryRun == "client" {
		did = "would rewrap"
	} else if err := manifestfile.Write(files, o.Out, os.Rename); err != nil {
		return err
	}
	for _, line := range report {
		line()
	}
	display.Fprintf(o.ErrOut, "%s %d of %s in %s\n", did, rewrapped, cli.Plural(total, "entry", "entries"),
		cli.Plural(len(files), "file", "files"))
	return cli.ToDo(unassigned(files, o.ErrOut))
}

// unassigned lists the ciphertext that is no entry, and so is not rewrapped.
func unassigned(files []*manifestfile.File, out io.Writer) error {
	n := 0
	for _, f := range files {
		for _, u := range lint.FindUnassigned(f.Manifest) {
			n++
			display.Fprintf(out, "%s: line %d: %s\n", f.Name, u.Line, u.Message)
		}
	}
	if n == 0 {
		return nil
	}
	return display.Errorf("%s with ciphertext that is no entry of a ciphertext Secret", cli.Plural(n, "line", "lines"))
}

// checkAll lists the entries below the target version of their key, and ciphertext that is no entry.
func (o *Options) checkAll(ctx context.Context, vault *transit.Session, files []*manifestfile.File,
	items map[ciphertext.Key][]item, order []ciphertext.Key) error {
	var errs []error
	old, total := 0, 0
	for _, key := range order {
		info, err := vault.Key(ctx, key)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		target := vault.Target(ctx, info, o.settle.Duration).Version
		for _, i := range items[key] {
			total++
			switch version := i.entry.Version(); {
			case version > info.Latest:
				errs = append(errs, i.tooNew(key, info.Latest))
			case version < info.MinDecryptionVersion:
				errs = append(errs,
					i.fail(display.Errorf("%w: it has version %d: %s", transit.ErrTooOld, version, tooOldHint(key))))
			case version < target:
				old++
				display.Fprintf(o.Out, "%s: line %d: %s: version %d, target %d\n", i.file.Name, i.entry.Line,
					i.location, version, target)
			}
		}
	}
	found := unassigned(files, o.Out)
	if old > 0 {
		found = errors.Join(cli.WithHint(display.Errorf("%s below the target version, of %d",
			cli.Plural(old, "entry is", "entries are"), total), "run the same command without --check to rewrap them"), found)
	}
	if len(errs) > 0 || found == nil {
		return errors.Join(append(errs, found)...)
	}
	return cli.ToDo(found)
}

func (i item) tooNew(key ciphertext.Key, latest int) error {
	return i.fail(
		display.Errorf("%w: it has version %d, and the newest of %s is %d: check that this is the right Vault",
			transit.ErrTooNew, i.entry.Version(), key, latest))
}

func tooOldHint(key ciphertext.Key) string {
	return fmt.Sprintf("encrypt the value again, or lower min_decryption_version of %s", key)
}

// items groups the entries of all files by key; order has the keys as they appear.
func (o *Options) items(files []*manifestfile.File) (map[ciphertext.Key][]item, []ciphertext.Key, error) {
	items := map[ciphertext.Key][]item{}
	var order []ciphertext.Key
	var errs []error
	for _, f := range files {
		for _, s := range f.Manifest.Secrets {
			namespace, err := filesecret.Namespace(o.Factory, f, s)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			key := s.Settings.Key
			if _, known := items[key]; !known {
				order = append(order, key)
			}
			for _, e := range s.Entries {
				items[key] = append(items[key], item{
					file: f, secret: s, entry: e, location: ciphertext.Strict.Describe(namespace, s.Name, e.Name),
					item: transit.Item{Data: e.Text, Context: s.Settings.Scope.Context(namespace, s.Name, e.Name)},
				})
			}
		}
	}
	return items, order, errors.Join(errs...)
}

// rewrapKey rewraps the entries below the target version of their key, and stores the new
// ciphertext with their files. The error names every entry that failed.
func (o *Options) rewrapKey(ctx context.Context, vault *transit.Session, key ciphertext.Key,
	all []item) (target int, err error) {
	info, err := vault.Key(ctx, key)
	if err != nil {
		return 0, err
	}
	target = vault.Target(ctx, info, o.settle.Duration).Version
	var errs []error
	batches := batch.Batcher[item]{Send: func(ctx context.Context, _ batch.Group, items []item) error {
		var requested []transit.Item
		for _, i := range items {
			requested = append(requested, i.item)
		}
		results, err := transit.RewrapVerified(ctx, vault, key, target, requested)
		for n, r := range results {
			errs = append(errs, items[n].take(key, r))
		}
		return err
	}}
	refused := map[*manifest.Secret]bool{}
	for _, i := range all {
		switch version := i.entry.Version(); {
		case version > info.Latest:
			errs = append(errs, i.tooNew(key, info.Latest))
		case version < target && i.secret.Immutable:
			if !refused[i.secret] {
				errs = append(errs, display.Errorf("%s: %w", i.file.Name, i.secret.CheckMutable()))
			}
			refused[i.secret] = true
		case version < target:
			err = batches.Add(ctx, batch.GroupOf(i.secret.Settings), i, 1, len(i.entry.Text))
		}
		if err != nil {
			return target, errors.Join(append(errs, err)...)
		}
	}
	err = batches.Flush(ctx) // it appends to errs
	return target, errors.Join(append(errs, err)...)
}

// take stores the new ciphertext of the item with its file.
func (i item) take(key ciphertext.Key, r transit.Result) error {
	switch {
	case errors.Is(r.Err, transit.ErrMismatch):
		return i.fail(display.Errorf("%w: it was not encrypted with %s for this location (scope %s): check its namespace, "+
			"and whether it was copied", r.Err, key, i.secret.Settings.Scope))
	case errors.Is(r.Err, transit.ErrTooOld):
		return i.fail(display.Errorf("%w: %s", r.Err, tooOldHint(key)))
	case r.Err != nil:
		return i.fail(r.Err)
	}
	i.file.Texts[i.entry] = r.Data
	return nil
}

// Package trim is the verb trim: it deletes retired versions of a transit key for good.
package trim

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/options"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Options are the options of trim.
type Options struct {
	*cli.Factory
	key    ciphertext.Key
	to     int
	yes    string
	dryRun string
	output string
}

// NewCommand returns the command trim.
func NewCommand(p *cli.Factory) *cobra.Command {
	o := &Options{Factory: p}
	c := &cobra.Command{
		Use:   "trim KEY",
		Short: "Delete the retired versions of a key permanently",
		Long: `Delete the retired versions of a transit key, those below min_decryption_version,
from Vault. This cannot be undone: ciphertext of these versions, wherever it is, never
decrypts again. Only a backup of Vault still has them.

First this shows which versions are deleted, and every text of these versions that it
finds in the data and annotations of any Secret of the cluster, labeled or not: as it
is, in base64, with JSON's escapes, and in Helm releases. Vault no longer decrypts
retired versions, so whether a text needs one of the key cannot be tested. If a Secret
with the label of the key has such a text, nothing is deleted. Others are listed, for
you to check. Backups, Git, ConfigMaps and other clusters are not searched.

Then it asks for the name of the key. --yes KEY confirms without a terminal.

The Vault token needs the policy that secretmanager vault-setup --trim creates. You
need the right to list all Secrets.`,
		Example: `  # show what would be deleted, and what was found
  secretmanager trim matrix --dry-run

  # ask for confirmation, and delete
  secretmanager trim matrix`,
		Args: cobra.ExactArgs(1),
		RunE: cli.RunE(o),
	}
	f := c.Flags()
	options.PathVar(f, &o.key.Mount, "transit-mount", ciphertext.DefaultTransitMount, "path of the transit engine")
	f.IntVar(&o.to, "to", 0, "delete only the versions below this `version` (default min_decryption_version)")
	f.StringVar(&o.yes, "yes", "", "name of the `key` again: delete without asking")
	cli.DryRunFlag(c, &o.dryRun, "client")
	cli.OutputFlag(c, &o.output, "json", "yaml")
	return c
}

// Complete implements cli.Options.
func (o *Options) Complete(_ *cobra.Command, args []string) error {
	o.key.Name = args[0]
	return nil
}

// Validate implements cli.Options.
func (o *Options) Validate() error {
	var p cli.Problems
	p.Add(o.key.Check(), cli.ValidateOutput(o.output, "json", "yaml"),
		cli.ValidateValue("--dry-run", o.dryRun, "none", "client"))
	p.If(o.to < 0, "--to must be a version of the key")
	if o.yes != "" && o.yes != o.key.Name {
		p.Add(display.Errorf("--yes names %q and not the key, %q", o.yes, o.key.Name))
	}
	if o.yes == "" && o.dryRun == "none" {
		p.If(o.output != "", "-o needs --yes or --dry-run, because the question needs the text")
		p.If(!cli.IsTerminal(o.In) || !cli.IsTerminal(o.ErrOut),
			"without a terminal to ask for the name of the key, --yes must confirm it")
	}
	return p.Err()
}

// Run implements cli.Options.
func (o *Options) Run(ctx context.Context) error {
	vault, err := o.VaultSession()
	if err != nil {
		return err
	}
	plan, err := o.plan(ctx, vault)
	if err != nil {
		return err
	}
	if err := o.find(ctx, plan); err != nil {
		return cli.WithHint(fmt.Errorf("nothing was deleted: %w", err),
			"trim needs the right to list all Secrets of the cluster: kubectl auth can-i list secrets -A")
	}
	if o.output == "" {
		plan.print(o.Out)
	}
	switch {
	case plan.Blocking.Count > 0:
		err = cli.WithHint(display.Errorf("nothing was deleted: %s of the versions to delete in Secrets of %s",
			cli.Plural(plan.Blocking.Count, "text is", "texts are"), o.key),
			"they do not decrypt now. To keep their values, lower min_decryption_version and run the rotator; otherwise "+
				"delete them or the Secrets. An annotation of kubectl apply changes with the next apply")
	case o.dryRun == "client":
	default:
		err = o.trim(ctx, vault, plan)
	}
	if o.output != "" {
		err = errors.Join(o.PrintDocument(plan, o.output), err)
	}
	return err
}

// plan reads the key and returns what is to be deleted.
func (o *Options) plan(ctx context.Context, vault *transit.Session) (*plan, error) {
	info, err := vault.Key(ctx, o.key)
	if err != nil {
		return nil, err
	}
	p := &plan{Mount: o.key.Mount, Name: o.key.Name, From: max(info.MinAvailableVersion, 1), To: o.to,
		MinDecryption: info.MinDecryptionVersion, Latest: info.Latest}
	if p.To == 0 {
		p.To = info.MinDecryptionVersion
	}
	switch {
	case info.MinDecryptionVersion <= p.From:
		return nil, cli.WithHint(display.Errorf("nothing to delete: no version of %s is retired and still exists (%s)", o.key,
			p.state()), "the rotator retires versions that no ciphertext needs, with --retire: see docs/rotation.md")
	case p.To <= p.From:
		return nil, display.Errorf("nothing to delete: the versions of %s below %d do not exist (%s)", o.key, p.To, p.state())
	case p.To > info.MinDecryptionVersion:
		return nil, display.Errorf("nothing was deleted: the versions of %s from %d on are not retired (%s), and --to is %d",
			o.key, info.MinDecryptionVersion, p.state(), p.To)
	}
	return p, nil
}

// trim asks for confirmation, deletes the versions and checks the result.
func (o *Options) trim(ctx context.Context, vault *transit.Session, p *plan) error {
	if o.yes == "" {
		if err := o.confirm(); err != nil {
			return err
		}
	}
	// A person may have taken long to answer.
	info, err := vault.Key(ctx, o.key)
	if err != nil {
		return err
	}
	if info.MinDecryptionVersion != p.MinDecryption || info.Latest < p.Latest {
		return display.Errorf("nothing was deleted: %s has changed meanwhile (min_decryption_version was %d and is %d, "+
			"the newest version was %d and is %d): check who changed it, and run the command again", o.key, p.MinDecryption,
			info.MinDecryptionVersion, p.Latest, info.Latest)
	}
	trimErr := vault.Trim(ctx, o.key, info, p.To)
	after, err := vault.Key(ctx, o.key)
	switch {
	case trimErr != nil && (err != nil || after.MinAvailableVersion < p.To):
		return cli.WithHint(errors.Join(trimErr, err),
			"the policy that secretmanager vault-setup --trim creates allows it",
			"check the result before you run the command again: vault read "+o.key.String())
	case err != nil:
		return fmt.Errorf("checking the result of the deletion, which Vault confirmed: %w", err)
	case after.MinAvailableVersion < p.To:
		return cli.WithHint(display.Errorf(
			"min_available_version of %s is %d and not %d, although Vault confirmed the deletion",
			o.key, after.MinAvailableVersion, p.To),
			"a standby of Vault may be late: read the key again, with vault read "+o.key.String())
	case trimErr != nil:
		display.Fprintf(o.ErrOut, "note: Vault returned an error, but the versions are deleted: %v\n", trimErr)
	}
	p.Done = true
	if o.output == "" {
		display.Fprintf(o.Out, "deleted %s of %s: min_available_version is %d\n", p.versions(), o.key,
			after.MinAvailableVersion)
	}
	return nil
}

// confirm asks for the name of the key.
func (o *Options) confirm() error {
	answer, err := o.Ask("Type the name of the key to delete these versions permanently: ")
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("nothing was deleted: %w", err)
	case answer != o.key.Name:
		return errors.New("nothing was deleted: that is not the name of the key")
	}
	return nil
}

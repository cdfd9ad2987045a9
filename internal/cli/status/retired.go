package status

import (
	"errors"
	"fmt"

	"k8s.io/cli-runtime/pkg/printers"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/inventory"
)

// retirementErr returns the error of what would break, or of what is unknown.
func retirementErr(r inventory.Retirement) error {
	entries, unknown := r.Count()
	var unknownErr error
	switch {
	case unknown > 0:
		unknownErr = display.Errorf("what would break is unknown: %s could not be read from Vault",
			cli.Plural(unknown, "key", "keys"))
	case len(r.Broken) > 0:
		unknownErr = cli.WithHint(display.Errorf("what would break is unknown: %s broken",
			cli.Plural(len(r.Broken), "Secret is", "Secrets are")),
			"fix or delete the Secrets that are broken; secretmanager status -A shows them")
	}
	if entries == 0 {
		return unknownErr
	}
	err := cli.WithHint(display.Errorf("%s would no longer decrypt", cli.Plural(entries, "entry", "entries")),
		"bring them to the newest version first: the rotator does that, and secretmanager rewrap FILE for manifests in Git")
	if unknownErr != nil {
		return errors.Join(err, unknownErr)
	}
	return cli.ToDo(err)
}

func (o *Options) showRetirement(rows []*inventory.Secret) error {
	version := o.retiredVersion()
	r, err := inventory.Retire(rows, version)
	if err != nil {
		return err
	}
	if o.output == "json" {
		if err := cli.WriteJSON(o.Out, r); err != nil {
			return err
		}
		return retirementErr(r)
	}
	table := printers.GetNewTabWriter(o.Out)
	header := false
	for _, k := range r.Keys {
		for _, e := range k.WouldBreak {
			if !header {
				fmt.Fprintln(table, "KEY\tNAMESPACE\tSECRET\tENTRY\tVERSION\tLATEST\tMANAGED-BY")
				header = true
			}
			display.Fprintf(table, "%s/%s\t%s\t%s\t%s\t%d\t%d\t%s\n", k.Mount, k.Name, e.Namespace, e.Secret, e.Entry,
				e.Version, k.Latest, e.ManagedBy)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, row := range r.Broken {
		o.reportBroken(row)
	}
	for _, k := range r.Keys {
		if k.Latest > 0 && len(k.WouldBreak) == 0 {
			below := k.Target
			if version > 0 {
				below = version + 1
			}
			display.Fprintf(o.ErrOut, "%s/%s: nothing of %s in %s is below version %d\n", k.Mount, k.Name,
				cli.Plural(k.Entries, "entry", "entries"), cli.Plural(k.Secrets, "Secret", "Secrets"), below)
		}
	}
	return retirementErr(r)
}

package status

import (
	"errors"
	"fmt"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/inventory"
	"k8s.io/cli-runtime/pkg/printers"
)

// retirementErr says what stands in the way.
func retirementErr(r inventory.Retirement) error {
	entries, unknown := 0, 0
	for _, k := range r.Keys {
		entries += len(k.WouldBreak)
		if k.Latest == 0 {
			unknown++
		}
	}
	var untold error
	switch {
	case unknown > 0:
		untold = display.Errorf("what would break cannot be told: Vault does not tell about %s", cli.Plural(unknown, "key", "keys"))
	case len(r.Broken) > 0:
		untold = cli.WithHint(display.Errorf("what would break cannot be told: %s broken", cli.Plural(len(r.Broken), "Secret is", "Secrets are")),
			"mend or remove what is broken; secretmanager status -A shows it")
	}
	if entries == 0 {
		return untold
	}
	err := cli.WithHint(display.Errorf("%s would not open any more", cli.Plural(entries, "entry", "entries")),
		"bring them to the newest version first: the rotator does it, or secretmanager rewrap FILE for what is kept in Git")
	if untold != nil {
		return errors.Join(err, untold)
	}
	return cli.ToDo(err)
}

func (o *Options) showRetirement(rows []*inventory.Secret) error {
	version := o.retiredVersion()
	for _, row := range rows {
		if row.Latest > 0 && version >= row.Latest {
			return display.Errorf("version %d of %s/%s cannot be retired: its newest is %d, and that one stays", version, row.Mount, row.Key, row.Latest)
		}
	}
	r := inventory.Retire(rows, version)
	if o.output == "json" {
		if err := cli.WriteJSON(o.Out, r); err != nil {
			return err
		}
		return retirementErr(r)
	}
	table := printers.GetNewTabWriter(o.Out)
	begun := false
	for _, k := range r.Keys {
		for _, e := range k.WouldBreak {
			if !begun {
				fmt.Fprintln(table, "KEY\tNAMESPACE\tSECRET\tENTRY\tVERSION\tLATEST\tMANAGED-BY")
				begun = true
			}
			display.Fprintf(table, "%s/%s\t%s\t%s\t%s\t%d\t%d\t%s\n", k.Mount, k.Name, e.Namespace, e.Secret, e.Entry, e.Version, k.Latest, e.ManagedBy)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, row := range r.Broken {
		o.sayBroken(row)
	}
	for _, k := range r.Keys {
		if k.Latest > 0 && len(k.WouldBreak) == 0 {
			below := k.Latest
			if version > 0 {
				below = version + 1
			}
			display.Fprintf(o.ErrOut, "%s/%s: nothing of %s in %s is below version %d\n", k.Mount, k.Name, cli.Plural(k.Entries, "entry", "entries"), cli.Plural(k.Secrets, "Secret", "Secrets"), below)
		}
	}
	return retirementErr(r)
}

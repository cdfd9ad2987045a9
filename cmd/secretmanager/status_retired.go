package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/secretmanager-io/secretmanager/internal/display"

	"k8s.io/cli-runtime/pkg/printers"
)

// retirement is what status --if-retired shows. Its JSON is a promise, as that
// of statusRow is.
type retirement struct {
	Keys []*retiredKey `json:"keys"`
	// Broken are Secrets of which something does not open as it is, or that do not
	// say what their key is: what would become of them cannot be told.
	Broken []*statusRow `json:"broken"`
}

// retiredKey is a key as it would be if its versions but the newest were retired.
type retiredKey struct {
	Mount         string         `json:"mount"`
	Name          string         `json:"name"`
	MinDecryption int            `json:"minDecryptionVersion,omitempty"`
	Latest        int            `json:"latestVersion,omitempty"` // left out if Vault did not tell
	Secrets       int            `json:"secrets"`
	Entries       int            `json:"entries"`
	WouldBreak    []retiredEntry `json:"wouldBreak"`
}

type retiredEntry struct {
	Namespace string `json:"namespace"`
	Secret    string `json:"secret"`
	Entry     string `json:"entry"`
	Version   int    `json:"version"`
	ManagedBy string `json:"managedBy,omitempty"`
}

// retire finds what would break if a version and all older ones were retired; 0
// stands for the one before the newest of each key.
func retire(rows []*statusRow, version int) retirement {
	r := retirement{Keys: []*retiredKey{}, Broken: []*statusRow{}}
	keys := map[[2]string]*retiredKey{}
	for _, row := range rows {
		if row.State == stateBroken {
			r.Broken = append(r.Broken, row)
		}
		if row.Key == "" {
			continue
		}
		id := [2]string{row.Mount, row.Key}
		k := keys[id]
		if k == nil {
			k = &retiredKey{Mount: row.Mount, Name: row.Key, MinDecryption: row.MinDecryption, Latest: row.Latest, WouldBreak: []retiredEntry{}}
			keys[id] = k
			r.Keys = append(r.Keys, k)
		}
		k.Secrets, k.Entries = k.Secrets+1, k.Entries+len(row.Entries)
		for _, e := range row.Entries {
			// What is retired already, or no ciphertext, is broken as it is.
			if e.Problem == "" && e.Version < row.Latest && (version == 0 || e.Version <= version) {
				k.WouldBreak = append(k.WouldBreak, retiredEntry{row.Namespace, row.Name, e.Name, e.Version, row.ManagedBy})
			}
		}
	}
	slices.SortFunc(r.Keys, func(a, b *retiredKey) int {
		return cmp.Or(cmp.Compare(a.Mount, b.Mount), cmp.Compare(a.Name, b.Name))
	})
	return r
}

// err says what stands in the way.
func (r retirement) err() error {
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
		untold = display.Errorf("what would break cannot be told: Vault does not tell about %s", plural(unknown, "key", "keys"))
	case len(r.Broken) > 0:
		untold = hinted(display.Errorf("what would break cannot be told: %s broken", plural(len(r.Broken), "Secret is", "Secrets are")),
			"mend or remove what is broken; secretmanager status -A shows it")
	}
	if entries == 0 {
		return untold
	}
	err := hinted(display.Errorf("%s would not open any more", plural(entries, "entry", "entries")),
		"bring them to the newest version first: the rotator does it, or secretmanager rewrap FILE for what is kept in Git")
	if untold != nil {
		return errors.Join(err, untold)
	}
	return toDo(err)
}

func (o *status) showRetirement(rows []*statusRow) error {
	version := o.retiredVersion()
	for _, row := range rows {
		if row.Latest > 0 && version >= row.Latest {
			return display.Errorf("version %d of %s/%s cannot be retired: its newest is %d, and that one stays", version, row.Mount, row.Key, row.Latest)
		}
	}
	r := retire(rows, version)
	if o.output == "json" {
		if err := writeJSON(o.Out, r); err != nil {
			return err
		}
		return r.err()
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
			display.Fprintf(o.ErrOut, "%s/%s: nothing of %s in %s is below version %d\n", k.Mount, k.Name, plural(k.Entries, "entry", "entries"), plural(k.Secrets, "Secret", "Secrets"), below)
		}
	}
	return r.err()
}

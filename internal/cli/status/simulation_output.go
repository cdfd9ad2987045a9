package status

import (
	"errors"
	"strconv"

	"k8s.io/cli-runtime/pkg/printers"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// showSimulation writes what would break. The error says so, too.
func (o *Options) showSimulation(s *Simulation) error {
	if o.output == "json" || o.output == "yaml" {
		if err := o.PrintDocument(s, o.output); err != nil {
			return err
		}
		return s.err()
	}
	if err := o.writeBreaking(s); err != nil {
		return err
	}
	for _, k := range s.Keys {
		switch {
		case k.Error != "":
			display.Fprintf(o.ErrOut, "unknown: %s: %s\n", k.key(), k.Error)
		case k.RetiredBelow == k.MinDecryption:
			display.Fprintf(o.ErrOut, "%s: nothing to retire: min_decryption_version is %d\n", k.key(), k.MinDecryption)
		case k.WouldBreak.Count == 0 && !k.unknown():
			display.Fprintf(o.ErrOut, "%s: nothing below version %d in %s still decrypts\n", k.key(), k.RetiredBelow,
				cli.Plural(s.Secrets, "Secret", "Secrets"))
		}
		for _, namespace := range k.Incomplete {
			display.Fprintf(o.ErrOut, "incomplete: %s in namespace %s\n", k.key(), namespace)
		}
		if more := k.WouldBreak.Count - len(k.WouldBreak.Items); more > 0 {
			display.Fprintf(o.ErrOut, "%s: %s are not listed\n", k.key(), cli.Plural(more, "more text", "more texts"))
		}
	}
	for _, n := range s.NotSearched {
		display.Fprintf(o.ErrOut, "not searched: %s/%s: %s\n", n.Namespace, n.Secret, n.Reason)
	}
	for _, namespace := range s.Unfinished {
		display.Fprintf(o.ErrOut, "not finished: namespace %s has too many texts of these versions\n", namespace)
	}
	o.noteTexts(s.OlderReleases, "in older Helm releases, which prevents nothing")
	o.noteTexts(s.Undecryptable, "with none of the keys, which prevents nothing")
	return s.err()
}

// writeBreaking writes a table of what would break.
func (o *Options) writeBreaking(s *Simulation) error {
	table := printers.GetNewTabWriter(o.Out)
	header := false
	for _, k := range s.Keys {
		for _, t := range k.WouldBreak.Items {
			columns, cells := []string{"KEY", "NAMESPACE", "SECRET", "ENTRY", "FOUND-IN", "VERSION", "LATEST"},
				[]string{k.Mount + "/" + k.Name, t.Namespace, t.Secret, t.name(), t.foundIn(), strconv.Itoa(t.Version),
					strconv.Itoa(k.Latest)}
			if o.output == "wide" {
				columns, cells = append(columns, "TARGET"), append(cells, strconv.Itoa(k.Target))
			}
			if !header {
				display.Row(table, append(columns, "MANAGED-BY")...)
				header = true
			}
			display.Row(table, append(cells, t.ManagedBy)...)
		}
	}
	return table.Flush()
}

// noteTexts says how many texts do not prevent a retirement; -o wide names them.
func (o *Options) noteTexts(t Texts, what string) {
	if t.Count == 0 {
		return
	}
	verb := "decrypt"
	if t.Count == 1 {
		verb = "decrypts"
	}
	display.Fprintf(o.ErrOut, "note: %s %s %s\n", cli.Plural(t.Count, "text", "texts"), verb, what)
	if o.output != "wide" {
		return
	}
	for _, x := range t.Items {
		display.Fprintf(o.ErrOut, "  %s/%s: %s (%s), version %d\n", x.Namespace, x.Secret, x.name(), x.foundIn(), x.Version)
	}
}

// name returns the name of the entry or annotation.
func (t *Text) name() string {
	if t.Annotation != "" {
		return t.Annotation
	}
	return t.Entry
}

// foundIn says where in a Secret the text is.
func (t *Text) foundIn() string {
	switch {
	case t.Annotation != "":
		return "annotation"
	case t.InRelease:
		return "Helm release"
	case t.Labeled:
		return "labeled entry"
	case t.Key == "":
		return "entry"
	}
	return "other entry"
}

// err returns the error of what would break, or of what is unknown.
func (s *Simulation) err() error {
	texts, unknown := 0, 0
	var hints []string
	failed := false
	for _, k := range s.Keys {
		texts += k.WouldBreak.Count
		if k.unknown() {
			unknown++
		}
		failed = failed || k.Error != ""
	}
	if failed {
		hints = append(hints, "check that the token has read on MOUNT/keys/KEY and update on MOUNT/rewrap/KEY in Vault")
	}
	if len(s.NotSearched) > 0 {
		hints = append(hints, "fix or delete the Secrets that could not be searched")
	}
	if len(s.Unfinished) > 0 {
		hints = append(hints, "-l secretmanager.io/transit-key=KEY limits the keys, so that each text takes fewer attempts")
	}
	var unknownErr error
	if unknown > 0 {
		unknownErr = cli.WithHint(display.Errorf("what would break is unknown for %s", cli.Plural(unknown, "key", "keys")),
			hints...)
	}
	if texts == 0 {
		return unknownErr
	}
	err := display.Errorf("%s would no longer decrypt", cli.Plural(texts, "text", "texts"))
	hints = append([]string{"the rotator brings labeled entries to the target version, and secretmanager rewrap FILE " +
		"those of manifests in Git; replace or delete other copies"}, hints...)
	if unknownErr != nil {
		return cli.WithHint(errors.Join(err, unknownErr), hints...)
	}
	return cli.ToDo(cli.WithHint(err, hints...))
}

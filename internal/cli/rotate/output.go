package rotate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// maxLocations bounds the locations that a reason names.
const maxLocations = 20

// write writes a line for each key, and then what is not done and why.
func (o *Options) write(report *rotator.Report) error {
	table := o.NewTable(o.Out, -1)
	for _, k := range report.Keys {
		table.Row("", k.Mount+"/"+k.Name, versionOf(k), resultOf(k, report.DryRun))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if o.output == "wide" {
		if err := o.writeWide(report); err != nil {
			return err
		}
	}
	note := func(format string, args ...any) { display.Fprintf(o.ErrOut, format+"\n", args...) }
	if report.StateUnread != "" {
		note("note: without the record of earlier runs, this dry run does not know since when versions are unused, and "+
			"whether a key was restored from a backup: %s", report.StateUnread)
	}
	for _, k := range report.Keys {
		for _, text := range notesOf(k) {
			note("%s/%s: %s", k.Mount, k.Name, text)
		}
	}
	for _, k := range report.Keys {
		if k.Error != "" {
			note("failed: %s/%s: %s", k.Mount, k.Name, k.Error)
		}
		o.writeProblems("reverted", k.Reverted)
		o.writeProblems("not rewrapped", k.Unresolved)
		if k.Retire != nil {
			o.writeProblems("would break", rotator.Problems{Count: len(k.Retire.WouldBreak), Items: k.Retire.WouldBreak})
			o.writeProblems("released", rotator.Problems{Count: len(k.Retire.Released), Items: k.Retire.Released})
		}
	}
	o.writeProblems("unassigned", report.Unassigned)
	o.writeProblems("not selected", report.NotSelected)
	if found := report.Undecryptable; found.Count > 0 {
		note("%d old texts decrypt with no key that is due, and prevent nothing: for example %s", found.Count, found.Items[0])
	}
	if found := report.OlderReleases; found.Count > 0 {
		note("%d old texts are in old Helm revisions, and prevent nothing: for example %s", found.Count, found.Items[0])
	}
	return nil
}

// versionOf returns the newest version before and after the run.
func versionOf(k *rotator.KeyReport) string {
	if newest := max(k.After, k.Target); newest != k.Before { // in a dry run, After is the same
		return fmt.Sprintf("%d -> %d", k.Before, newest)
	}
	if k.Before == 0 {
		return "?"
	}
	return fmt.Sprint(k.Before)
}

// resultOf says how many entries are at the target, and how many are not.
func resultOf(k *rotator.KeyReport, dryRun bool) string {
	if k.Error != "" && k.Rewrapped == 0 {
		return "failed"
	}
	not := k.Unresolved.Count
	total := k.Rewrapped + k.Pending
	verb, done := "rewrapped", k.Rewrapped
	if dryRun {
		verb, done = "would rewrap", max(k.Pending-not, 0)
	}
	total = max(total, done+not)
	switch {
	case total == 0 && k.Current == 0:
		return "no entries"
	case total == 0:
		return "all " + cli.Plural(k.Current, "entry is", "entries are") + " current"
	}
	text := fmt.Sprintf("%s %d of %s", verb, done, cli.Plural(total, "entry", "entries"))
	if not > 0 {
		text += fmt.Sprintf(", %d not", not)
	}
	return text
}

// notesOf returns what else is to say about a key.
func notesOf(k *rotator.KeyReport) (notes []string) {
	if k.RotateReason != "" && k.Error == "" {
		what := "not rotated: "
		if k.Rotated {
			what = "rotated: "
		} else if strings.HasPrefix(k.RotateReason, "would be ") {
			what = ""
		}
		notes = append(notes, what+k.RotateReason)
	}
	if k.Unsettled != nil {
		notes = append(notes, fmt.Sprintf("version %d is unsettled until %s: take a snapshot of Vault, because older "+
			"backups do not have it", k.Target, k.Unsettled.UTC().Format(time.RFC3339)))
	}
	if k.NotCovered > 0 {
		notes = append(notes, fmt.Sprintf("%s newer than version %d, which older backups of Vault do not have: what wrote "+
			"them uses another settle time", cli.Plural(k.NotCovered, "entry is", "entries are"), k.Target))
	}
	if k.OlderManifests > 0 {
		notes = append(notes, fmt.Sprintf("kubectl applied %s from manifests that are older now: rewrap the manifests too",
			cli.Plural(k.OlderManifests, "Secret", "Secrets")))
	}
	if r := k.Retire; r != nil {
		notes = append(notes, fmt.Sprintf("min_decryption_version %d -> %d: %s", r.From, r.To, r.Reason))
	}
	return notes
}

// writeWide writes a table of the versions in use.
func (o *Options) writeWide(report *rotator.Report) error {
	table := o.NewTable(o.Out, -1)
	fmt.Fprintln(o.Out)
	table.Header("KEY", "TARGET", "SECRETS", "CURRENT", "PENDING", "UNRESOLVED", "VERSIONS IN USE")
	for _, k := range report.Keys {
		var inUse []string
		for _, v := range slices.Sorted(maps.Keys(k.Versions)) {
			inUse = append(inUse, fmt.Sprintf("%d (%s)", v, cli.Plural(k.Versions[v], "entry", "entries")))
		}
		table.Row("", k.Mount+"/"+k.Name, fmt.Sprint(k.Target), fmt.Sprint(k.Secrets), fmt.Sprint(k.Current),
			fmt.Sprint(k.Pending), fmt.Sprint(k.Unresolved.Count), strings.Join(inUse, ", "))
	}
	return table.Flush()
}

// writeProblems writes each reason once, with the locations that it affects.
func (o *Options) writeProblems(what string, problems rotator.Problems) {
	var reasons []string
	locations := map[string][]string{}
	for _, p := range problems.Items {
		if locations[p.Reason] == nil {
			reasons = append(reasons, p.Reason)
		}
		locations[p.Reason] = append(locations[p.Reason], p.Location.String())
	}
	for _, reason := range reasons {
		all := locations[reason]
		if len(all) == 1 {
			display.Fprintf(o.ErrOut, "%s: %s: %s\n", what, all[0], reason)
			continue
		}
		display.Fprintf(o.ErrOut, "%s: %s\n", what, reason)
		for _, location := range all[:min(len(all), maxLocations)] {
			display.Fprintf(o.ErrOut, "  %s\n", location)
		}
		if more := len(all) - maxLocations; more > 0 {
			display.Fprintf(o.ErrOut, "  and %d more, which -o json lists\n", more)
		}
	}
	if more := problems.Count - len(problems.Items); more > 0 {
		display.Fprintf(o.ErrOut, "%s: and %d more\n", what, more)
	}
}

// incomplete returns the error of a run of which the output has said what is not done.
func (o *Options) incomplete(report *rotator.Report) error {
	entries, keys := report.Unassigned.Count, 0
	for _, k := range report.Keys {
		entries += k.Unresolved.Count
		if k.Error != "" {
			keys++
		}
	}
	var parts []string
	if entries > 0 {
		parts = append(parts, cli.Plural(entries, "entry", "entries"))
	}
	if keys > 0 {
		parts = append(parts, cli.Plural(keys, "key that failed", "keys that failed"))
	}
	return fmt.Errorf("%w: %s: the lines above say why", rotator.ErrIncomplete, strings.Join(parts, " and "))
}

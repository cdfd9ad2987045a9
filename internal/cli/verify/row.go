package verify

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// Results of a Secret.
const (
	resultDecrypts = "decrypts"
	resultFails    = "fails"
	resultUnknown  = "unknown"
)

// verifyRow is what verify shows of a Secret. Its JSON is stable: fields are added and never renamed. Unknown values
// are omitted.
type secretResult struct {
	File      string    `json:"file,omitempty"` // with -f
	Line      int       `json:"line,omitempty"`
	Namespace string    `json:"namespace,omitempty"`
	Name      string    `json:"name,omitempty"`
	Key       string    `json:"key,omitempty"`
	Mount     string    `json:"mount,omitempty"`
	Scope     string    `json:"scope,omitempty"`
	Entries   int       `json:"entries"`
	Result    string    `json:"result"`
	Failed    []failure `json:"failed,omitempty"`
	Problem   string    `json:"problem,omitempty"` // why the result is unknown

	err     error                      // of Problem, if Vault could not be asked
	entries map[string]*manifest.Entry // of a file, until Vault has responded
}

// failure is an entry that does not decrypt; without an entry, none does.
type failure struct {
	Entry  string `json:"entry,omitempty"`
	Line   int    `json:"line,omitempty"` // with -f
	Reason string `json:"reason"`
}

// take makes a row of a result, and keeps nothing else of it.
func (o *Options) take(p secretmanager.VerifyResult) {
	row := o.ofFile[p.Secret]
	delete(o.ofFile, p.Secret)
	if row == nil {
		row = &secretResult{}
		o.rows = append(o.rows, row)
	}
	// Invalid settings are not shown, as they may be anything.
	if set, err := ciphertext.SettingsOf(p.Secret); err == nil && ciphertext.CheckName(set.Key.Name) == nil {
		row.Key, row.Mount, row.Scope = set.Key.Name, set.Key.Mount, string(set.Scope)
	}
	row.Namespace, row.Name, row.Entries, row.Result = display.Name(p.Secret.Namespace), display.Name(
		p.Secret.Name), p.Entries, resultDecrypts
	if p.Err != nil {
		row.Problem, row.Result, row.err = p.Err.Error(), resultUnknown, p.Err
	}
	for _, f := range p.Failed {
		failure := failure{Entry: f.Entry, Reason: strings.ReplaceAll(f.Err.Error(), "\n", "; ")}
		if e := row.entries[f.Entry]; e != nil {
			if failure.Line = e.Line; e.Problem != nil {
				failure.Reason = e.Problem.Message
			}
		}
		row.Failed, row.Result = append(row.Failed, failure), resultFails
	}
	row.entries = nil
	if o.bar != nil {
		o.bar.Add(1)
	}
}

// describe names the Secret in a message.
func (r *secretResult) describe(line int) string {
	name := r.Name
	if r.Namespace != "" {
		name = r.Namespace + "/" + name
	}
	if r.File == "" {
		return name
	}
	return display.Sprintf("%s: line %d: Secret %s", r.File, cmp.Or(line, r.Line), name)
}

// report prints the results and returns the error of the verb. The error readErr ended it early.
func (o *Options) report(readErr error) error {
	if len(o.files) == 0 {
		slices.SortFunc(o.rows, func(a, b *secretResult) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		})
	}
	// After an early end, Secrets of files may have no result.
	o.rows = slices.DeleteFunc(o.rows, func(r *secretResult) bool { return r.Result == "" })
	err := o.print()
	entries, failing, unknown := 0, 0, 0
	reported := map[string]bool{}
	for _, r := range o.rows {
		entries += r.Entries
		if len(r.Failed) > 0 {
			failing++
		}
		for _, f := range r.Failed {
			entry := ""
			if f.Entry != "" {
				entry = fmt.Sprintf("entry %q: ", f.Entry)
			}
			display.Fprintf(o.ErrOut, "fails: %s: %s%s\n", r.describe(f.Line), entry, f.Reason)
		}
		if r.Problem == "" {
			continue
		}
		unknown++
		// often the same for many Secrets
		if !reported[r.Problem] && !errors.Is(readErr, r.err) {
			reported[r.Problem] = true
			display.Fprintf(o.ErrOut, "unknown: %s: %s\n", r.describe(0), r.Problem)
		}
	}
	var found error
	if failing > 0 {
		found = fmt.Errorf("%d of %s have entries that do not decrypt", failing, cli.Plural(len(o.rows), "Secret", "Secrets"))
	}
	if unknown > 0 {
		found = errors.Join(found, fmt.Errorf("the result of %s is unknown", cli.Plural(unknown, "Secret", "Secrets")))
	}
	switch {
	case err != nil || readErr != nil || unknown > 0:
		return errors.Join(err, readErr, found)
	case found != nil:
		return cli.ToDo(found)
	case len(o.rows) == 0 && len(o.files) > 0:
		return cli.WithHint(display.Errorf("no ciphertext Secrets found in %s", strings.Join(o.files, ", ")),
			"nothing was verified: -R reads directories")
	case len(o.rows) == 0:
		return o.ErrNothingFound(o.namespaces, o.selector)
	default:
		display.Fprintf(o.ErrOut, "verified %s of %s\n", cli.Plural(entries, "entry", "entries"),
			cli.Plural(len(o.rows), "Secret", "Secrets"))
	}
	return nil
}

// print writes the results in the format of -o.
func (o *Options) print() error {
	switch o.output {
	case "json", "yaml":
		return o.PrintDocument(map[string]any{"secrets": append([]*secretResult{}, o.rows...)}, o.output)
	case "name":
		for _, r := range o.rows {
			display.Fprintf(o.Out, "secret/%s\n", r.Name)
		}
		return nil
	}
	return o.table()
}

func (o *Options) table() error {
	if len(o.rows) == 0 {
		return nil
	}
	table := o.NewTable(o.Out, 2) // the third column, as in status
	row := func(color, file, namespace, name, result, key, entries, scope string) {
		cells := []string{name, key, result, entries}
		switch {
		case len(o.files) > 0:
			cells = []string{file, name, result, namespace, key, entries}
		case len(o.namespaces) != 1:
			cells = []string{namespace, name, result, key, entries}
		}
		if o.output == "wide" {
			cells = append(cells, scope)
		}
		table.Row(color, cells...)
	}
	row(cli.Default, "FILE", "NAMESPACE", "NAME", "RESULT", "KEY", "ENTRIES", "SCOPE")
	colors := map[string]string{resultDecrypts: cli.Green, resultFails: cli.Red, resultUnknown: cli.Yellow}
	for _, r := range o.rows {
		row(colors[r.Result], r.File, r.Namespace, r.Name, r.Result, cmp.Or(r.Key, "?"), fmt.Sprint(r.Entries),
			cmp.Or(r.Scope, "?"))
	}
	return table.Flush()
}

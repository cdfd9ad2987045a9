package status

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/inventory"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// readLastRuns begins to read the rotator's ConfigMaps, while the Secrets are listed. The function that it
// returns waits for them and adds what they have. Most users may not read them, or there is no
// rotator: then the view has nothing of it, as docs/reference/status.md says.
func (o *Options) readLastRuns(ctx context.Context, kube kubernetes.Interface) (add func(*view)) {
	var summary *rotator.Summary
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		summary, err = rotator.FetchSummary(ctx, kube, o.stateNamespace)
	}()
	return func(v *view) {
		if len(v.rows) == 0 {
			return
		}
		<-done
		if err == nil {
			v.summary = summary
			v.addReasons()
		} else if !apierrors.IsForbidden(err) {
			display.Fprintf(o.ErrOut, "note: the rotator's results in namespace %s cannot be read: %s\n", o.stateNamespace, err)
		}
	}
}

// addReasons adds why the last runs could not rewrap an entry that does not decrypt: Vault alone knows, and status
// does not ask it about each entry.
func (v *view) addReasons() {
	type location struct{ namespace, name, entry string }
	type reason struct {
		text string
		at   time.Time
	}
	reasons := map[location]reason{}
	add := func(problems []rotator.Problem, at time.Time) {
		for _, p := range problems {
			if p.DoesNotDecrypt() {
				reasons[location{p.Namespace, p.Name, p.Entry}] = reason{p.Reason, at}
			}
		}
	}
	for _, k := range v.summary.Keys {
		add(k.Unresolved.Items, k.Finished)
	}
	if m := v.summary.Manual; m != nil {
		add(m.Problems, m.Finished)
	}
	for _, r := range v.rows {
		for _, e := range r.Entries {
			found, ok := reasons[location{r.Namespace, r.Name, e.Name}]
			if ok && r.State == inventory.Behind && !r.ChangedAfter(found.at) {
				r.Break(e.Name, "does not decrypt, as the last run found: %s", found.text)
			}
		}
	}
}

// addLastRuns adds the last nightly run of each key to the totals.
func (v *view) addLastRuns() {
	if v.summary == nil {
		return
	}
	runs := map[ciphertext.Key]*inventory.LastRun{}
	for _, k := range v.summary.Keys {
		runs[ciphertext.Key{Mount: k.Mount, Name: k.Name}] = lastRunOf(k)
	}
	for _, t := range v.totals {
		t.LastRun = runs[ciphertext.Key{Mount: t.Mount, Name: t.Name}]
	}
}

func lastRunOf(k rotator.KeySummary) *inventory.LastRun {
	run := &inventory.LastRun{Finished: k.Finished, Error: k.Error, Unresolved: k.Unresolved.Count,
		NotCovered: k.NotCovered}
	if !k.CleanSince.IsZero() {
		run.CleanSince = &k.CleanSince
	}
	if k.Retire != nil {
		run.Retirement = k.Retire.Reason
		if k.Retire.Done {
			run.RetiredTo = k.Retire.To
		}
	}
	return run
}

// writeSummary writes a line about all Secrets, and lines about the last runs, if they are known.
func (o *Options) writeSummary(v *view, now time.Time) {
	var states []string
	for _, s := range []inventory.State{inventory.Current, inventory.Behind, inventory.Broken, inventory.Unknown} {
		if n := v.count[s]; n > 0 {
			states = append(states, fmt.Sprintf("%d %s", n, s))
		}
	}
	display.Fprintf(o.Out, "\n%s: %s\n", cli.Plural(v.total, "Secret", "Secrets"), strings.Join(states, ", "))
	if v.summary == nil {
		return
	}
	ago := func(t time.Time) string { return duration.HumanDuration(now.Sub(t)) + " ago" }
	if s := v.summary; !s.Finished.IsZero() {
		display.Fprintf(o.Out, "last nightly run: %s, %s\n", ago(s.Finished), s.Result)
	}
	if m := v.summary.Manual; m != nil {
		display.Fprintf(o.Out, "last manual run: %s, %s, with %s\n", ago(m.Finished), m.Result, m.Scope)
	}
	for _, t := range v.totals {
		if r := t.LastRun; r != nil {
			for _, line := range linesOf(r) {
				display.Fprintf(o.Out, "%s/%s: %s\n", t.Mount, t.Name, line)
			}
		}
	}
}

// linesOf describes what the last run did not do for a key.
func linesOf(r *inventory.LastRun) (lines []string) {
	if r.Error != "" {
		return []string{"the nightly run failed: " + r.Error}
	}
	if r.Unresolved > 0 {
		lines = append(lines, cli.Plural(r.Unresolved, "entry was", "entries were")+" not rewrapped")
	}
	if r.NotCovered > 0 {
		lines = append(lines, cli.Plural(r.NotCovered, "entry is", "entries are")+" newer than the target, which older "+
			"backups of Vault do not have")
	}
	switch {
	case r.RetiredTo > 0:
		lines = append(lines, fmt.Sprintf("versions below %d were retired", r.RetiredTo))
	case r.Retirement != "":
		lines = append(lines, "no version was retired: "+r.Retirement)
	}
	return lines
}

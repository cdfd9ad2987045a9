package status

import (
	"cmp"
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/inventory"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// readLastRuns begins to read the rotator's ConfigMaps, while the Secrets are listed. The function that it
// returns waits for them and adds what they have of the keys. Most users may not read them, or there is no
// rotator: then the totals have nothing of it, as docs/reference/status.md says.
func (o *Options) readLastRuns(ctx context.Context, kube kubernetes.Interface) (add func([]*inventory.KeyTotal)) {
	var summary *rotator.Summary
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		summary, err = rotator.FetchSummary(ctx, kube, o.stateNamespace)
	}()
	return func(totals []*inventory.KeyTotal) {
		if len(totals) == 0 {
			return
		}
		<-done
		if err == nil {
			addLastRuns(summary, totals)
		} else if !apierrors.IsForbidden(err) {
			display.Fprintf(o.ErrOut, "note: the rotator's results in namespace %s cannot be read: %s\n", o.stateNamespace, err)
		}
	}
}

func addLastRuns(summary *rotator.Summary, totals []*inventory.KeyTotal) {
	runs := map[ciphertext.Key]*inventory.LastRun{}
	for _, k := range summary.Keys {
		runs[ciphertext.Key{Mount: k.Mount, Name: k.Name}] = lastRunOf(k)
	}
	for _, t := range totals {
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

// writeLastRuns writes a table of the rotator's last runs, if any is known.
func (o *Options) writeLastRuns(totals []*inventory.KeyTotal, now time.Time) error {
	var table flusher
	for _, t := range totals {
		if t.LastRun == nil {
			continue
		}
		if table == nil {
			table = newBufferedTable(o.Out)
			fmt.Fprintln(table, "\nKEY\tLAST-RUN\tUNRESOLVED\tNOT-COVERED\tRETIREMENT")
		}
		display.Fprintf(table, "%s/%s\t%s\t%d\t%d\t%s\n", t.Mount, t.Name,
			duration.HumanDuration(now.Sub(t.LastRun.Finished)), t.LastRun.Unresolved, t.LastRun.NotCovered,
			retirement(t.LastRun))
	}
	if table == nil {
		return nil
	}
	return table.Flush()
}

func retirement(run *inventory.LastRun) string {
	switch {
	case run.Error != "":
		return "failed: " + run.Error
	case run.RetiredTo > 0:
		return fmt.Sprintf("done, versions below %d are retired", run.RetiredTo)
	}
	return cmp.Or(run.Retirement, "disabled")
}

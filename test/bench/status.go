package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// statusRun has the durations of secretmanager status, from the start of its process to the
// end of its output.
type statusRun struct {
	Secrets int `json:"secrets"`
	// Floor is a program that only lists the Secrets (barelist), and List the list alone, by a client that exists
	// and decodes nothing.
	Floor float64 `json:"floorSeconds"`
	List  float64 `json:"listSeconds"`
	Table float64 `json:"tableSeconds"`
	JSON  float64 `json:"jsonSeconds"`
	RSS   int64   `json:"peakBytes"` // of the table
}

// status measures alternating rounds of floor and status, and returns the medians.
func (b *rotationBench) status(ctx context.Context, rounds int) (*statusRun, error) {
	r := &statusRun{Secrets: b.secrets}
	var lists, floors, tables, documents []time.Duration
	for i := range max(rounds, 3) {
		b.say("status of %d Secrets, round %d", r.Secrets, i+1)
		list, floor, err := b.bareLists(ctx)
		if err != nil {
			return nil, fmt.Errorf("the floor: %w", err)
		}
		lists, floors = append(lists, list), append(floors, floor)
		text, took, rss, err := b.runStatus(ctx)
		if err != nil {
			return nil, err
		}
		if n := bytes.Count(text, []byte("\n"+rotationKey+" ")); n != r.Secrets {
			return nil, fmt.Errorf("the table has %d Secrets", n)
		}
		tables, r.RSS = append(tables, took), max(r.RSS, rss)
		if text, took, _, err = b.runStatus(ctx, "-o", "json"); err != nil {
			return nil, err
		}
		var document struct{ Secrets []struct{ State string } }
		if err := json.Unmarshal(text, &document); err != nil || len(document.Secrets) != r.Secrets {
			return nil, fmt.Errorf("the JSON has %d Secrets: %w", len(document.Secrets), err)
		}
		for _, s := range document.Secrets {
			if s.State != "current" {
				return nil, fmt.Errorf("a Secret has the state %s", s.State)
			}
		}
		documents = append(documents, took)
	}
	r.List, r.Floor = median(lists)/1000, median(floors)/1000
	r.Table, r.JSON = median(tables)/1000, median(documents)/1000
	return r, nil
}

// runStatus runs the built program and returns its output.
func (b *rotationBench) runStatus(ctx context.Context,
	args ...string) (stdout []byte, took time.Duration, rss int64, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.dir, cliName),
		append([]string{"status", "-A", "-l", "secretmanager.io/transit-key=" + rotationKey,
			"--kubeconfig=" + b.api.Kubeconfig}, args...)...)
	cmd.Env = []string{"VAULT_ADDR=" + b.counter.URL, "VAULT_TOKEN=" + b.vault.RootToken, "HOME=" + b.dir}
	return runMeasured(cmd)
}

// budgets evaluates the budgets of docs/performance.md for status.
func (r *statusRun) budgets() []budget {
	if r == nil {
		return nil
	}
	what := fmt.Sprintf(", %d Secrets", r.Secrets)
	return []budget{
		budget{Name: "status" + what, Unit: "s", Limit: 2, Measured: r.Table, Floor: r.Floor}.evaluated(),
		budget{Name: "status -o json" + what, Unit: "s", Limit: 2, Measured: r.JSON, Floor: r.Floor}.evaluated(),
	}
}

func (r *statusRun) table(say func(string, ...any)) {
	if r == nil {
		return
	}
	say("\n%-16s %8s %8s %8s %8s %8s %8s %8s", "status", "list s", "floor s", "table s", "× floor", "json s", "× floor",
		"RSS MiB")
	say("%-16s %8.2f %8.2f %8.2f %8.2f %8.2f %8.2f %8.1f", fmt.Sprintf("%d Secrets", r.Secrets), r.List, r.Floor, r.Table,
		ratio(r.Table, r.Floor), r.JSON, ratio(r.JSON, r.Floor), float64(r.RSS)/mib)
}

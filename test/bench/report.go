package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

const (
	mib = 1 << 20
	mb  = 1e6
)

type report struct {
	Machine  machine    `json:"machine"`
	Rows     []row      `json:"mounts"`
	Requests []requests `json:"requestsPerMount"`
	// EmptyCall is the median of a call without work and concurrency.
	EmptyCall float64   `json:"emptyCallP50ms"`
	ColdMount breakdown `json:"coldMount"`
	Memory    resident  `json:"residentBytes"`
	Sizes     sizes     `json:"fileBytes"`
	// Audit has a pair of measurements for each round.
	Audit []auditPair `json:"audit,omitempty"`
	// Inline has two methods for each kind of call.
	Inline []inlineRow `json:"inline,omitempty"`
	// Admission has a pair of rotations for each round.
	Admission []admissionPair `json:"admission,omitempty"`
	// Rotations has the runs of the rotator, by number of Secrets.
	Rotations []rotation `json:"rotations,omitempty"`
	Floods    []floodRun `json:"floods,omitempty"`
	// Status is nil if it was not measured.
	Status  *statusRun `json:"status,omitempty"`
	Budgets []budget   `json:"budgets"`
}

func (r report) find(from string, entries, parallel int, kind string) row {
	for _, row := range r.Rows {
		if row.From == from && row.Entries == entries && row.Parallel == parallel && row.Kind == kind {
			return row
		}
	}
	panic(fmt.Sprintf("no measurement of %s %s with %d entries, %d concurrent", kind, from, entries, parallel))
}

// budgets evaluates the budgets of docs/performance.md.
func budgets(r report) []budget {
	var all []budget
	add := func(b budget) { all = append(all, b.evaluated()) }
	for _, from := range []string{fromKubelet, fromPod} {
		for _, entries := range entryCounts {
			what := from + ", " + count(entries)
			floor, cold := r.find(from, entries, 1, kindFloor), r.find(from, entries, 1, kindCold)
			add(budget{Name: "cold mount p50: " + what, Unit: "ms", Limit: 1.25, Measured: cold.P50, Floor: floor.P50})
			floor, cold = r.find(from, entries, 16, kindFloor), r.find(from, entries, 16, kindCold)
			add(budget{Name: "16 cold mounts at a time: " + what, Unit: "/s", Limit: 0.9, AtLeast: true,
				Measured: cold.Rate, Floor: floor.Rate})
		}
	}
	// If the Secret is read as the pod, a repeated mount sends a request to the API server.
	for _, entries := range entryCounts {
		what := fromKubelet + ", " + count(entries)
		add(budget{Name: "repeated mount p50: " + what, Unit: "ms", Limit: 0.3,
			Measured: r.find(fromKubelet, entries, 1, kindRepeat).P50})
		add(budget{Name: "repeated mounts, 16 at a time: " + what, Unit: "/s", Limit: 5000, AtLeast: true,
			Measured: r.find(fromKubelet, entries, 16, kindRepeat).Rate})
	}
	for _, n := range r.Requests {
		if n.Kind == kindRepeat && n.From == fromKubelet {
			add(budget{Name: "requests of a repeated mount", Unit: "", Limit: 0, Measured: n.Vault + n.API})
		}
	}
	add(budget{Name: "CPU of a cold mount", Unit: "ms", Limit: 1.5, Measured: r.find(fromKubelet, 1, 1, kindCold).CPU})
	add(budget{Name: "CPU of a repeated mount", Unit: "ms", Limit: 0.15,
		Measured: r.find(fromKubelet, 1, 1, kindRepeat).CPU})
	add(budget{Name: "memory at start", Unit: "MiB", Limit: 20, Measured: float64(r.Memory.Start) / mib})
	add(budget{Name: "memory after 110 pods", Unit: "MiB", Limit: 32, Measured: float64(r.Memory.Pods110) / mib})
	add(budget{Name: "provider binary", Unit: "MB", Limit: 25, Measured: float64(r.Sizes.Provider) / mb})
	add(budget{Name: "image", Unit: "MB", Limit: 60, Measured: float64(r.Sizes.Image) / mb})
	return all
}

func (r report) json(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

func (r report) table(out io.Writer) error {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("%s", r.Machine)
	if len(r.Rows) > 0 {
		r.mounts(say)
	}
	if len(r.Audit) > 0 {
		say("\n%-24s %9s %9s %8s", "audit headers", "with ms", "without", "×")
		for i, p := range r.Audit {
			say("%-24s %9.3f %9.3f %8.3f", fmt.Sprintf("pair %d", i+1), p.With, p.Without, p.ratio())
		}
	}
	inlineTable(r.Inline, say)
	if len(r.Admission) > 0 {
		say("\n%-24s %9s %9s %9s %8s %8s", "the rotator's policy", "with s", "without", "again", "×", "A/A ×")
		for i, p := range r.Admission {
			say("%-24s %9.2f %9.2f %9.2f %8.3f %8.3f", fmt.Sprintf("pair %d", i+1), p.With, p.Without, p.Again, p.ratio(),
				p.noise())
		}
	}
	if len(r.Floods) > 0 {
		say("\n%-24s %8s %8s %8s %8s %8s %8s %8s", "flood of", "per s", "% OK", "mounts", "p50 ms", "p99 ms", "CPU %",
			"RSS MiB")
		for _, f := range r.Floods {
			say("%-24s %8.0f %8.1f %8d %8.2f %8.2f %8.1f %8.1f", f.Port, f.PerSecond, 100*f.OK, f.Mounts, f.P50, f.P99,
				100*f.CPU, float64(f.RSS)/mib)
		}
	}
	if len(r.Rotations) > 0 {
		say("\n%-16s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s", "rotation", "floor s", "(list s)", "run s", "× floor",
			"per s", "RSS MiB", "Vault", "idle s", "floor s", "(list s)", "Vault", "retire s")
		for _, n := range r.Rotations {
			say("%-16s %8.1f %8.2f %8.1f %8.2f %8.0f %8.1f %8d %8.2f %8.2f %8.2f %8d %8.2f",
				fmt.Sprintf("%d Secrets", n.Secrets), n.Floor, n.List, n.Run,
				ratio(n.Run, n.Floor), ratio(float64(n.Secrets), n.Run), float64(n.RSS)/mib, n.Vault, n.Idle,
				n.IdleFloor, n.IdleList, n.IdleVault, n.Retire)
		}
	}
	r.Status.table(say)
	say("\n%-50s %14s %9s %9s %8s", "budget", "limit", "measured", "floor", "× floor")
	for _, budget := range r.Budgets {
		say("%s", budget.line())
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// mounts prints the provider's part of the table.
func (r report) mounts(say func(string, ...any)) {
	say("\n%-10s %7s %7s  %-6s %7s %8s %8s %8s %8s %7s", "ciphertext", "entries", "at once", "", "per s", "p50 ms",
		"p95 ms", "p99 ms", "CPU ms", "count")
	for _, row := range r.Rows {
		cpu := ""
		if row.Kind != kindFloor {
			cpu = fmt.Sprintf("%.2f", row.CPU)
		}
		say("%-10s %7d %7d  %-6s %7.0f %8.2f %8.2f %8.2f %8s %7d",
			row.From, row.Entries, row.Parallel, row.Kind, row.Rate, row.P50, row.P95, row.P99, cpu, row.Count)
	}
	say("an empty call of the provider, for comparison: p50 %.2f ms", r.EmptyCall)
	r.ColdMount.table(say)
	say("\n%-24s %8s %12s", "requests of a mount", "Vault", "API server")
	for _, n := range r.Requests {
		say("%-24s %8.2f %12.2f", n.From+", "+n.Kind, n.Vault, n.API)
	}
	say("\n%-24s %8s", "resident memory", "MiB")
	say("%-24s %8.1f\n%-24s %8.1f\n%-24s %8.1f", "at start", float64(r.Memory.Start)/mib,
		"after 110 pods", float64(r.Memory.Pods110)/mib, "after 1,000 pods", float64(r.Memory.Pods1k)/mib)
	say("\n%-24s %8s", "files", "MB")
	say("%-24s %8.1f\n%-24s %8.1f\n%-24s %8.1f", "provider", float64(r.Sizes.Provider)/mb,
		"rotator", float64(r.Sizes.Rotator)/mb, "image", float64(r.Sizes.Image)/mb)
}

// line returns the budget's line of the table.
func (b budget) line() string {
	sign, verdict := "≤", "MISSED"
	if b.AtLeast {
		sign = "≥"
	}
	if b.Met {
		verdict = "met"
	}
	limit, floor, share := fmt.Sprintf("%s %g %s", sign, b.Limit, b.Unit), "", ""
	if b.Floor != 0 {
		limit = fmt.Sprintf("%s %g × floor", sign, b.Limit)
		floor, share = number(b.Floor), fmt.Sprintf("%.2f", b.Ratio)
	}
	return fmt.Sprintf("%-50s %14s %9s %9s %8s  %s", b.Name, strings.TrimSpace(limit), number(b.Measured), floor, share,
		verdict)
}

func count(entries int) string {
	if entries == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", entries)
}

// number formats a number with three significant digits.
func number(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

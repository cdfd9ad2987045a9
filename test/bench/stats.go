package main

import (
	"math"
	"slices"
	"time"
)

// percentile returns the smallest value that is not exceeded by p percent of all values (the nearest rank). The values
// must be sorted. Without values, it returns 0.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// ratio returns a/b, or 0 if b is 0.
func ratio(a, b float64) float64 {
	if b == 0 || math.IsNaN(a) || math.IsNaN(b) {
		return 0
	}
	return a / b
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// A row has the results of a cell.
type row struct {
	*cell
	Count int     `json:"count"`
	Rate  float64 `json:"perSecond"`
	P50   float64 `json:"p50ms"`
	P95   float64 `json:"p95ms"`
	P99   float64 `json:"p99ms"`
	// CPU is the CPU time of the provider for each mount. It has no meaning for the floor.
	CPU float64 `json:"cpuMs"`
}

func (c *cell) row() row {
	sorted := slices.Sorted(slices.Values(c.latencies))
	n := float64(len(sorted))
	r := row{
		cell: c, Count: len(sorted), Rate: ratio(n, c.wall.Seconds()),
		P50: milliseconds(percentile(sorted, 50)), P95: milliseconds(percentile(sorted, 95)),
		P99: milliseconds(percentile(sorted, 99)),
	}
	if c.Kind != kindFloor {
		r.CPU = ratio(milliseconds(c.cpu), n)
	}
	return r
}

// A budget is a budget of docs/performance.md and its result.
type budget struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Limit applies to Measured, or to Ratio if there is a Floor.
	Limit    float64 `json:"limit"`
	AtLeast  bool    `json:"atLeast"` // the limit is a minimum
	Measured float64 `json:"measured"`
	Floor    float64 `json:"floor,omitempty"`
	Ratio    float64 `json:"ratio,omitempty"` // Measured divided by Floor
	Met      bool    `json:"met"`
}

// evaluated returns the budget with its result.
func (b budget) evaluated() budget {
	value := b.Measured
	if b.Floor != 0 {
		b.Ratio = ratio(b.Measured, b.Floor)
		value = b.Ratio
	}
	b.Met = value <= b.Limit
	if b.AtLeast {
		b.Met = value >= b.Limit
	}
	return b
}

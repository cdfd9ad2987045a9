package main

import (
	"math"
	"slices"
	"time"
)

// percentile returns the smallest value that p percent of all are not above (the
// nearest rank). The values are sorted; it is 0 if there are none.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// ratio is a/b, and 0 where that is no number.
func ratio(a, b float64) float64 {
	if b == 0 || math.IsNaN(a) || math.IsNaN(b) {
		return 0
	}
	return a / b
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// A row is a cell in figures.
type row struct {
	*cell
	Count int     `json:"count"`
	Rate  float64 `json:"perSecond"`
	P50   float64 `json:"p50ms"`
	P95   float64 `json:"p95ms"`
	P99   float64 `json:"p99ms"`
	// CPU is the provider's, for each mount; of no meaning for the floor.
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

// A budget is one of DESIGN's, and what came out.
type budget struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Limit is of Measured, or of Ratio where there is a Floor.
	Limit    float64 `json:"limit"`
	AtLeast  bool    `json:"atLeast"` // the limit is a lower one
	Measured float64 `json:"measured"`
	Floor    float64 `json:"floor,omitempty"`
	Ratio    float64 `json:"ratio,omitempty"` // measured to floor
	Met      bool    `json:"met"`
}

// evaluated says whether the budget is met.
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

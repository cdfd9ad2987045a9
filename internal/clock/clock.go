// Package clock measures the age of cached data on a machine with unreliable clocks. The wall clock jumps when it is
// set. The monotonic clock, which package time compares by, stops while the machine is suspended. Data with a maximum
// age is compared by both clocks.
package clock

import "time"

// Reading is a reading of both clocks.
type Reading struct {
	Wall time.Time // without a monotonic part
	Mono time.Duration
}

var start = time.Now()

// Now reads both clocks.
func Now() Reading {
	now := time.Now()
	return Reading{now.Round(0), now.Sub(start)}
}

// Since returns the longer of the times that the two clocks measured since then. So data can expire too early, when the
// wall clock is set forward, but never too late.
func (r Reading) Since(then Reading) time.Duration {
	return max(r.Wall.Sub(then.Wall), r.Mono-then.Mono)
}

// Add returns the reading after both clocks have advanced by d.
func (r Reading) Add(d time.Duration) Reading {
	return Reading{r.Wall.Add(d), r.Mono + d}
}

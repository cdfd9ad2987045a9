// Package clock tells how old a thing in memory is on a machine whose clocks
// cannot be relied on. The wall clock jumps when somebody sets it; the
// monotonic one, which package time compares by, stands still while the machine
// is suspended. What must not grow older than it may goes by both.
package clock

import "time"

// Reading is a moment by both clocks.
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

// Since returns the time since then by the clock that says more: a wall clock
// set forward makes things old too soon, and none makes them old too late.
func (r Reading) Since(then Reading) time.Duration {
	return max(r.Wall.Sub(then.Wall), r.Mono-then.Mono)
}

// Add returns the moment after d has passed on both clocks.
func (r Reading) Add(d time.Duration) Reading {
	return Reading{r.Wall.Add(d), r.Mono + d}
}

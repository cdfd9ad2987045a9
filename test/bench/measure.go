package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// The kinds of calls, and the sources of ciphertext.
const (
	kindFloor  = "floor"
	kindCold   = "cold"
	kindRepeat = "repeat"

	fromKubelet = "kubelet" // the request has the ciphertext
	fromPod     = "as pod"  // the provider reads it from the API server
)

var (
	entryCounts = []int{1, 20}
	parallels   = []int{1, 16}
)

// roundTime bounds one round of one measurement.
const roundTime = time.Second

// coldCalls returns the number of cold mounts in a round.
func coldCalls(from string, parallel int) int {
	n := 150
	if from == fromPod {
		n = 60 // creating the pod and its token takes longer than the mount
	}
	if parallel > 1 {
		n = n * 5 / 2
	}
	return n
}

// A cell is one line of the table: the source of the ciphertext, the number of entries and
// of concurrent mounts, and the kind of call.
type cell struct {
	From     string `json:"from"`
	Entries  int    `json:"entries"`
	Parallel int    `json:"parallel"`
	Kind     string `json:"kind"`

	samples
	repeats []call // of the pods that repeat, one for each worker
}

// samples has the measurements of one or more rounds.
type samples struct {
	latencies []time.Duration
	wall, cpu time.Duration
}

func (s *samples) add(more samples) {
	s.latencies = append(s.latencies, more.latencies...)
	s.wall += more.wall
	s.cpu += more.cpu
}

func allCells() []*cell {
	var cells []*cell
	for _, from := range []string{fromKubelet, fromPod} {
		for _, entries := range entryCounts {
			for _, parallel := range parallels {
				for _, kind := range []string{kindFloor, kindCold, kindRepeat} {
					cells = append(cells, &cell{From: from, Entries: entries, Parallel: parallel, Kind: kind})
				}
			}
		}
	}
	return cells
}

// measure executes the rounds.
func measure(ctx context.Context, e *environment, dir string, o options,
	say func(string, ...any)) (cells []*cell, parts breakdown, err error) {
	p, err := startProvider(ctx, dir, "measured", e.vault.Address, e.api.Kubeconfig)
	if err != nil {
		return nil, parts, err
	}
	defer func() { err = errors.Join(p.explain(err), p.stop()) }()
	f, err := newFloor(e)
	if err != nil {
		return nil, parts, err
	}
	defer f.close()
	cells = allCells()
	// Warm up connections and caches.
	for _, c := range cells {
		if c.Parallel > 1 && c.Kind != kindRepeat {
			if _, err := c.round(ctx, e, f, p, 2*c.Parallel); err != nil {
				return nil, parts, err
			}
		}
	}
	began := time.Now()
	for round := range o.rounds {
		if used := time.Since(began); round > 0 && used+used/time.Duration(round) > o.limit {
			say("stopping after %d rounds: another one would exceed %s", round, o.limit)
			break
		}
		for i := range cells {
			if c := cells[i]; i%6 == 0 {
				say("round %d of %d: %s, %s", round+1, o.rounds, c.From, count(c.Entries))
			}
			// The floor first in one round, the provider first in the next.
			if group := i / 3 * 3; round%2 == 1 && i%3 < 2 {
				i = group + 1 - i%3
			}
			c := cells[i]
			s, err := c.round(ctx, e, f, p, coldCalls(c.From, c.Parallel))
			if err != nil {
				return nil, parts, fmt.Errorf("%s, %s, %d entries, %d concurrent: %w", c.Kind, c.From, c.Entries, c.Parallel, err)
			}
			c.add(s)
		}
	}
	say("the parts of a cold mount")
	parts, err = measureBreakdown(ctx, e, f, p)
	return cells, parts, err
}

// round prepares calls, and measures them.
func (c *cell) round(ctx context.Context, e *environment, f *floor, p *provider, cold int) (samples, error) {
	v := e.volumes[c.Entries]
	if c.Kind == kindRepeat {
		if c.repeats == nil {
			var err error
			if c.repeats, err = c.calls(ctx, e, f, p, v, c.Parallel); err != nil {
				return samples{}, err
			}
			for _, first := range c.repeats {
				if err := first(ctx); err != nil {
					return samples{}, err
				}
			}
		}
		return runWorkers(ctx, p, c.Parallel, func(worker int) call { return c.repeats[worker] })
	}
	calls, err := c.calls(ctx, e, f, p, v, cold)
	if err != nil {
		return samples{}, err
	}
	var used atomic.Int64
	return runWorkers(ctx, p, c.Parallel, func(int) call {
		if n := int(used.Add(1)); n <= len(calls) {
			return calls[n-1]
		}
		return nil
	})
}

// calls returns n calls, each for a new pod.
func (c *cell) calls(ctx context.Context, e *environment, f *floor, p *provider, v *volume, n int) ([]call, error) {
	pods, err := e.newPods(ctx, n, c.From == fromPod)
	if err != nil {
		return nil, err
	}
	calls := make([]call, n)
	for i, pod := range pods {
		if c.Kind == kindFloor {
			calls[i] = f.requests(v, pod)
		} else if calls[i], err = p.mount(v, pod); err != nil {
			return nil, err
		}
	}
	return calls, nil
}

// runWorkers has workers make calls until next returns nil or roundTime is over. It stops
// at the first error.
func runWorkers(ctx context.Context, p *provider, workers int, next func(worker int) call) (s samples, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cpu, err := p.cpu()
	if err != nil {
		return s, err
	}
	results := make([][]time.Duration, workers)
	var done sync.WaitGroup
	began := time.Now()
	for worker := range workers {
		done.Go(func() {
			for ctx.Err() == nil && time.Since(began) < roundTime {
				call := next(worker)
				if call == nil {
					return
				}
				start := time.Now()
				if err := call(ctx); err != nil {
					cancel(err)
					return
				}
				results[worker] = append(results[worker], time.Since(start))
			}
		})
	}
	done.Wait()
	s.wall = time.Since(began)
	if ctx.Err() != nil {
		return s, context.Cause(ctx)
	}
	after, err := p.cpu()
	s.cpu = after - cpu
	for _, result := range results {
		s.latencies = append(s.latencies, result...)
	}
	return s, err
}

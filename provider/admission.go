package provider

import (
	"context"
	"errors"
	"math"
	"runtime/debug"
	"slices"
	"sync"
)

// defaultMemory is assumed where there is no GOMEMLIMIT: that of the DaemonSet.
const defaultMemory = 216 << 20

// baseMemory is what the process has without a mount: its own, what requests take
// while they are received, and short requests that wait.
const baseMemory = 48 << 20

// minMemory is enough for one mount at a time of the most expensive kind.
const minMemory = 64 << 20

// mountMemory returns how many bytes mounts may hold together: what is left of
// GOMEMLIMIT without the republish cache, which has a limit of its own.
func mountMemory(republishCacheBytes int64) int64 {
	limit := debug.SetMemoryLimit(-1) // which only reads it
	if limit == math.MaxInt64 {
		limit = defaultMemory + max(0, republishCacheBytes-DefaultRepublishCacheBytes)
	}
	return max(limit-republishCacheBytes-baseMemory, minMemory)
}

// errCrowded is that of a mount for which there is not even room to wait.
var errCrowded = errors.New("too many large mounts of the namespace wait on this node")

// admission gives out bytes of memory, fairly across namespaces.
//
// No namespace gets more than is left for the others: one that holds something
// already gets more only while that is no more than what is free. So one namespace
// alone holds half, two hold a third each, and something is always free for the
// next. Large requests leave an eighth to the small ones. Who has to wait does so in
// the namespace's queue, and the queues take turns.
type admission struct {
	capacity int64
	// maxWaiting bounds the bytes that those who wait hold already.
	maxWaiting int64

	mu      sync.Mutex
	free    int64
	waiting int64
	held    map[string]int64 // by namespace
	queues  map[string][]*waiter
	turns   []string // namespaces with a queue, the next one first
}

type waiter struct {
	n     int64
	ready chan struct{} // closed when it has its bytes
}

func newAdmission(capacity, maxWaiting int64) *admission {
	return &admission{
		capacity: capacity, maxWaiting: maxWaiting, free: capacity,
		held: map[string]int64{}, queues: map[string][]*waiter{},
	}
}

// smallHold is what may wait although there is no more room for those who wait, as
// it is too little to matter.
const smallHold = 16 << 10

// acquire waits for n bytes, and no longer than the context lasts. What the caller
// holds outside of the admission while it waits is held. The grant is not nil where
// the error is.
func (a *admission) acquire(ctx context.Context, namespace string, n, held int64) (*grant, error) {
	n = max(min(n, a.capacity-a.capacity/8), 1)
	a.mu.Lock()
	if len(a.queues[namespace]) == 0 && a.fits(namespace, n) {
		a.take(namespace, n)
		a.mu.Unlock()
		return &grant{a: a, namespace: namespace, n: n}, nil
	}
	if held > smallHold && a.waiting+held > a.maxWaiting {
		a.mu.Unlock()
		return nil, errCrowded
	}
	w := &waiter{n: n, ready: make(chan struct{})}
	a.waiting += held
	if len(a.queues[namespace]) == 0 {
		a.turns = append(a.turns, namespace)
	}
	a.queues[namespace] = append(a.queues[namespace], w)
	a.mu.Unlock()

	var err error
	select {
	case <-w.ready:
	case <-ctx.Done():
		err = ctx.Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting -= held
	if err != nil {
		select {
		case <-w.ready: // at the same moment
			a.give(namespace, n)
		default:
			a.remove(namespace, slices.Index(a.queues[namespace], w))
		}
		a.serve() // what waited behind it
		return nil, err
	}
	return &grant{a: a, namespace: namespace, n: n}, nil
}

// fits reports whether a namespace may have n bytes now; a.mu is held, as in all
// that follow.
func (a *admission) fits(namespace string, n int64) bool {
	room := a.free
	if n > a.capacity/64 {
		room -= a.capacity / 8
	}
	held := a.held[namespace]
	return n <= room && (held == 0 || held+n <= a.free)
}

func (a *admission) take(namespace string, n int64) {
	a.free -= n
	a.held[namespace] += n
}

func (a *admission) give(namespace string, n int64) {
	a.free += n
	if a.held[namespace] -= n; a.held[namespace] == 0 {
		delete(a.held, namespace)
	}
}

// serve gives bytes to those who wait, one of each namespace in turn.
func (a *admission) serve() {
	for served := true; served; {
		served = false
		for _, namespace := range slices.Clone(a.turns) {
			w := a.queues[namespace][0]
			if !a.fits(namespace, w.n) {
				continue
			}
			a.take(namespace, w.n)
			a.remove(namespace, 0)
			close(w.ready)
			served = true
		}
	}
}

// remove takes a waiter out of the queue of a namespace, whose next turn comes
// after those of all others.
func (a *admission) remove(namespace string, i int) {
	a.queues[namespace] = slices.Delete(a.queues[namespace], i, i+1)
	a.turns = slices.DeleteFunc(a.turns, func(other string) bool { return other == namespace })
	if len(a.queues[namespace]) == 0 {
		delete(a.queues, namespace)
		return
	}
	a.turns = append(a.turns, namespace)
}

// grant is bytes that a mount holds. A nil grant holds none.
type grant struct {
	a         *admission
	namespace string
	n         int64
}

// shrink gives back all but n bytes.
func (g *grant) shrink(n int64) {
	if g == nil || n >= g.n {
		return
	}
	g.a.mu.Lock()
	defer g.a.mu.Unlock()
	g.a.give(g.namespace, g.n-n)
	g.n = n
	g.a.serve()
}

func (g *grant) release() { g.shrink(0) }

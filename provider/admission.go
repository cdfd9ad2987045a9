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

// errCrowded is the error of a mount for which there is not even room to wait.
var errCrowded = errors.New("too many large mounts wait on this node")

// admission gives out bytes of memory, fairly across namespaces.
//
// No namespace gets more than is left for the others: one that holds something
// already gets more only while that is no more than what is free. So one namespace
// alone holds half, two hold a third each, and something is always free for the
// next. Large requests leave an eighth to the small ones. Who has to wait does so in
// the namespace's queue, and the queues take turns. A namespace that holds nothing is
// not overtaken when its turn comes, except by small requests in their eighth, or of a
// namespace that holds nothing either: so a large request gets its bytes once those
// have ended that were there before it.
type admission struct {
	capacity int64
	// maxWaiting bounds the bytes that those who wait hold already, and is shared among
	// namespaces by the same rule.
	maxWaiting int64

	mu        sync.Mutex
	free      int64
	small     int64 // given to small requests
	waiting   int64
	waitingOf map[string]int64 // waiting, by namespace
	held      map[string]int64 // by namespace
	queues    map[string][]*waiter
	turns     []string // namespaces with a queue, the next one first
}

type waiter struct {
	n     int64
	ready chan struct{} // closed when it has its bytes
}

// isSmall reports whether a request for n bytes is a small one.
func (a *admission) isSmall(n int64) bool { return n <= a.capacity/64 }

func newAdmission(capacity, maxWaiting int64) *admission {
	return &admission{
		capacity: capacity, maxWaiting: maxWaiting, free: capacity,
		waitingOf: map[string]int64{}, held: map[string]int64{}, queues: map[string][]*waiter{},
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
		return a.grant(namespace, n), nil
	}
	if held > smallHold && !a.mayWait(namespace, held) {
		a.mu.Unlock()
		return nil, errCrowded
	}
	w := &waiter{n: n, ready: make(chan struct{})}
	a.wait(namespace, held)
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
	a.wait(namespace, -held)
	if err != nil {
		select {
		case <-w.ready: // at the same moment
			a.give(namespace, n, a.isSmall(n))
		default:
			a.remove(namespace, slices.Index(a.queues[namespace], w))
		}
		a.serve() // what waited behind it
		return nil, err
	}
	return a.grant(namespace, n), nil
}

func (a *admission) grant(namespace string, n int64) *grant {
	return &grant{a: a, namespace: namespace, n: n, small: a.isSmall(n)}
}

// mayWait reports whether there is room for a request that holds so many bytes while it
// waits; a.mu is held, as in all that follow. A namespace that waits already gets more
// room only while as much is left for the others.
func (a *admission) mayWait(namespace string, held int64) bool {
	room, waits := a.maxWaiting-a.waiting, a.waitingOf[namespace]
	return held <= room && (waits == 0 || waits+held <= room)
}

func (a *admission) wait(namespace string, held int64) {
	a.waiting += held
	if a.waitingOf[namespace] += held; a.waitingOf[namespace] == 0 {
		delete(a.waitingOf, namespace)
	}
}

// fits reports whether a namespace may have n bytes now.
func (a *admission) fits(namespace string, n int64) bool {
	room, eighth, held := a.free, a.capacity/8-a.small, a.held[namespace]
	first := a.first()
	switch overtakes := first != "" && first != namespace; {
	case !a.isSmall(n) && overtakes:
		return false
	case !a.isSmall(n):
		room -= max(eighth, 0)
	case overtakes && held > 0:
		room = min(room, eighth)
	}
	return n <= room && (held == 0 || held+n <= a.free)
}

// first returns the namespace that must not be overtaken: the next one that waits
// and holds nothing; empty for none.
func (a *admission) first() string {
	for _, namespace := range a.turns {
		if a.held[namespace] == 0 {
			return namespace
		}
	}
	return ""
}

func (a *admission) take(namespace string, n int64) {
	a.free -= n
	a.held[namespace] += n
	if a.isSmall(n) {
		a.small += n
	}
}

// give takes back n bytes of a request.
func (a *admission) give(namespace string, n int64, small bool) {
	a.free += n
	if small {
		a.small -= n
	}
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
	small     bool // when it was given
}

// shrink gives back all but n bytes.
func (g *grant) shrink(n int64) {
	if g == nil || n >= g.n {
		return
	}
	g.a.mu.Lock()
	defer g.a.mu.Unlock()
	g.a.give(g.namespace, g.n-n, g.small)
	g.n = n
	g.a.serve()
}

func (g *grant) release() { g.shrink(0) }

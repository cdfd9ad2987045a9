// Package quota shares bytes of memory fairly among namespaces.
package quota

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// ErrNoRoom means that too many bytes of other requests already wait.
var ErrNoRoom = errors.New("too many large mounts wait on this node")

// Pool grants bytes of memory, and shares them fairly among namespaces. It is safe for concurrent use.
//
// A namespace that holds bytes gets more only if its new total is no more than what was free before. So one namespace
// alone holds half, two hold a third each, and some bytes are always free for the next. Large requests leave an eighth
// of the bytes to small requests. A request waits in the queue of its namespace, and the queues take turns. No other
// request overtakes the next namespace that holds nothing, except a small request in its eighth, or one of a namespace
// that also holds nothing. So a large request gets its bytes after the requests before it have ended.
type Pool struct {
	capacity int64
	// maxWaiting bounds the bytes that waiting requests hold elsewhere. Namespaces share it by the same rule.
	maxWaiting int64

	mu        sync.Mutex
	free      int64
	small     int64            // given to small requests
	waiting   int64            // held elsewhere by waiting requests
	waitingOf map[string]int64 // the same, by namespace
	held      map[string]int64 // by namespace
	queues    map[string][]*waiter
	turns     []string // namespaces with a queue, the next one first
}

type waiter struct {
	n     int64
	ready chan struct{} // closed when the bytes are granted
}

// isSmall reports whether a request for n bytes is small.
func (p *Pool) isSmall(n int64) bool { return n <= p.capacity/64 }

// New returns a pool of that many bytes. Waiting requests may hold maxWaiting bytes elsewhere.
func New(capacity, maxWaiting int64) *Pool {
	return &Pool{
		capacity: capacity, maxWaiting: maxWaiting, free: capacity,
		waitingOf: map[string]int64{}, held: map[string]int64{}, queues: map[string][]*waiter{},
	}
}

// smallHold is the size in bytes of a request that may always wait.
const smallHold = 16 << 10

// Acquire waits for n bytes until the context ends. The caller holds held bytes elsewhere meanwhile. It grants at most
// seven eighths of the pool. The error is that of the context, or [ErrNoRoom].
func (p *Pool) Acquire(ctx context.Context, namespace string, n, held int64) (*Grant, error) {
	n = max(min(n, p.capacity-p.capacity/8), 1)
	p.mu.Lock()
	if len(p.queues[namespace]) == 0 && p.fits(namespace, n) {
		p.take(namespace, n)
		p.mu.Unlock()
		return p.grant(namespace, n), nil
	}
	if held > smallHold && !p.mayWait(namespace, held) {
		p.mu.Unlock()
		return nil, ErrNoRoom
	}
	w := &waiter{n: n, ready: make(chan struct{})}
	p.addWaiting(namespace, held)
	if len(p.queues[namespace]) == 0 {
		p.turns = append(p.turns, namespace)
	}
	p.queues[namespace] = append(p.queues[namespace], w)
	p.mu.Unlock()

	var err error
	select {
	case <-w.ready:
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addWaiting(namespace, -held)
	if err != nil {
		select {
		case <-w.ready: // granted concurrently
			p.refund(namespace, n, p.isSmall(n))
		default:
			p.remove(namespace, slices.Index(p.queues[namespace], w))
		}
		p.serve() // later requests of the queue may fit
		return nil, err
	}
	return p.grant(namespace, n), nil
}

func (p *Pool) grant(namespace string, n int64) *Grant {
	return &Grant{pool: p, namespace: namespace, n: n, small: p.isSmall(n)}
}

// mayWait reports whether a request that holds that many bytes elsewhere may wait; p.mu is held, as in all methods
// below. A namespace that already waits gets more room only if it then has no more than is left for others.
func (p *Pool) mayWait(namespace string, held int64) bool {
	room, waits := p.maxWaiting-p.waiting, p.waitingOf[namespace]
	return held <= room && (waits == 0 || waits+held <= room)
}

func (p *Pool) addWaiting(namespace string, held int64) {
	p.waiting += held
	if p.waitingOf[namespace] += held; p.waitingOf[namespace] == 0 {
		delete(p.waitingOf, namespace)
	}
}

// fits reports whether a namespace may have n bytes now.
func (p *Pool) fits(namespace string, n int64) bool {
	room, eighth, held := p.free, p.capacity/8-p.small, p.held[namespace]
	first := p.first()
	switch overtakes := first != "" && first != namespace; {
	case !p.isSmall(n) && overtakes:
		return false
	case !p.isSmall(n):
		room -= max(eighth, 0)
	case overtakes && held > 0:
		room = min(room, eighth)
	}
	return n <= room && (held == 0 || held+n <= p.free)
}

// first returns the namespace that must not be overtaken: the next one that waits and holds nothing; empty if there is
// none.
func (p *Pool) first() string {
	for _, namespace := range p.turns {
		if p.held[namespace] == 0 {
			return namespace
		}
	}
	return ""
}

func (p *Pool) take(namespace string, n int64) {
	p.free -= n
	p.held[namespace] += n
	if p.isSmall(n) {
		p.small += n
	}
}

// refund returns n bytes of a request to the pool.
func (p *Pool) refund(namespace string, n int64, small bool) {
	p.free += n
	if small {
		p.small -= n
	}
	if p.held[namespace] -= n; p.held[namespace] == 0 {
		delete(p.held, namespace)
	}
}

// serve grants bytes to waiting requests, one of each namespace in turn.
func (p *Pool) serve() {
	for served := true; served; {
		served = false
		for _, namespace := range slices.Clone(p.turns) {
			w := p.queues[namespace][0]
			if !p.fits(namespace, w.n) {
				continue
			}
			p.take(namespace, w.n)
			p.remove(namespace, 0)
			close(w.ready)
			served = true
		}
	}
}

// remove removes a waiter from the queue of a namespace. The next turn of the namespace comes after those of all
// others.
func (p *Pool) remove(namespace string, i int) {
	p.queues[namespace] = slices.Delete(p.queues[namespace], i, i+1)
	p.turns = slices.DeleteFunc(p.turns, func(other string) bool { return other == namespace })
	if len(p.queues[namespace]) == 0 {
		delete(p.queues, namespace)
		return
	}
	p.turns = append(p.turns, namespace)
}

// Grant is bytes that a request holds. A nil grant holds none.
type Grant struct {
	pool      *Pool
	namespace string
	n         int64
	small     bool // when it was granted
}

// Shrink releases all but n bytes.
func (g *Grant) Shrink(n int64) {
	if g == nil || n >= g.n {
		return
	}
	g.pool.mu.Lock()
	defer g.pool.mu.Unlock()
	g.pool.refund(g.namespace, g.n-n, g.small)
	g.n = n
	g.pool.serve()
}

// Release releases all bytes. It may be called more than once.
func (g *Grant) Release() { g.Shrink(0) }

// Size returns the bytes of the grant.
func (g *Grant) Size() int64 {
	if g == nil {
		return 0
	}
	return g.n
}

// State is a snapshot of a pool, in bytes.
type State struct {
	Capacity, Free      int64
	MaxWaiting, Waiting int64 // limit and sum of the bytes that waiting requests hold elsewhere
	Waiters             int   // number of waiting requests
}

// State returns the state of the pool.
func (p *Pool) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := State{Capacity: p.capacity, Free: p.free, MaxWaiting: p.maxWaiting, Waiting: p.waiting}
	for _, queue := range p.queues {
		s.Waiters += len(queue)
	}
	return s
}

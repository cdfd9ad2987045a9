package quota

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// waits returns the number of waiting calls.
func (p *Pool) waits() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, queue := range p.queues {
		n += len(queue)
	}
	return n
}

func (p *Pool) must(t *testing.T, namespace string, n int64) *Grant {
	t.Helper()
	g, err := p.Acquire(t.Context(), namespace, n, 0)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// later acquires in the background, and returns once the call waits.
func (p *Pool) later(t *testing.T, namespace string, n int64) chan *Grant {
	t.Helper()
	before, got := p.waits(), make(chan *Grant, 1)
	go func() {
		if g, err := p.Acquire(t.Context(), namespace, n, 0); err == nil {
			got <- g
		}
	}()
	for p.waits() == before {
		if len(got) > 0 {
			t.Fatalf("%d bytes for %s did not wait", n, namespace)
		}
		time.Sleep(time.Millisecond)
	}
	return got
}

// TestPoolIsFair verifies that a namespace gets half of the capacity, that the next one gets its
// share immediately, and that waiting ones take turns whatever the length of their queues.
func TestPoolIsFair(t *testing.T) {
	a := New(6400, 0)
	var mallory []*Grant
	for range 32 {
		mallory = append(mallory, a.must(t, "mallory", 100))
	}
	var queue []chan *Grant
	for range 5 {
		queue = append(queue, a.later(t, "mallory", 100))
	}
	// Others do not wait while their share is free.
	for _, namespace := range []string{"alice", "bob", "alice", "carol"} {
		a.must(t, namespace, 500).Release()
	}
	bob := a.must(t, "bob", 2400) // the maximum that leaves an eighth for small requests
	alice := a.later(t, "alice", 1000)
	carol := a.must(t, "carol", 100) // a small request
	mallory[0].Release()
	if a.waits() != 6 {
		t.Errorf("%d wait: mallory got more than is free", a.waits())
	}
	bob.Release()
	(<-alice).Release()
	carol.Release()
	// In turns, in order.
	for i, got := range queue {
		select {
		case g := <-got:
			mallory = append(mallory, g)
		case <-time.After(50 * time.Millisecond):
			mallory[i+1].Release()
			mallory = append(mallory, <-got)
		}
	}
	for _, g := range mallory {
		g.Release()
	}
	if a.free != a.capacity || len(a.held)+len(a.queues)+len(a.turns) > 0 {
		t.Errorf("%d of %d bytes are free; %v %v %v", a.free, a.capacity, a.held, a.queues, a.turns)
	}
}

// TestPoolTakesTurns verifies that each of two waiting namespaces gets every other grant.
func TestPoolTakesTurns(t *testing.T) {
	a := New(800, 0)
	all := a.must(t, "other", 700)
	var mu sync.Mutex
	var order []string
	var done sync.WaitGroup
	for i := range 8 {
		namespace := []string{"long", "long", "long", "long", "long", "long", "short", "short"}[i]
		before := a.waits()
		done.Go(func() {
			g, err := a.Acquire(t.Context(), namespace, 500, 0)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, namespace)
			mu.Unlock()
			g.Release()
		})
		for a.waits() == before {
			time.Sleep(time.Millisecond)
		}
	}
	all.Release()
	done.Wait()
	if got := fmt.Sprint(order[:4]); got != "[long short long short]" {
		t.Errorf("order %s", order)
	}
}

// TestPoolOfTheLargest verifies that a request for nearly everything is granted when the earlier
// grants are released, without waiting until other namespaces request nothing.
func TestPoolOfTheLargest(t *testing.T) {
	a := New(6400, 0)
	// Small requests do not delay it.
	small := a.must(t, "mallory", 100)
	a.must(t, "bob", math.MaxInt64).Release()

	first := a.must(t, "mallory", 1000)
	bob := a.later(t, "bob", math.MaxInt64)
	// Mounts that overlap without end do not delay it.
	next := a.later(t, "mallory", 1000)
	// A namespace that holds nothing cannot overtake it either, except with small requests.
	carol := a.later(t, "carol", 1000)
	a.must(t, "dave", 100).Release()
	first.Release()
	g := <-bob
	if len(next)+len(carol) > 0 {
		t.Error("overtaken")
	}
	g.Release()
	(<-next).Release()
	(<-carol).Release()

	// Small requests beyond their eighth do delay it, but no more of them are granted.
	var more []*Grant
	for range 8 {
		more = append(more, a.must(t, "mallory", 100))
	}
	bob = a.later(t, "bob", math.MaxInt64)
	wanted := a.later(t, "mallory", 100)
	a.must(t, "dave", 100).Release()
	small.Release()
	(<-bob).Release()
	(<-wanted).Release()
	for _, g := range more {
		g.Release()
	}
	if a.free != a.capacity || a.small != 0 || len(a.held)+len(a.queues)+len(a.turns) > 0 {
		t.Errorf("%d of %d bytes are free, %d small; %v %v %v", a.free, a.capacity, a.small, a.held, a.queues, a.turns)
	}
}

// TestPoolLimits verifies that a request beyond the capacity gets all of it, that a request fails
// if the queue is full, and that a canceled request leaves nothing behind.
func TestPoolLimits(t *testing.T) {
	a := New(8<<20, 1<<20)
	g := a.must(t, "one", math.MaxInt64)
	if g.n != 7<<20 {
		t.Errorf("got %d bytes", g.n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := a.Acquire(ctx, "two", 4<<20, 1<<20)
		first <- err
	}()
	for a.waits() == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := a.Acquire(t.Context(), "two", 4<<20, smallHold+1); !errors.Is(err, ErrNoRoom) {
		t.Errorf("got %v", err)
	}
	// A request that holds little elsewhere may always wait.
	small := a.later(t, "two", 1<<10)
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	(<-small).Release() // waited behind the canceled one
	g.Shrink(1 << 20)
	if a.free != 7<<20 {
		t.Errorf("%d bytes are free", a.free)
	}
	g.Shrink(2 << 20) // has no effect: a grant cannot grow
	g.Release()
	g.Release()
	(*Grant)(nil).Release()
	if a.free != a.capacity || a.waiting != 0 || len(a.held)+len(a.queues)+len(a.turns)+len(a.waitingOf) > 0 {
		t.Errorf("%d bytes are free, %d wait; %v %v %v %v", a.free, a.waiting, a.held, a.queues, a.turns, a.waitingOf)
	}
}

// TestPoolSharesRoomToWait verifies that one namespace cannot fill the queue. It leaves as
// much room as it takes to the others.
func TestPoolSharesRoomToWait(t *testing.T) {
	const held = 64 << 10
	a := New(8<<20, 12*held)
	a.must(t, "busy", math.MaxInt64)
	waiting := map[string]int{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, namespace := range []string{"one", "two", "three", "four"} {
		for {
			before, rejected := a.waits(), make(chan error, 1)
			go func() {
				_, err := a.Acquire(ctx, namespace, 1<<20, held)
				rejected <- err
			}()
			for a.waits() == before && len(rejected) == 0 {
				time.Sleep(time.Millisecond)
			}
			if len(rejected) > 0 {
				if err := <-rejected; !errors.Is(err, ErrNoRoom) {
					t.Fatal(err)
				}
				break
			}
			waiting[namespace]++
		}
	}
	want := map[string]int{"one": 6, "two": 3, "three": 2, "four": 1}
	if !maps.Equal(waiting, want) {
		t.Errorf("%v wait, want %v", waiting, want)
	}
}

// TestPoolNeverOverflows verifies that under any order of calls grants never exceed the
// capacity, nothing is lost, and every call returns.
func TestPoolNeverOverflows(t *testing.T) {
	const capacity = 1000
	a := New(capacity, 1<<30)
	var held atomic.Int64
	var done sync.WaitGroup
	for i := range 50 {
		done.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for range 100 {
				n := 1 + random.Int64N(capacity/2)
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(4) == 0 {
					time.AfterFunc(time.Duration(random.IntN(100))*time.Microsecond, cancel)
				}
				g, err := a.Acquire(ctx, fmt.Sprint("ns-", i%5), n, 1)
				if err == nil {
					if held.Add(n) > capacity {
						t.Error("grants exceed the capacity")
					}
					held.Add(-n)
					g.Shrink(n / 2)
					g.Release()
				}
				cancel()
			}
		})
	}
	done.Wait()
	if a.free != capacity || a.small != 0 || a.waiting != 0 || len(a.held)+len(a.queues)+len(a.turns) > 0 {
		t.Errorf("%d bytes are free, %d wait; %v %v %v", a.free, a.waiting, a.held, a.queues, a.turns)
	}
}

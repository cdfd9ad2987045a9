package provider

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// waits returns how many wait.
func (a *admission) waits() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, queue := range a.queues {
		n += len(queue)
	}
	return n
}

func (a *admission) must(t *testing.T, namespace string, n int64) *grant {
	t.Helper()
	g, err := a.acquire(t.Context(), namespace, n, 0)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// later acquires in the background, and returns once that waits.
func (a *admission) later(t *testing.T, namespace string, n int64) chan *grant {
	t.Helper()
	before, got := a.waits(), make(chan *grant, 1)
	go func() {
		if g, err := a.acquire(t.Context(), namespace, n, 0); err == nil {
			got <- g
		}
	}()
	for a.waits() == before {
		if len(got) > 0 {
			t.Fatalf("%d bytes for %s did not wait", n, namespace)
		}
		time.Sleep(time.Millisecond)
	}
	return got
}

// TestAdmissionIsFair: a namespace gets half of what there is, the next one gets its
// share at once, and those that wait take turns whatever the length of their queues.
func TestAdmissionIsFair(t *testing.T) {
	a := newAdmission(6400, 0)
	var mallory []*grant
	for range 32 {
		mallory = append(mallory, a.must(t, "mallory", 100))
	}
	var queue []chan *grant
	for range 5 {
		queue = append(queue, a.later(t, "mallory", 100))
	}
	// Others do not wait, up to as much as is left.
	for _, namespace := range []string{"alice", "bob", "alice", "carol"} {
		a.must(t, namespace, 500).release()
	}
	bob := a.must(t, "bob", 2400) // the most that leaves an eighth to small ones
	alice := a.later(t, "alice", 1000)
	carol := a.must(t, "carol", 100) // a small one
	mallory[0].release()
	if a.waits() != 6 {
		t.Errorf("%d wait: mallory got more than is free", a.waits())
	}
	bob.release()
	(<-alice).release()
	carol.release()
	// One for one, in order.
	for i, got := range queue {
		select {
		case g := <-got:
			mallory = append(mallory, g)
		case <-time.After(50 * time.Millisecond):
			mallory[i+1].release()
			mallory = append(mallory, <-got)
		}
	}
	for _, g := range mallory {
		g.release()
	}
	if a.free != a.capacity || len(a.held)+len(a.queues)+len(a.turns) > 0 {
		t.Errorf("%d of %d bytes are free; %v %v %v", a.free, a.capacity, a.held, a.queues, a.turns)
	}
}

// TestAdmissionTakesTurns: of two namespaces that wait, each gets every other grant.
func TestAdmissionTakesTurns(t *testing.T) {
	a := newAdmission(800, 0)
	all := a.must(t, "other", 700)
	var mu sync.Mutex
	var order []string
	var done sync.WaitGroup
	for i := range 8 {
		namespace := []string{"long", "long", "long", "long", "long", "long", "short", "short"}[i]
		before := a.waits()
		done.Go(func() {
			g, err := a.acquire(t.Context(), namespace, 500, 0)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, namespace)
			mu.Unlock()
			g.release()
		})
		for a.waits() == before {
			time.Sleep(time.Millisecond)
		}
	}
	all.release()
	done.Wait()
	if got := fmt.Sprint(order[:4]); got != "[long short long short]" {
		t.Errorf("order %s", order)
	}
}

// TestAdmissionOfTheLargest: who needs nearly all that there is gets it when those end
// that were there before, and not when another namespace happens to want nothing.
func TestAdmissionOfTheLargest(t *testing.T) {
	a := newAdmission(6400, 0)
	// Small requests do not keep it waiting.
	small := a.must(t, "mallory", 100)
	a.must(t, "bob", math.MaxInt64).release()

	first := a.must(t, "mallory", 1000)
	bob := a.later(t, "bob", math.MaxInt64)
	// One mount begins before the other ends, for ever.
	next := a.later(t, "mallory", 1000)
	// Nor does one who comes with nothing overtake, but for small ones.
	carol := a.later(t, "carol", 1000)
	a.must(t, "dave", 100).release()
	first.release()
	g := <-bob
	if len(next)+len(carol) > 0 {
		t.Error("overtaken")
	}
	g.release()
	(<-next).release()
	(<-carol).release()

	// More small ones than their eighth do keep it waiting, but no others come.
	var more []*grant
	for range 8 {
		more = append(more, a.must(t, "mallory", 100))
	}
	bob = a.later(t, "bob", math.MaxInt64)
	wanted := a.later(t, "mallory", 100)
	a.must(t, "dave", 100).release()
	small.release()
	(<-bob).release()
	(<-wanted).release()
	for _, g := range more {
		g.release()
	}
	if a.free != a.capacity || a.small != 0 || len(a.held)+len(a.queues)+len(a.turns) > 0 {
		t.Errorf("%d of %d bytes are free, %d small; %v %v %v", a.free, a.capacity, a.small, a.held, a.queues, a.turns)
	}
}

// TestAdmissionLimits: what is larger than all there is gets what there is; who may
// not even wait is told so; who gives up leaves nothing behind.
func TestAdmissionLimits(t *testing.T) {
	a := newAdmission(8<<20, 1<<20)
	g := a.must(t, "one", math.MaxInt64)
	if g.n != 7<<20 {
		t.Errorf("got %d bytes", g.n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := a.acquire(ctx, "two", 4<<20, 1<<20)
		first <- err
	}()
	for a.waits() == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := a.acquire(t.Context(), "two", 4<<20, smallHold+1); !errors.Is(err, errCrowded) {
		t.Errorf("got %v", err)
	}
	// Too little to matter.
	small := a.later(t, "two", 1<<10)
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	(<-small).release() // which waited behind the one that gave up
	g.shrink(1 << 20)
	if a.free != 7<<20 {
		t.Errorf("%d bytes are free", a.free)
	}
	g.shrink(2 << 20) // never more
	g.release()
	g.release()
	(*grant)(nil).release()
	if a.free != a.capacity || a.waiting != 0 || len(a.held)+len(a.queues)+len(a.turns)+len(a.waitingOf) > 0 {
		t.Errorf("%d bytes are free, %d wait; %v %v %v %v", a.free, a.waiting, a.held, a.queues, a.turns, a.waitingOf)
	}
}

// TestAdmissionSharesRoomToWait: a namespace cannot take all the room to wait: it leaves
// as much as it has to the others.
func TestAdmissionSharesRoomToWait(t *testing.T) {
	const held = 64 << 10
	a := newAdmission(8<<20, 12*held)
	a.must(t, "busy", math.MaxInt64)
	waiting := map[string]int{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, namespace := range []string{"one", "two", "three", "four"} {
		for {
			before, rejected := a.waits(), make(chan error, 1)
			go func() {
				_, err := a.acquire(ctx, namespace, 1<<20, held)
				rejected <- err
			}()
			for a.waits() == before && len(rejected) == 0 {
				time.Sleep(time.Millisecond)
			}
			if len(rejected) > 0 {
				if err := <-rejected; !errors.Is(err, errCrowded) {
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

// TestAdmissionNeverOverflows: under any order of calls there is never more given out
// than there is, nothing is lost, and everybody comes to an end.
func TestAdmissionNeverOverflows(t *testing.T) {
	const capacity = 1000
	a := newAdmission(capacity, 1<<30)
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
				g, err := a.acquire(ctx, fmt.Sprint("ns-", i%5), n, 1)
				if err == nil {
					if held.Add(n) > capacity {
						t.Error("more is held than there is")
					}
					held.Add(-n)
					g.shrink(n / 2)
					g.release()
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

// TestMountMemory: it follows GOMEMLIMIT and the republish cache.
func TestMountMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	for _, test := range []struct{ limit, cache, want int64 }{
		{216 << 20, 64 << 20, 104 << 20},
		{216 << 20, 0, 168 << 20},
		{1 << 30, 64 << 20, 912 << 20},
		{math.MaxInt64, 64 << 20, 104 << 20},
		{math.MaxInt64, 1 << 30, 104 << 20},
		{100 << 20, 64 << 20, minMemory},
	} {
		debug.SetMemoryLimit(test.limit)
		if got := mountMemory(test.cache); got != test.want {
			t.Errorf("limit %d, cache %d: %d MiB, want %d MiB", test.limit, test.cache, got>>20, test.want>>20)
		}
	}
	// The most expensive mount finds room, beside small ones, with the DaemonSet's memory.
	if works := mountMemoryOf(216<<20) / 2; readCost > works {
		t.Errorf("a mount may take %d MiB of %d MiB", readCost>>20, works>>20)
	}
}

func mountMemoryOf(limit int64) int64 {
	debug.SetMemoryLimit(limit)
	return mountMemory(DefaultRepublishCacheBytes)
}

package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

var (
	key   = ciphertext.Key{Mount: "transit", Name: "k"}
	bound = GroupOf(ciphertext.Settings{Key: key, Scope: ciphertext.Strict})
)

// part is a part that knows its group and size.
type part struct {
	group        Group
	items, bytes int
}

func add(t *testing.T, b *Batcher[part], parts ...part) {
	t.Helper()
	for _, p := range parts {
		if err := b.Add(t.Context(), p.group, p, p.items, p.bytes); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBatches checks which parts share a batch.
func TestBatches(t *testing.T) {
	unbound := GroupOf(ciphertext.Settings{Key: key, Scope: ciphertext.None})
	other := bound
	other.Key.Name = "other"
	for name, test := range map[string]struct {
		parts []part
		want  []int // parts of each batch
	}{
		"nothing":         {nil, nil},
		"groups":          {[]part{{bound, 1, 9}, {unbound, 1, 9}, {other, 1, 9}, {bound, 1, 9}}, []int{1, 1, 2}},
		"items":           {[]part{{bound, 60, 1}, {bound, 40, 1}, {bound, 1, 1}}, []int{1, 2}},
		"bytes":           {[]part{{bound, 1, 600_000}, {bound, 1, 600_000}}, []int{1, 1}},
		"never split":     {[]part{{bound, 1, 1}, {bound, 250, 5 << 20}, {bound, 1, 1}}, []int{1, 1, 1}},
		"memory":          {slices.Repeat([]part{{bound, 1, maxBytes}}, 20), slices.Repeat([]int{1}, 20)},
		"memory of parts": {[]part{{bound, 1, maxWaiting + 1}}, []int{1}},
	} {
		for _, workers := range []int{0, 2} {
			t.Run(fmt.Sprint(name, "/", workers), func(t *testing.T) {
				var mu sync.Mutex
				var got []int
				b := Batcher[part]{Workers: workers, Send: func(_ context.Context, g Group, parts []part) error {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, len(parts))
					for _, p := range parts {
						if p.group != g {
							t.Errorf("a part of %v was sent with %v", p.group, g)
						}
					}
					return nil
				}}
				add(t, &b, test.parts...)
				if err := b.Flush(t.Context()); err != nil || b.waiting != 0 || len(b.Drain()) != 0 {
					t.Errorf("%d bytes wait after Flush (%v)", b.waiting, err)
				}
				if slices.Sort(got); !slices.Equal(got, test.want) {
					t.Errorf("batches of %v parts, want %v", got, test.want)
				}
			})
		}
	}
}

// TestMemory checks that parts of many groups do not wait without a bound.
func TestMemory(t *testing.T) {
	sent := 0
	b := Batcher[part]{Send: func(_ context.Context, _ Group, parts []part) error {
		sent += len(parts)
		return nil
	}}
	for i := range 1000 {
		g := bound
		g.Key.Name = fmt.Sprint("k", i)
		add(t, &b, part{g, 1, 100_000})
		if wait := (i + 1 - sent) * 100_000; wait > maxWaiting || wait != b.waiting {
			t.Fatalf("%d bytes wait, counted as %d", wait, b.waiting)
		}
	}
}

// TestWorkers checks how many calls of Send run at the same time.
func TestWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int32
		release := make(chan struct{})
		b := Batcher[part]{Workers: 2, Send: func(context.Context, Group, []part) error {
			running.Add(1)
			<-release
			return errors.New("failed")
		}}
		done := make(chan error, 1)
		go func() {
			add(t, &b, slices.Repeat([]part{{bound, maxItems, 1}}, 5)...)
			done <- b.Flush(t.Context())
		}()
		synctest.Wait()
		if running.Load() != 2 || len(done) > 0 {
			t.Errorf("%d calls run", running.Load())
		}
		close(release)
		if err := <-done; err == nil || running.Load() != 5 {
			t.Errorf("Flush returned %v after %d calls", err, running.Load())
		}
	})
}

// TestFailure checks that parts wait after a failure, until they are drained.
func TestFailure(t *testing.T) {
	failure := errors.New("failed")
	b := Batcher[part]{Send: func(context.Context, Group, []part) error { return failure }}
	add(t, &b, part{bound, maxItems, 1})
	if err := b.Add(t.Context(), bound, part{}, 1, 1); !errors.Is(err, failure) {
		t.Errorf("Add returns %v", err)
	}
	if n := len(b.Drain()); n != 1 || b.waiting != 0 {
		t.Errorf("%d parts wait, with %d bytes", n, b.waiting)
	}
	if err := b.Flush(t.Context()); err != nil {
		t.Errorf("Flush returns %v", err)
	}
	add(t, &b, part{bound, 1, 1})
	if err := b.Flush(t.Context()); !errors.Is(err, failure) {
		t.Errorf("Flush returns %v", err)
	}
}

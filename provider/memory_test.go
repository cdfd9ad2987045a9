package provider

import (
	"math"
	"runtime/debug"
	"testing"

	"github.com/secretmanager-io/secretmanager/internal/quota"
)

// TestMountMemory verifies that the memory for mounts depends on GOMEMLIMIT and the republish cache.
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
	// With the DaemonSet's memory, the most expensive mount fits next to small ones.
	if works := mountMemoryOf(216<<20) / 2; readCost > works {
		t.Errorf("a mount may need %d MiB of %d MiB", readCost>>20, works>>20)
	}
}

func mountMemoryOf(limit int64) int64 {
	debug.SetMemoryLimit(limit)
	return mountMemory(DefaultRepublishCacheBytes)
}

// fullPool returns a pool without free memory and without room to wait.
func fullPool(t *testing.T) *quota.Pool {
	t.Helper()
	pool := quota.New(1, 0)
	if _, err := pool.Acquire(t.Context(), "other", 1, 0); err != nil {
		t.Fatal(err)
	}
	return pool
}

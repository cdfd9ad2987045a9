package rotator_test

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestMemory rotates and retires many keys, one of which has many versions, with a Secret of many entries and
// Secrets that are as large as they can be. The live heap of the run stays small. make test-long has 5,000
// keys, 3,000 versions, 10,000 entries and Secrets of 1 MiB.
func TestMemory(t *testing.T) {
	keys, versions, entries, length := 100, 100, 500, 50_000
	if long() {
		keys, versions, entries, length = 5_000, 3_000, 10_000, 740_000
	}
	f := newFixture(t)
	f.configure(func(k *transit.KeyInfo) { k.Latest = versions })
	secret := func(name, key string, plain map[string]string) {
		s := f.encrypt(f.Namespace, name, plain, func(s *secretmanager.Spec) {
			s.Settings = ciphertext.Settings{Key: ciphertext.Key{Name: key}}
		})
		f.CreateSecret(s)
	}
	for i := range keys {
		name := fmt.Sprintf("%s-%04d", f.Key, i)
		f.CreateKey(name, true)
		secret(name, name, map[string]string{"e": "x"})
	}
	many := map[string]string{}
	for i := range entries {
		many[fmt.Sprint("e", i)] = "x"
	}
	secret("many", f.Key, many)
	for i := range 5 {
		secret(fmt.Sprint("long", i), f.Key, map[string]string{"e": strings.Repeat("x", length)})
	}

	defer debug.SetGCPercent(debug.SetGCPercent(20))
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before, most, calls := heap(), uint64(0), 0
	report, err := rotator.Run(t.Context(), f.Root, f.Kube, f.options(retiring(0), func(o *rotator.Options) {
		o.Keys, o.Rotate = []string{f.Key + "*"}, rotator.Always
		o.Progress = func(rotator.Progress) {
			if calls++; calls%100 == 0 {
				most = max(most, heap())
			}
		}
	}))
	if err != nil || len(report.Keys) != keys+1 {
		t.Fatalf("%v, %d keys", err, len(report.Keys))
	}
	for _, k := range report.Keys {
		if !k.Rotated || k.Unresolved.Count > 0 || k.Retire == nil || !k.Retire.Done {
			t.Errorf("%s: %+v, retire %+v", k.Name, k, k.Retire)
			break
		}
	}
	grown := (int64(max(most, heap())) - int64(before)) >> 20
	t.Logf("%d MiB of live heap", grown)
	if grown > 40 { // about half as much as resident memory
		t.Errorf("the run needs %d MiB", grown)
	}
}

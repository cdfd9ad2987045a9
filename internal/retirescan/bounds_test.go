package retirescan

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// meter is a Vault that measures each request, and the memory in use.
type meter struct {
	transit.Rewrapper
	requests, items, bytes int // the largest request
	heap                   uint64
}

func (m *meter) Rewrap(ctx context.Context, key ciphertext.Key, items []transit.Item) ([]transit.Result, error) {
	n := 0
	for _, item := range items {
		n += len(item.Data)
	}
	m.items, m.bytes = max(m.items, len(items)), max(m.bytes, n)
	if m.requests++; m.requests%50 == 0 {
		m.heap = max(m.heap, liveHeap())
	}
	return m.Rewrapper.Rewrap(ctx, key, items)
}

func liveHeap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// TestBounds scans Secrets that are as large as they can be, with 50 keys of 3,000 versions.
func TestBounds(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	v := newVault()
	var keys []Key
	for i := range 50 {
		k := transitKey(fmt.Sprint("k", i))
		v.setKey(k, 3001, 1, true)
		keys = append(keys, Key{Key: k, From: 1, To: 3000, Derived: true})
	}
	many, long, release := map[string]string{}, map[string]string{}, strings.Builder{}
	for i := range 10_000 {
		many[fmt.Sprint(i)] = fmt.Sprintf("vault:v%d:%s", 1+i%3000, encode(fmt.Sprintf("%040d", i)))
		if i%100 == 0 {
			long[fmt.Sprint(i)] = fmt.Sprintf("vault:v%d:%s", 1+i%3000, encode(fmt.Sprintf("%011000d", i)))
		}
	}
	for i := range 60_000 {
		fmt.Fprintf(&release, "vault:v1:%s\n", encode(fmt.Sprintf("%040d", i)))
	}
	one := map[string]string{"x": "vault:v1:" + encode(strings.Repeat("y", 750_000))}
	secrets := []*corev1.Secret{labeled(newSecret("a", "many", many), "k7"), newSecret("a", "one", one),
		newSecret("b", "long", long), helmSecret("c", "big", 1, "deployed", release.String())}
	secrets[0].Annotations[ciphertext.AnnotationScope] = "cluster"

	base := liveHeap()
	m := &meter{Rewrapper: v}
	s := &Scanner{Vault: m, Keys: keys, Budget: 10_000}
	r := scan(t, s, secrets...)
	if m.items > 100 || m.bytes > 1<<20 {
		t.Errorf("a request has %d items and %d bytes", m.items, m.bytes)
	}
	if grown := int64(m.heap) - int64(base); grown > 24<<20 {
		t.Errorf("the scan takes %d MiB", grown>>20)
	} else {
		t.Logf("the scan takes %d MiB, %d requests, %d attempts", grown>>20, m.requests, r.Attempts)
	}
	if len(r.Unfinished) != 3 || r.Attempts > 3*10_000 {
		t.Errorf("%d attempts, unfinished: %v", r.Attempts, r.Unfinished)
	}
	if len(r.Undecryptable.Items) > maxItems {
		t.Errorf("%d locations are named", len(r.Undecryptable.Items))
	}
}

// TestTriedIsBounded makes more attempts than are remembered. The result is the same.
func TestTriedIsBounded(t *testing.T) {
	v := newVault("app")
	s := &Scanner{Vault: v, Keys: v.retiring(nil), Budget: 1 << 30}
	good := v.encrypt(transitKey("app"), 2, ciphertext.Cluster.Context("", "", ""), nil)
	var secrets []*corev1.Secret
	for i := range 50 {
		secret := garbageSecret("shop", fmt.Sprintf("s%02d", i), 1000)
		secret.Data["x"] = []byte(good)
		secrets = append(secrets, secret)
	}
	r := scan(t, s, secrets...)
	if len(s.tried) > maxTried {
		t.Errorf("%d attempts are remembered", len(s.tried))
	}
	if r.InUse[transitKey("app")].Count != 50 || r.Undecryptable.Count != 50_000 || r.Attempts <= maxTried {
		t.Errorf("%d found, %d undecryptable, %d attempts", r.InUse[transitKey("app")].Count, r.Undecryptable.Count,
			r.Attempts)
	}
}

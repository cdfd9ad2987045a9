package provider

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/clock"
)

// TestRepublishInputs verifies that the key covers every input of a response and the token for
// Vault, but not tokens for other audiences.
func TestRepublishInputs(t *testing.T) {
	c := newRepublishCache(1 << 20)
	params := map[string]string{class.AttributePodUID: "uid", class.AttributePodNamespace: "demo", "roleName": "r",
		"secretName": "s", "transitKey": "k"}
	jwt := ownToken{text: "a.b.c"}
	of := func(params map[string]string, target string, data map[string][]byte, entries ...string) mountKey {
		t.Helper()
		in := mountRequest(merged(params, class.AttributeTokens,
			tokensJSON(map[string]token{"": {Token: time.Now().String()}})), nil)
		in.TargetPath = target
		r, failed := plainProvider(t).parse(in)
		if failed != nil {
			t.Fatal(failed)
		}
		m, ok := c.key(r, jwt, data, entries)
		if !ok {
			t.Fatal("no key")
		}
		return m
	}
	data := map[string][]byte{"ab": []byte("1"), "a": []byte("b1"), "c": nil}
	base := of(params, "/t", data, "ab")
	if again := of(params, "/t", data, "ab"); again != base {
		t.Error("another token for the API server changes the key")
	}
	jwt.text = "a.b.d"
	if other := of(params, "/t", data, "ab"); other.inputs == base.inputs || other.volume != base.volume {
		t.Error("another token for Vault keeps the inputs, or changes the volume")
	}
	jwt.text = "a.b.c"
	other := map[string]mountKey{
		"text":                  of(params, "/t", map[string][]byte{"ab": []byte("2")}, "ab"),
		"entry":                 of(params, "/t", data, "a"), // has the same bytes as entry ab
		"entry more":            of(params, "/t", data, "ab", "c"),
		"pod uid":               of(merged(params, class.AttributePodUID, "uid-2"), "/t", data, "ab"),
		"pod name":              of(merged(params, class.AttributePodName, "p"), "/t", data, "ab"),
		"target":                of(params, "/u", data, "ab"),
		"class":                 of(merged(params, class.AttributeClass, "c"), "/t", data, "ab"),
		"kubelet's own to come": of(merged(params, class.KubeletPrefix+"new", "x"), "/t", data, "ab"),
	}
	address := plainProvider(t).config.Vault.Address
	for _, name := range class.Parameters() {
		value := map[string]string{"scope": "cluster", "objects": "- {objectName: ab}", "vaultAddress": address}[name]
		if value == "" {
			value = "other"
		}
		other[name] = of(merged(params, name, value), "/t", data, "ab")
	}
	for name, m := range other {
		if m == base {
			t.Errorf("another %s keeps the key", name)
		}
		if sameVolume := m.volume == base.volume; sameVolume == (name == "target" || name == "pod uid") {
			t.Errorf("another %s keeps the volume: %v", name, sameVolume)
		}
	}
	if n := len(other); n != 8+len(class.Parameters()) {
		t.Errorf("%d cases", n)
	}
	c = newRepublishCache(1 << 20) // as in a second process
	if of(params, "/t", data, "ab") == base {
		t.Error("two caches compute the same hashes")
	}
	for _, r := range []*request{{target: "/t"}, {pod: pod{uid: "u"}}} {
		if _, ok := c.key(r, jwt, nil, nil); ok {
			t.Errorf("%+v has a key", r.pod)
		}
	}
	if _, ok := (*republishCache)(nil).key(&request{target: "/t", pod: pod{uid: "u"}}, jwt, nil, nil); ok {
		t.Error("a disabled cache returns a key")
	}
}

// responseOf returns a response for a volume.
func responseOf(content string) *v1alpha1.MountResponse {
	return &v1alpha1.MountResponse{
		Files:         []*v1alpha1.File{{Path: "x", Mode: 0o400, Contents: []byte(content)}},
		ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "x", Version: "v"}},
	}
}

func keyOf(volume, inputs int) (m mountKey) {
	m.expires = time.Now().Add(1000 * time.Hour)
	m.volume[0], m.volume[1], m.inputs[0] = byte(volume), byte(volume>>8), byte(inputs)
	return m
}

// TestRepublishCacheCopies verifies that changes to a response, before or after it is cached,
// do not change the cache.
func TestRepublishCacheCopies(t *testing.T) {
	c := newRepublishCache(1 << 20)
	given := responseOf("content")
	c.put(keyOf(1, 1), given)
	for range 2 {
		copy(given.Files[0].Contents, "CHANGED")
		given.Files = given.Files[:0]
		if given = c.get(keyOf(1, 1)).MountResponse; !proto.Equal(given, responseOf("content")) {
			t.Fatalf("cached response: %v", given)
		}
	}
	c.put(keyOf(2, 1), &v1alpha1.MountResponse{ObjectVersion: given.ObjectVersion})
	if c.get(keyOf(2, 1)) != nil {
		t.Error("a response without files was returned")
	}
}

func TestRepublishCacheExpiry(t *testing.T) {
	for _, test := range []struct {
		name string
		step func(*clock.Reading)
		n    int // maximum number of hits
	}{
		{"asked for every minute", func(r *clock.Reading) { *r = r.Add(time.Minute) }, 60},
		{"asked for every 9 minutes", func(r *clock.Reading) { *r = r.Add(9 * time.Minute) }, 6},
		{"not asked for", func(r *clock.Reading) { *r = r.Add(republishIdle) }, 0},
		{"the machine was suspended", func(r *clock.Reading) { r.Wall = r.Wall.Add(time.Hour) }, 0},
		{"the clock was set back", func(r *clock.Reading) { *r = r.Add(time.Minute); r.Wall = r.Wall.Add(-time.Hour) }, 60},
	} {
		t.Run(test.name, func(t *testing.T) {
			ends := map[int]bool{}
			for range 50 {
				c := newRepublishCache(1 << 20)
				now := clock.Now()
				c.now = func() clock.Reading { return now }
				c.put(keyOf(1, 1), responseOf("x"))
				n := 0
				for test.step(&now); n < 1000 && c.get(keyOf(1, 1)) != nil; test.step(&now) {
					n++
				}
				ends[n] = true
				if n > test.n || n < test.n*3/4-1 {
					t.Fatalf("%d hits, want at most %d and not far fewer", n, test.n)
				}
				if c.bytes != 0 || c.order.Len() != 0 || len(c.byVolume) != 0 {
					t.Fatalf("left in the cache: %d bytes, %s", c.bytes, c)
				}
			}
			if test.n == 60 && len(ends) < 3 {
				t.Errorf("all responses expire at the same time: %v", ends)
			}
		})
	}
}

// TestRepublishCacheSweep verifies that responses expire even if no more mounts arrive, and that no
// goroutine remains (synctest would not return).
func TestRepublishCacheSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newRepublishCache(1 << 20)
		for round := range 2 {
			c.put(keyOf(1, 1), responseOf("x"))
			time.Sleep(5 * time.Minute)
			c.put(keyOf(2, 1), responseOf("x"))
			time.Sleep(6*time.Minute + time.Second)
			if got := c.String(); !strings.HasPrefix(got, "1 responses") {
				t.Errorf("round %d: %s after 11 minutes", round, got)
			}
			time.Sleep(6 * time.Minute)
			if got := c.String(); got != "0 responses, 0 bytes" {
				t.Errorf("round %d: %s after 17 minutes", round, got)
			}
			time.Sleep(24 * time.Hour)
			c.mu.Lock()
			if c.timer != nil {
				t.Error("a timer runs although the cache is empty")
			}
			c.mu.Unlock()
		}
	})
}

func TestRepublishCacheBound(t *testing.T) {
	const limit = 100 << 10
	c := newRepublishCache(limit)
	content := strings.Repeat("x", 9<<10)
	for i := range 50 {
		c.put(keyOf(i, 1), responseOf(content))
		if c.get(keyOf(0, 1)) == nil {
			t.Fatalf("the response in use was evicted at number %d", i)
		}
		if c.bytes > limit || c.bytes < min(int64(i), 8)*9<<10 {
			t.Fatalf("%s", c)
		}
	}
	if c.get(keyOf(49, 1)) == nil || c.get(keyOf(1, 1)) != nil {
		t.Error("eviction is not in the order of last use")
	}
	before := c.String()
	c.put(keyOf(50, 1), responseOf(strings.Repeat("x", limit)))
	if got := c.String(); got != before {
		t.Errorf("a response that does not fit evicted others: %s, before: %s", got, before)
	}
	c.put(keyOf(0, 2), responseOf(strings.Repeat("x", limit)))
	if c.get(keyOf(0, 1)) != nil || c.get(keyOf(0, 2)) != nil {
		t.Error("an old response stays cached although the new one does not fit")
	}
	for i := range 60 {
		c.get(keyOf(i, 3))
	}
	if got := c.String(); got != "0 responses, 0 bytes" {
		t.Errorf("after all inputs changed: %s", got)
	}
}

// TestRepublishCacheMemory verifies that the limit bounds real memory, whatever the size of
// responses.
func TestRepublishCacheMemory(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const limit = 8 << 20
	for _, size := range []int{1, 33, 1025, 9 << 10, 70 << 10, 1<<20 + 1} {
		before := heap()
		c := newRepublishCache(limit)
		content := strings.Repeat("x", size)
		for i := range 40000 {
			if int64(i)*int64(size) > 4*limit {
				break
			}
			c.put(keyOf(i, 1), responseOf(content))
		}
		if used := heap() - before; used > limit+limit/20 || c.bytes > limit || c.bytes < limit*3/4 {
			t.Errorf("responses of %d bytes: %s, actual size %d", size, c, used)
		}
		runtime.KeepAlive(c)
	}
}

// TestRepublishTogether mounts concurrently, for the race detector.
func TestRepublishTogether(t *testing.T) {
	e := newEnv(t)
	s := serve(t, e.Vault.Address, cached, func(c *Config) { c.RepublishCacheBytes = 4 << 10 })
	var wait sync.WaitGroup
	for i := range 4 {
		value := fmt.Sprint("value ", i)
		entries := e.entries(t, value)
		for pod := range 4 {
			wait.Go(func() {
				for range 8 {
					s.mountOne(t, e.params(class.AttributePodUID, fmt.Sprint(pod)), entries, value)
				}
			})
		}
	}
	wait.Wait()
}

// BenchmarkRepublish measures a mount with a cached response, without gRPC.
func BenchmarkRepublish(b *testing.B) {
	e := newEnv(b)
	s := serve(b, e.Vault.Address, cached, func(c *Config) { c.Log = slog.New(slog.DiscardHandler) })
	for _, n := range []int{1, 20} {
		b.Run(fmt.Sprint(n, " entries"), func(b *testing.B) {
			entries := map[string]string{}
			for i := range n {
				name := fmt.Sprint("x", i)
				entries[name] = e.encrypt(b, ciphertext.Strict, "matrix", name, strings.Repeat("v", 1000))
			}
			in := mountRequest(e.params(), entries)
			for b.Loop() {
				if _, err := s.provider.Mount(context.Background(), in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

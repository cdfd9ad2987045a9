package provider

import (
	lru "container/list"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/clock"
)

// DefaultRepublishCacheBytes is the default size of the republish cache in bytes.
const DefaultRepublishCacheBytes = 64 << 20

const (
	// republishIdle is how long an unused response stays cached. The kubelet repeats a mount every 60 to 90 seconds.
	republishIdle = 10 * time.Minute
	// republishLife is how long a response is used before Vault must decrypt again, so that Vault can refuse the pod.
	// Each response gets up to republishSpread less, at random, so that pods that started together do not decrypt
	// together. The rest is longer than the kubelet uses a token of an hour (80% of it, and up to one interval of the
	// mounts), so a pod decrypts once for each of its tokens.
	republishLife   = time.Hour
	republishSpread = republishLife / 6
	// republishEntry is the size in bytes of a cache entry without its response: the entry and its share of the list and
	// the maps.
	republishEntry = 640
)

// republishCache caches the response to the last mount of each volume. With rotation on, the kubelet repeats every
// mount about once a minute; without the cache, each of these would decrypt.
//
// A cached response is used only for the same volume (pod UID and target path), the same inputs, and the same service
// account token that Vault accepted: see [republishCache.key]. It is cached in its wire form, so that no caller can
// change it and its size is known. Its plaintext is what the pod has in its tmpfs. Ciphertext, parameters and tokens
// are not cached.
//
// While the kubelet uses the same tokens, a repeated request equals the first one byte for byte. Such a request is
// recognized before any of it is parsed: see [republishCache.getExact].
//
// A nil *republishCache caches nothing.
type republishCache struct {
	digester
	limit int64
	now   func() clock.Reading

	mu                      sync.Mutex
	bytes                   int64
	hits, misses, evictions int64
	order                   *lru.List // of *cachedMount, the most recently used first
	byVolume                map[digest]*lru.Element
	byRequest               map[digest]*lru.Element // by the whole request, where it contains all inputs
	timer                   *time.Timer             // of the next sweep; nil while the cache is empty
}

// cachedMount is the last mount of a volume.
type cachedMount struct {
	mountKey
	response      []byte
	created, used clock.Reading
	life          time.Duration
	repeated      bool // the audit log has a record of a repeated response
}

func (m *cachedMount) size() int64 { return int64(cap(m.response)+len(m.record)) + republishEntry }

// cachedResponse is a copy of a cached response.
type cachedResponse struct {
	*v1alpha1.MountResponse
	entries int // that it was made of
	// record is the audit record of the mount that decrypted. It is set only the first time that a response is repeated.
	// A response is cached for an hour at most, so each volume gets a record in each hour.
	record string
}

// newRepublishCache returns a cache of that many bytes; nil for none.
func newRepublishCache(limit int64) *republishCache {
	if limit <= 0 {
		return nil
	}
	return &republishCache{
		digester: newDigester(), limit: limit, now: clock.Now,
		order: lru.New(), byVolume: map[digest]*lru.Element{}, byRequest: map[digest]*lru.Element{},
	}
}

// mountKey identifies a mount in the cache, and has what the cache needs to know of it.
type mountKey struct {
	volume, inputs digest
	request        digest    // zero if the request does not contain all inputs
	entries        int       // number of the requested entries
	namespace      string    // of the pod
	expires        time.Time // of the service account token
	record         string    // audit record of the mount; empty without an audit log
}

// key returns the cache key of a mount, or false if it must not be cached.
//
// The inputs are everything that determines the response: all attributes, known or not (parameters, pod and service
// account); the name and ciphertext of each requested entry; and the service account token that logs in. Tokens for
// other audiences are left out. The rest of the configuration is constant while the process lives.
//
// The token is an input because its claims are not verified here: only the token that Vault has accepted may get the
// response. A new token goes to Vault, which can refuse it.
func (c *republishCache) key(r *request, jwt ownToken, data map[string][]byte, entries []string) (mountKey, bool) {
	if c == nil || r.pod.uid == "" || r.target == "" {
		return mountKey{}, false
	}
	key := mountKey{entries: len(entries), namespace: r.pod.namespace, expires: jwt.expires}
	h := c.hash("volume")
	h.add(r.pod.uid, r.target)
	h.sum(&key.volume)

	h = c.hash("inputs")
	h.add(jwt.text)
	names := slices.Sorted(maps.Keys(r.attributes))
	h.count(len(names))
	for _, name := range names {
		h.add(name, r.attributes[name])
	}
	h.count(len(entries))
	for _, entry := range entries {
		h.add(entry)
		h.addBytes(data[entry])
	}
	h.sum(&key.inputs)
	return key, true
}

// requestDigest returns the digest of a whole request, including all tokens.
func (c *republishCache) requestDigest(in *v1alpha1.MountRequest) (d digest) {
	if c == nil {
		return d
	}
	h := c.hash("request")
	h.add(in.GetTargetPath(), in.GetAttributes(), in.GetSecrets())
	h.sum(&d)
	return d
}

// get returns a copy of the cached response to a mount with the same inputs, or nil. In the latter case it drops any
// other response of the volume: the caller asks Vault now, and if Vault refuses, no later mount may get an old
// response.
func (c *republishCache) get(key mountKey) *cachedResponse {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.byVolume[key.volume]
	if !ok {
		c.misses++
		return nil
	}
	if element.Value.(*cachedMount).inputs != key.inputs {
		c.misses++
		c.drop(element)
		return nil
	}
	resp := c.use(element)
	if resp == nil {
		c.misses++
		return nil
	}
	c.setRequest(element, key.request) // another token of the pod has changed
	return resp
}

// getExact returns a copy of the cached response to exactly this request, or nil.
func (c *republishCache) getExact(request digest) *cachedResponse {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.byRequest[request]
	if !ok {
		return nil
	}
	return c.use(element)
}

// sizeExact returns the size of the cached response to exactly this request, and the namespace of its pod; 0 if there
// is none.
func (c *republishCache) sizeExact(request digest) (namespace string, size int64) {
	if c == nil {
		return "", 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.byRequest[request]
	if !ok {
		return "", 0
	}
	m := element.Value.(*cachedMount)
	return m.namespace, int64(len(m.response))
}

// use returns a copy of a response, or drops it if it must no longer be used; c.mu is held.
func (c *republishCache) use(element *lru.Element) *cachedResponse {
	m, now := element.Value.(*cachedMount), c.now()
	if m.expired(now) {
		c.drop(element)
		return nil
	}
	resp := &v1alpha1.MountResponse{}
	if err := proto.Unmarshal(m.response, resp); err != nil || len(resp.Files) == 0 {
		c.drop(element) // without files it would leave a new volume empty
		return nil
	}
	m.used = now
	c.order.MoveToFront(element)
	c.hits++
	cached := &cachedResponse{MountResponse: resp, entries: m.entries}
	if !m.repeated {
		cached.record, m.repeated = m.record, true
	}
	return cached
}

// setRequest sets the request that finds a response by getExact; c.mu is held.
func (c *republishCache) setRequest(element *lru.Element, request digest) {
	m := element.Value.(*cachedMount)
	delete(c.byRequest, m.request)
	if m.request = request; request != (digest{}) {
		c.byRequest[request] = element
	}
}

// put caches a response, and drops the least recently used ones to make room. It does not cache a response that is
// larger than the cache.
func (c *republishCache) put(key mountKey, resp *v1alpha1.MountResponse) {
	// The capacity that Grow returns is what the allocator has reserved; make would not say.
	response, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(
		slices.Grow([]byte(nil), proto.Size(resp)), resp)
	if err != nil {
		return
	}
	now := c.now()
	m := &cachedMount{mountKey: key, response: response, created: now, used: now,
		life: republishLife - mathrand.N(republishSpread)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.byVolume[m.volume]; ok {
		c.drop(element) // of a concurrent mount
	}
	if m.size() > c.limit {
		c.evictions++
		return
	}
	for c.bytes+m.size() > c.limit {
		c.evictions++
		c.drop(c.order.Back())
	}
	element := c.order.PushFront(m)
	c.byVolume[m.volume] = element
	c.setRequest(element, key.request)
	c.bytes += m.size()
	if c.timer == nil {
		c.timer = time.AfterFunc(republishIdle, c.sweep)
	}
}

func (m *cachedMount) expired(now clock.Reading) bool {
	return now.Since(m.used) >= republishIdle || now.Since(m.created) >= m.life || !now.Wall.Before(m.expires)
}

func (c *republishCache) drop(element *lru.Element) {
	m := c.order.Remove(element).(*cachedMount)
	delete(c.byVolume, m.volume)
	delete(c.byRequest, m.request)
	c.bytes -= m.size()
}

// sweep drops expired responses, so that the plaintext of deleted pods does not stay in memory until the next mount.
// It runs by itself while the cache is not empty.
func (c *republishCache) sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for element := c.order.Back(); element != nil; {
		previous := element.Prev()
		if element.Value.(*cachedMount).expired(now) {
			c.drop(element)
		}
		element = previous
	}
	if c.order.Len() == 0 {
		c.timer = nil
		return
	}
	// A response may stay in memory this much longer than it is used.
	c.timer.Reset(republishIdle / 10)
}

// republishStats are the size and the counters of a cache.
type republishStats struct{ entries, bytes, limit, hits, misses, evictions int64 }

func (c *republishCache) stats() republishStats {
	if c == nil {
		return republishStats{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return republishStats{int64(len(c.byVolume)), c.bytes, c.limit, c.hits, c.misses, c.evictions}
}

// String returns the size of the cache, for logs: nothing that it contains.
func (c *republishCache) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%d responses, %d bytes", len(c.byVolume), c.bytes)
}

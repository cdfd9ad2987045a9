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

// DefaultRepublishCacheBytes is what answers kept for republishing may take,
// unless told otherwise.
const DefaultRepublishCacheBytes = 64 << 20

const (
	// republishIdle is when an answer goes that nobody asks for any more. The
	// kubelet repeats a mount every 60 to 90 seconds.
	republishIdle = 10 * time.Minute
	// republishLife is when an entry is decrypted afresh at the latest, so that
	// Vault's no to a pod is heard. Up to republishSpread of it is taken off at
	// random: pods that were started together do not come back together. What is left
	// is longer than the kubelet uses a token of an hour, which is 80% of that and up
	// to an interval of the mounts: so a pod decrypts once for each of its tokens.
	republishLife   = time.Hour
	republishSpread = republishLife / 6
	// republishEntry is what an entry takes beside its answer: itself, and its
	// places in list and map.
	republishEntry = 640
)

// republished keeps the answer of each volume's last mount. With rotation on,
// the kubelet repeats every mount every minute or so; without this, each would
// be a decrypt.
//
// An answer is given again only to the same volume (pod uid and target path) of
// a mount with the same inputs and the very service account token that Vault
// accepted for it: see [republished.of]. It is kept in its wire form, which nobody else has a hand
// on and which is just as long as it says.
// The plaintext in it is what the pod has in its own tmpfs; ciphertext,
// parameters and tokens are not kept.
//
// While the kubelet's token for the pod lasts, a republish is the very request
// that came before, byte for byte. That is known before anything of it is read:
// see [republished.again].
//
// A nil *republished keeps nothing.
type republished struct {
	digester
	limit int64
	now   func() clock.Reading

	mu                      sync.Mutex
	bytes                   int64
	hits, misses, evictions int64
	order                   *lru.List // of *answered, the one used last at the front
	volume                  map[digest]*lru.Element
	exact                   map[digest]*lru.Element // by the whole request, where it had all
	timer                   *time.Timer             // of the next sweep; nil while there is nothing to sweep
}

// answered is the answer of a volume's last mount.
type answered struct {
	mounted
	answer     []byte
	made, used clock.Reading
	life       time.Duration
	repeated   bool // the audit log has a record of the answer given again
}

func (a *answered) size() int64 { return int64(cap(a.answer)+len(a.record)) + republishEntry }

// given is a copy of an answer that is kept.
type given struct {
	*v1alpha1.MountResponse
	entries int // that it was made of
	// record is the audit record of the mount that the answer was decrypted for, the
	// first time that the answer is given again, and empty after that. An answer is
	// kept for an hour at most, so a volume has a record in each hour.
	record string
}

// newRepublished returns a cache of so many bytes; nil for none.
func newRepublished(limit int64) *republished {
	if limit <= 0 {
		return nil
	}
	return &republished{
		digester: newDigester(), limit: limit, now: clock.Now,
		order: lru.New(), volume: map[digest]*lru.Element{}, exact: map[digest]*lru.Element{},
	}
}

// mounted is one mount as the cache sees it.
type mounted struct {
	volume, inputs digest
	request        digest    // zero if the request does not have all that there is to know
	entries        int       // how many are wanted
	namespace      string    // of the pod
	expires        time.Time // of the service account token
	record         string    // audit record of the mount; empty if there is no audit log
}

// of returns the key of a mount, or false if its answer must not be kept.
//
// The inputs are all that the answer is made of: every attribute, whether it is
// known here or not, which has the parameters, the pod and its service account;
// name and text of each entry that is wanted; and the service account token that
// logs in. Tokens for other audiences are left out. The rest is the operator's and
// stays the same while the process lives.
//
// The token is an input because its claims are not verified here: only the one that
// Vault has accepted may get the answer, and a new one is shown to Vault, so that
// Vault's no is heard.
func (c *republished) of(r *request, jwt ownToken, data map[string][]byte, entries []string) (mounted, bool) {
	if c == nil || r.pod.uid == "" || r.target == "" {
		return mounted{}, false
	}
	m := mounted{entries: len(entries), namespace: r.pod.namespace, expires: jwt.expires}
	h := c.hash("volume")
	h.add(r.pod.uid, r.target)
	h.sum(&m.volume)

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
	h.sum(&m.inputs)
	return m, true
}

// whole returns what tells a request from others to the last byte, tokens and all.
func (c *republished) whole(in *v1alpha1.MountRequest) (d digest) {
	if c == nil {
		return d
	}
	h := c.hash("request")
	h.add(in.GetTargetPath(), in.GetAttributes(), in.GetSecrets())
	h.sum(&d)
	return d
}

// get returns a copy of the answer that a mount with the same inputs had, nil
// if there is none. Whatever is there for the volume otherwise is dropped:
// whoever asks goes to Vault now, and should that fail or panic, the answer to
// other inputs, or an old one, is not left to be found by a later mount.
func (c *republished) get(m mounted) *given {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.volume[m.volume]
	if !ok {
		c.misses++
		return nil
	}
	if at.Value.(*answered).inputs != m.inputs {
		c.misses++
		c.drop(at)
		return nil
	}
	resp := c.answer(at)
	if resp == nil {
		c.misses++
		return nil
	}
	c.index(at, m.request) // another token of the pod has changed
	return resp
}

// again returns a copy of the answer that this very request had, nil if there
// is none.
func (c *republished) again(request digest) *given {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.exact[request]
	if !ok {
		return nil
	}
	return c.answer(at)
}

// find returns whose the answer to this very request is and its size, 0 if there is none.
func (c *republished) find(request digest) (namespace string, size int64) {
	if c == nil {
		return "", 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.exact[request]
	if !ok {
		return "", 0
	}
	a := at.Value.(*answered)
	return a.namespace, int64(len(a.answer))
}

// answer returns a copy of an answer, or drops one that may not be given any
// more; c.mu is held.
func (c *republished) answer(at *lru.Element) *given {
	a, now := at.Value.(*answered), c.now()
	if a.over(now) {
		c.drop(at)
		return nil
	}
	resp := &v1alpha1.MountResponse{}
	if err := proto.Unmarshal(a.answer, resp); err != nil || len(resp.Files) == 0 {
		c.drop(at) // without files it would leave a new volume empty
		return nil
	}
	a.used = now
	c.order.MoveToFront(at)
	c.hits++
	g := &given{MountResponse: resp, entries: a.entries}
	if !a.repeated {
		g.record, a.repeated = a.record, true
	}
	return g
}

// index makes the request the one that an answer is known by; c.mu is held.
func (c *republished) index(at *lru.Element, request digest) {
	a := at.Value.(*answered)
	delete(c.exact, a.request)
	if a.request = request; request != (digest{}) {
		c.exact[request] = at
	}
}

// put keeps an answer, and drops the ones used longest ago to make room. One
// that has no room at all is not kept.
func (c *republished) put(m mounted, resp *v1alpha1.MountResponse) {
	// Grow says how much the allocator gives, where make would hide it.
	answer, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(
		slices.Grow([]byte(nil), proto.Size(resp)), resp)
	if err != nil {
		return
	}
	now := c.now()
	a := &answered{mounted: m, answer: answer, made: now, used: now, life: republishLife - mathrand.N(republishSpread)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.volume[a.volume]; ok {
		c.drop(at) // of a mount at the same time
	}
	if a.size() > c.limit {
		c.evictions++
		return
	}
	for c.bytes+a.size() > c.limit {
		c.evictions++
		c.drop(c.order.Back())
	}
	at := c.order.PushFront(a)
	c.volume[a.volume] = at
	c.index(at, m.request)
	c.bytes += a.size()
	if c.timer == nil {
		c.timer = time.AfterFunc(republishIdle, c.sweep)
	}
}

func (a *answered) over(now clock.Reading) bool {
	return now.Since(a.used) >= republishIdle || now.Since(a.made) >= a.life || !now.Wall.Before(a.expires)
}

func (c *republished) drop(at *lru.Element) {
	a := c.order.Remove(at).(*answered)
	delete(c.volume, a.volume)
	delete(c.exact, a.request)
	c.bytes -= a.size()
}

// sweep drops what is over: the plaintext of pods that are gone does not wait
// for another mount. It comes again while there is anything.
func (c *republished) sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for at := c.order.Back(); at != nil; {
		before := at.Prev()
		if at.Value.(*answered).over(now) {
			c.drop(at)
		}
		at = before
	}
	if c.order.Len() == 0 {
		c.timer = nil
		return
	}
	// Often enough that nothing stays for much longer than it may.
	c.timer.Reset(republishIdle / 10)
}

// republishStats are what a cache has and what became of it.
type republishStats struct{ entries, bytes, limit, hits, misses, evictions int64 }

func (c *republished) stats() republishStats {
	if c == nil {
		return republishStats{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return republishStats{int64(len(c.volume)), c.bytes, c.limit, c.hits, c.misses, c.evictions}
}

// String tells how full it is.
func (c *republished) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%d answers, %d bytes", len(c.volume), c.bytes)
}

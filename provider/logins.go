package provider

import (
	lru "container/list"
	"sync"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/clock"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	// maxLogins bounds the Vault tokens in memory. A node has a few hundred pods at most.
	maxLogins = 1000
	// loginLife bounds how long a Vault token is used, whatever its lease, so that revoked access ends. A mount that
	// gets the token at the last moment can use it for the longest mount timeout, 110 s. The sum is less than the 15
	// minutes that docs/reference/caches.md promises.
	loginLife = 13 * time.Minute
	// loginGrace is how long a source without a token is kept: a mount may be about to log in with it.
	loginGrace = time.Minute
)

// loginKey returns the key of a mount's Vault token: the service account token, and the address, namespace, auth mount
// and role of the login.
//
// The key contains the whole service account token, not only its claims, which are not verified here: a token that
// Vault has not accepted must not find the Vault token of another one. The digest is keyed, so that a memory dump does
// not help to guess the token.
func (p *Provider) loginKey(r *request, jwt string) (d digest) {
	h := p.digests.hash("login")
	h.add(r.VaultAddress, r.VaultNamespace, r.AuthMount, r.Role, jwt)
	h.sum(&d)
	return d
}

// logins caches sources of Vault tokens by login key. Its zero value is ready. It is safe for concurrent use.
type logins struct {
	now func() clock.Reading // clock.Now if nil

	mu      sync.Mutex
	order   lru.List // of *loginEntry, the most recently used first
	sources map[digest]*lru.Element
	swept   clock.Reading
}

type loginEntry struct {
	key           digest
	source        *transit.LoginSource
	created, used clock.Reading
	expires       time.Time // of the service account token
}

// expired reports whether the Vault token of the entry must no longer be used.
func (e *loginEntry) expired(now clock.Reading) bool {
	return now.Since(e.created) >= loginLife || !now.Wall.Before(e.expires)
}

// get returns the source with the key. If there is none, or only an expired one, it creates a source for a service
// account token that expires at the given time.
func (l *logins) get(key digest, expires time.Time, create func() *transit.LoginSource) *transit.LoginSource {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.reading()
	if now.Since(l.swept) >= loginGrace {
		l.sweep(now)
	}
	element := l.sources[key]
	if element != nil && element.Value.(*loginEntry).expired(now) {
		l.drop(element)
		element = nil
	}
	if element == nil {
		if len(l.sources) >= maxLogins {
			l.drop(l.order.Back())
		}
		if l.sources == nil {
			l.sources = map[digest]*lru.Element{}
		}
		element = l.order.PushFront(&loginEntry{key: key, source: create(), created: now, expires: expires})
		l.sources[key] = element
	}
	l.order.MoveToFront(element)
	e := element.Value.(*loginEntry)
	e.used = now
	return e.source
}

// count returns how many sources have a Vault token or are logging in.
func (l *logins) count() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, element := range l.sources {
		if !element.Value.(*loginEntry).source.Idle() {
			n++
		}
	}
	return n
}

func (l *logins) reading() clock.Reading {
	if l.now == nil {
		return clock.Now()
	}
	return l.now()
}

// sweep drops expired and idle sources; l.mu is held. Mounts trigger it: without mounts, nothing is added either.
func (l *logins) sweep(now clock.Reading) {
	l.swept = now
	for element := l.order.Back(); element != nil; {
		previous, e := element.Prev(), element.Value.(*loginEntry)
		if e.expired(now) || now.Since(e.used) >= loginGrace && e.source.Idle() {
			l.drop(element)
		}
		element = previous
	}
}

func (l *logins) drop(element *lru.Element) {
	delete(l.sources, l.order.Remove(element).(*loginEntry).key)
}

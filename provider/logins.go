package provider

import (
	lru "container/list"
	"sync"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/clock"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	// maxLogins bounds the Vault tokens in memory. A node has a few hundred pods
	// at most.
	maxLogins = 1000
	// loginLife bounds how long a Vault token is used, whatever its lease says, so
	// that access that was taken away ends. A mount that took the token at the last
	// moment can use it for as long as the longest mount timeout, 110 s: together
	// that is less than the 15 minutes that docs/reference/caches.md promises.
	loginLife = 13 * time.Minute
	// loginGrace is how long a source without a token stays: the mount that took it
	// out may be about to log in.
	loginGrace = time.Minute
)

// loginKey returns the key of a mount's Vault token: the service account token
// itself, and where and as which role it logs in.
//
// The token is in the key as a whole, and not what it says about itself: its
// claims are not verified here, so a token that this process has not seen Vault
// accept must not find what another one left. The digest is keyed, so that a
// memory dump does not help to guess.
func (p *Provider) loginKey(r *request, jwt string) (d digest) {
	h := p.digests.hash("login")
	h.add(r.VaultAddress, r.VaultNamespace, r.AuthMount, r.Role, jwt)
	h.sum(&d)
	return d
}

// logins has a source of Vault tokens for each login key. Its zero value is
// ready.
type logins struct {
	now func() clock.Reading // clock.Now if nil

	mu      sync.Mutex
	order   lru.List // of *loginEntry, the one used last at the front
	sources map[digest]*lru.Element
	swept   clock.Reading
}

type loginEntry struct {
	key        digest
	source     *transit.LoginSource
	made, used clock.Reading
	expires    time.Time // of the service account token
}

// over reports whether the Vault token of the entry must not be used anymore.
func (e *loginEntry) over(now clock.Reading) bool {
	return now.Since(e.made) >= loginLife || !now.Wall.Before(e.expires)
}

// get returns the source with the key. It makes one for a service account token
// that expires at that time where there is none, or only one that is too old.
func (l *logins) get(key digest, expires time.Time, make func() *transit.LoginSource) *transit.LoginSource {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.reading()
	if now.Since(l.swept) >= loginGrace {
		l.sweep(now)
	}
	at := l.sources[key]
	if at != nil && at.Value.(*loginEntry).over(now) {
		l.drop(at)
		at = nil
	}
	if at == nil {
		if len(l.sources) >= maxLogins {
			l.drop(l.order.Back())
		}
		if l.sources == nil {
			l.sources = map[digest]*lru.Element{}
		}
		at = l.order.PushFront(&loginEntry{key: key, source: make(), made: now, expires: expires})
		l.sources[key] = at
	}
	l.order.MoveToFront(at)
	e := at.Value.(*loginEntry)
	e.used = now
	return e.source
}

// held returns how many of the sources have a Vault token, or are about to.
func (l *logins) held() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, at := range l.sources {
		if !at.Value.(*loginEntry).source.Idle() {
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

// sweep drops what is of no use any more; l.mu is held. It happens as mounts
// come: while none do, what is in memory gets older and not more.
func (l *logins) sweep(now clock.Reading) {
	l.swept = now
	for at := l.order.Back(); at != nil; {
		before, e := at.Prev(), at.Value.(*loginEntry)
		if e.over(now) || now.Since(e.used) >= loginGrace && e.source.Idle() {
			l.drop(at)
		}
		at = before
	}
}

func (l *logins) drop(at *lru.Element) {
	delete(l.sources, l.order.Remove(at).(*loginEntry).key)
}

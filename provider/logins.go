package provider

import (
	lru "container/list"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/clock"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	// maxLogins bounds the Vault tokens in memory. A node has a few hundred pods
	// at most.
	maxLogins = 1000
	// loginUnused is when a source goes that nobody has asked for, although its
	// token may last longer.
	loginUnused = time.Hour
	// loginGrace is how long a source without a token stays: whoever took it out
	// may be about to log in.
	loginGrace = time.Minute
	// maxUID is what a uid may have to be kept as a key. Real ones have 36.
	maxUID = 128
)

// identity is everything that decides which Vault token a mount gets: all that
// a login says, where, and whose service-account token it shows.
//
// The pod itself is not part of it: pods of a service account share their Vault
// token. A role that is bound to a claim on the pod is checked once for all.
type identity struct {
	vaultAddress, vaultNamespace, authMount, role, audience string
	namespace, serviceAccount, uid                          string
}

// identityOf returns the identity of a mount that shows a service-account token.
//
// Nothing has verified that token here: Vault does, when it logs in. It must
// not open the way to a Vault token that somebody else's has got, so what it
// says has to be what the kubelet says of the pod. A made-up one can then reach
// no more than what the pod's own would; one that says anything else logs in by
// itself and shares nothing.
func identityOf(r *request, jwt string) (identity, bool) {
	claims, ok := parseClaims(jwt)
	if !ok || claims.Namespace != r.pod.namespace || claims.ServiceAccount.Name != r.pod.serviceAccount {
		return identity{}, false
	}
	return identity{
		r.vaultAddress, r.vaultNamespace, r.authMount, r.role, r.audience,
		claims.Namespace, claims.ServiceAccount.Name, claims.ServiceAccount.UID,
	}, true
}

// claims are those that the API server puts into every service-account token.
type claims struct {
	Namespace      string `json:"namespace"`
	ServiceAccount struct {
		Name string `json:"name"`
		UID  string `json:"uid"`
	} `json:"serviceaccount"`
}

// parseClaims reads the claims of a JSON web token without verifying it. It
// reports whether they are all there.
func parseClaims(jwt string) (claims, bool) {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return claims{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return claims{}, false
	}
	var all struct {
		Kubernetes claims `json:"kubernetes.io"`
	}
	if json.Unmarshal(payload, &all) != nil {
		return claims{}, false
	}
	c := all.Kubernetes
	uid := c.ServiceAccount.UID
	return c, c.Namespace != "" && c.ServiceAccount.Name != "" && uid != "" && len(uid) <= maxUID
}

// logins has a source of Vault tokens for each identity. Its zero value is
// ready.
type logins struct {
	now func() clock.Reading // clock.Now if nil

	mu      sync.Mutex
	order   lru.List // of *loginEntry, the one used last at the front
	sources map[identity]*lru.Element
	swept   clock.Reading
}

type loginEntry struct {
	id     identity
	source *transit.LoginSource
	used   clock.Reading
}

// get returns the source of an identity, which is made if there is none.
func (l *logins) get(id identity, make func() *transit.LoginSource) *transit.LoginSource {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.reading()
	if now.Since(l.swept) >= loginGrace {
		l.sweep(now)
	}
	at := l.sources[id]
	if at == nil {
		if len(l.sources) >= maxLogins {
			l.drop(l.order.Back())
		}
		if l.sources == nil {
			l.sources = map[identity]*lru.Element{}
		}
		at = l.order.PushFront(&loginEntry{id: id, source: make()})
		l.sources[id] = at
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
		if unused := now.Since(e.used); unused >= loginUnused || unused >= loginGrace && e.source.Idle() {
			l.drop(at)
		}
		at = before
	}
}

func (l *logins) drop(at *lru.Element) {
	delete(l.sources, l.order.Remove(at).(*loginEntry).id)
}

package httpserver

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Throttle is for what takes long and nobody needs often. It answers the requests
// beyond one in five seconds, five after a pause, with 429.
func Throttle(handler http.Handler) http.Handler {
	limit := rate.NewLimiter(rate.Every(5*time.Second), 5)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !limit.Allow() {
			tooMany(w)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

func tooMany(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "5")
	http.Error(w, "too many requests: try again later", http.StatusTooManyRequests)
}

const (
	// pagesOfAddress and pagesOfAll are how many pages a second are sent, and burst how
	// many in a row after a pause. Sending one takes longer than refusing it.
	pagesOfAddress = 20
	pagesOfAll     = 200
	burst          = 200
	maxAddresses   = 1024
)

// shares divides what may be sent among addresses, so that one of them cannot take
// it from the others.
type shares struct {
	all        *rate.Limiter
	perAddress rate.Limit
	burst      int

	mu sync.Mutex
	of map[netip.Addr]*rate.Limiter
}

// newShares returns shares of so much a second for one address and for all, and as
// much as burst in a row after a pause.
func newShares(perAddress, all rate.Limit, burst int) *shares {
	return &shares{
		all: rate.NewLimiter(all, burst), perAddress: perAddress, burst: burst,
		of: map[netip.Addr]*rate.Limiter{},
	}
}

// allow reports whether something may be sent to the client of the request.
func (s *shares) allow(r *http.Request) bool {
	var address netip.Addr
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		address = c.address
	}
	return s.take(address)
}

// take takes one from the share of an address, and reports whether there was one.
// Nil shares have no end.
func (s *shares) take(address netip.Addr) bool {
	return s == nil || s.share(address).Allow() && s.all.Allow()
}

func (s *shares) share(address netip.Addr) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := s.of[address]
	if limit == nil {
		if len(s.of) >= maxAddresses {
			clear(s.of) // the limit on all of them remains
		}
		limit = rate.NewLimiter(s.perAddress, s.burst)
		s.of[address] = limit
	}
	return limit
}

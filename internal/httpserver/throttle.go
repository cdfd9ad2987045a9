package httpserver

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Throttle limits an expensive handler to one request in five seconds, or five after a pause. It responds to others
// with 429.
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
	// responsesOfAddress and responsesOfAll are the responses per second, and burst the responses after a pause. Sending
	// one takes longer than refusing it.
	responsesOfAddress = 20
	responsesOfAll     = 200
	burst              = 200
	maxAddresses       = 1024
)

// shares limits a rate for each address and for all together, so that one address cannot use up the limit of the
// others. It is safe for concurrent use.
type shares struct {
	all        *rate.Limiter
	perAddress rate.Limit
	burst      int

	mu        sync.Mutex
	byAddress map[netip.Addr]*rate.Limiter
}

// newShares returns shares with a rate per second for one address and for all, and a burst after a pause.
func newShares(perAddress, all rate.Limit, burst int) *shares {
	return &shares{
		all: rate.NewLimiter(all, burst), perAddress: perAddress, burst: burst,
		byAddress: map[netip.Addr]*rate.Limiter{},
	}
}

// allow reports whether the client of the request is within its share.
func (s *shares) allow(r *http.Request) bool {
	var address netip.Addr
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		address = c.address
	}
	return s.take(address)
}

// take takes one from the share of an address, and reports whether there was one. Nil shares are unlimited.
func (s *shares) take(address netip.Addr) bool {
	return s == nil || s.share(address).Allow() && s.all.Allow()
}

func (s *shares) share(address netip.Addr) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := s.byAddress[address]
	if limit == nil {
		if len(s.byAddress) >= maxAddresses {
			clear(s.byAddress) // the limit for all addresses remains
		}
		limit = rate.NewLimiter(s.perAddress, s.burst)
		s.byAddress[address] = limit
	}
	return limit
}

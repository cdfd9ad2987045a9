package httpserver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/time/rate"
)

// TestHealthIsCached verifies that a flood causes one check a second, and that no response is older than that.
func TestHealthIsCached(t *testing.T) {
	for _, takes := range []time.Duration{0, 300 * time.Millisecond, 3 * time.Second} {
		t.Run(takes.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var checks, running atomic.Int32
				began := time.Now()
				results := NewCache(1, maxConns, func(context.Context) time.Time {
					if running.Add(1) > 1 {
						t.Error("two concurrent checks")
					}
					defer running.Add(-1)
					checks.Add(1)
					at := time.Now()
					time.Sleep(takes)
					return at
				})
				const duration, every, waiting = 10 * time.Second, 100 * time.Millisecond, 5
				for time.Since(began) < duration {
					asked := time.Now()
					for range waiting {
						go func() {
							at, err := results.Get(t.Context())
							if errors.Is(err, errBusy) {
								return
							}
							// A result that arrives after its request is new.
							if err != nil || time.Now().Equal(asked) && asked.Sub(at) >= time.Second {
								t.Errorf("%v: a result from %v ago", err, time.Since(at))
							}
						}()
					}
					time.Sleep(every)
					synctest.Wait()
				}
				want := int32(duration / max(time.Second, takes+every))
				if n := checks.Load(); n < want-1 || n > int32(duration/time.Second) {
					t.Errorf("%d checks in %s, want about %d", n, duration, want)
				}
				time.Sleep(takes)
			})
		})
	}
}

func TestHealthResponses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failure error
		h := Health(func(context.Context) error { return failure })
		ask := func() (int, string) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
			return w.Code, strings.TrimSpace(w.Body.String())
		}
		want := func(when string, code int, text string) {
			t.Helper()
			if gotCode, gotText := ask(); gotCode != code || gotText != text {
				t.Errorf("%s: %d %q", when, gotCode, gotText)
			}
		}
		want("well", 200, "ok")
		failure = errors.New("ill")
		want("within a second", 200, "ok")
		time.Sleep(time.Second)
		want("after a second", 503, "ill")
		failure = nil
		want("within a second of failing", 503, "ill")
		time.Sleep(time.Second)
		want("well again", 200, "ok")
	})
}

// TestCacheOutlivesRequest verifies that if the first client disconnects, the others still get the result.
func TestCacheOutlivesRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c := NewCache(1, 2, func(ctx context.Context) error {
			<-release
			return ctx.Err()
		})
		first, leave := context.WithCancel(t.Context())
		left, result := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := c.Get(first)
			left <- err
		}()
		synctest.Wait()
		go func() {
			made, err := c.Get(t.Context())
			result <- errors.Join(made, err)
		}()
		synctest.Wait()
		if _, err := c.Get(t.Context()); !errors.Is(err, errBusy) {
			t.Errorf("one request more than may wait: %v", err)
		}
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the client that left: %v", err)
		}
		close(release)
		if err := <-result; err != nil {
			t.Errorf("a client that stayed: %v", err)
		}
	})
}

// TestMetricsAreCached verifies that a single client gets new metrics each time, and a flood does not.
func TestMetricsAreCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		gathered := prometheus.NewCounter(prometheus.CounterOpts{Name: "gathered"})
		registry.MustRegister(gathered)
		var fails error
		n := 0
		h := Metrics(func(context.Context) ([]*dto.MetricFamily, error) {
			n++
			gathered.Inc()
			families, err := registry.Gather()
			return families, errors.Join(err, fails)
		})
		ask := func(accept string) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
			r.Header.Set("Accept", accept)
			h.ServeHTTP(w, r)
			return w
		}
		for range 3 {
			if w := ask(""); w.Code != 200 || !strings.Contains(w.Body.String(), "\ngathered "+string('0'+rune(n))+"\n") {
				t.Errorf("HTTP %d after %d: %s", w.Code, n, w.Body)
			}
		}
		const seconds = 10
		n = 0
		for range seconds * 2 {
			for _, accept := range []string{"", "text/plain;escaping=dots", "text/plain;escaping=allow-utf-8",
				"application/openmetrics-text", "x/y"} {
				if w := ask(accept); w.Code != 200 || w.Header().Get("Content-Type") != ask("").Header().Get("Content-Type") {
					t.Fatalf("%s: HTTP %d, %s", accept, w.Code, w.Header())
				}
			}
			time.Sleep(time.Second / 2)
		}
		if n > metricsBurst+seconds {
			t.Errorf("gathered %d times in %d seconds", n, seconds)
		}
		// A flood of requests for one format does not affect clients of the other.
		n = 0
		if w := ask(
			"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"); n != 1 ||
			!strings.Contains(w.Header().Get("Content-Type"), "protobuf") {
			t.Errorf("gathered %d times, %s", n, w.Header())
		}
		refused := 0
		for range 2 * burst {
			if ask("").Code == http.StatusTooManyRequests {
				refused++
			}
		}
		if refused < burst/2 {
			t.Errorf("%d of %d concurrent requests were rejected", refused, 2*burst)
		}
		time.Sleep(time.Second)
		fails = errors.New("why")
		if w := ask(""); w.Code != 500 || !strings.Contains(w.Body.String(), "why") {
			t.Errorf("HTTP %d: %s", w.Code, w.Body)
		}
	})
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		h := Throttle(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { n++ }))
		for range 100 {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
			if w.Code != 200 && w.Code != 429 {
				t.Fatalf("HTTP %d", w.Code)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if want := 5 + 10/5; n < want-1 || n > want+1 {
			t.Errorf("%d requests in ten seconds, want %d", n, want)
		}
	})
}

// TestShares verifies that an address that requests metrics all the time gets some of them, and
// does not use the share of others.
func TestShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShares(responsesOfAddress, responsesOfAll, burst)
		request := func(address netip.Addr) *http.Request {
			return httptest.NewRequestWithContext(context.WithValue(t.Context(), connKey{}, &conn{address: address}),
				http.MethodGet, "/", nil)
		}
		prometheus := request(netip.MustParseAddr("10.9.9.9"))
		flood := func(addresses, seconds int) (sent int) {
			var requests []*http.Request
			for n := range addresses {
				requests = append(requests, request(netip.AddrFrom4([4]byte{10, 0, byte(n / 250), byte(n % 250)})))
			}
			for range seconds * 10 {
				for n := range max(addresses, 100) {
					if s.allow(requests[n%addresses]) {
						sent++
					}
				}
				time.Sleep(100 * time.Millisecond)
			}
			return sent
		}
		for range 5 {
			if n := flood(2, 10); n > 2*(10*responsesOfAddress+burst) {
				t.Errorf("%d pages for two addresses in ten seconds", n)
			}
			if !s.allow(prometheus) {
				t.Error("no share for another address")
			}
		}
		if n := flood(2*maxAddresses, 5); n > 5*responsesOfAll+burst {
			t.Errorf("%d pages in five seconds for very many addresses", n)
		}
		if n := len(s.byAddress); n > maxAddresses {
			t.Errorf("%d addresses are stored", n)
		}
	})
}

// queue is a listener with many waiting connections.
type queue struct {
	net.Listener
	conns chan net.Conn
}

func (q queue) Accept() (net.Conn, error) { return <-q.conns, nil }

// TestAcceptRate verifies that waiting connections are accepted a few at a time.
func TestAcceptRate(t *testing.T) {
	const n = 5 * acceptBurst
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	conns := make(chan net.Conn, n)
	for range n {
		client, err := net.Dial("tcp", at.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		c, err := at.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns <- c
	}
	synctest.Test(t, func(t *testing.T) {
		l := &listener{Listener: queue{conns: conns}, pace: rate.NewLimiter(acceptRate, acceptBurst),
			conns: map[*conn]struct{}{}}
		began := time.Now()
		for range n {
			if _, err := l.Accept(); err != nil {
				t.Fatal(err)
			}
		}
		const want = (n - acceptBurst) * time.Second / acceptRate
		if took := time.Since(began); took < want || took > 2*want {
			t.Errorf("%d connections in %s, want %s", n, took, want)
		}
	})
}

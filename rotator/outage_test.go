package rotator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

// ownWorld has a Vault and an API server that no other test uses, to be sealed
// and restarted.
func ownWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, vault: testenv.NewVault(t), api: testenv.NewAPIServer(t), ns: "ns-own", key: "key-own"}
	w.root = w.session(w.vault.Address, w.vault.RootToken)
	w.kube = w.client(nil)
	w.installed(w.ns)
	w.newKey(w.key, true)
	return w
}

// patient is a session that waits for a Vault that does not answer for now.
func (w *world) patient(address string) *transit.Session {
	w.t.Helper()
	client, err := transit.NewClient(transit.Config{Address: address, RetryFor: time.Minute})
	if err != nil {
		w.t.Fatal(err)
	}
	return client.Session("", transit.StaticToken(w.vault.RootToken))
}

// TestOutage lets the real servers fail in the middle of a run. What comes back
// in time is waited for; what does not ends in a report that names it, and the
// next run does the rest.
func TestOutage(t *testing.T) {
	w := ownWorld(t)
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	// meanwhile goes on as soon as the server is gone; it comes back by itself.
	var coming sync.WaitGroup
	meanwhile := func(restart func(context.Context) error, address string) {
		_, host, _ := strings.Cut(address, "//")
		coming.Go(func() { must(restart(t.Context())) })
		for range 100000 {
			conn, err := net.Dial("tcp", host)
			if err != nil {
				return
			}
			conn.Close()
		}
		t.Errorf("%s did not go", address)
	}
	const quota = "sys/quotas/rate-limit/outage"
	tests := map[string]struct {
		patient bool
		at      step
		nth     int64
		do      func()
		undo    func()
		err     string // part of the report; empty: all is done
	}{
		"Vault is sealed": {
			at: beforeRewrap, nth: 2, do: func() { must(w.vault.Seal(t.Context())) },
			undo: func() { must(w.vault.Unseal(t.Context())) }, err: "Vault is sealed",
		},
		"Vault is sealed for a moment": {
			patient: true, at: beforeRewrap, nth: 2, do: func() {
				must(w.vault.Seal(t.Context()))
				coming.Go(func() { must(w.vault.Unseal(t.Context())) })
			},
		},
		"Vault is sealed before the key is rotated": {
			at: beforeRotate, nth: 1, do: func() { must(w.vault.Seal(t.Context())) },
			undo: func() { must(w.vault.Unseal(t.Context())) }, err: "Vault is sealed",
		},
		"Vault is restarted": {
			patient: true, at: beforeRewrap, nth: 2, do: func() { meanwhile(w.vault.Restart, w.vault.Address) },
		},
		"Vault has a quota": {
			at: beforeRewrap, nth: 2, do: func() {
				_, err := w.vault.Write(t.Context(), quota, map[string]any{"path": "transit/", "rate": 0.001, "interval": "1h"})
				must(err)
			},
			undo: func() { must(w.vault.Delete(t.Context(), quota)) }, err: "429",
		},
		"Vault has a quota that lets the run through": {
			patient: true, at: beforeRewrap, nth: 1, do: func() {
				_, err := w.vault.Write(t.Context(), quota, map[string]any{"path": "transit/", "rate": 1, "interval": "1s"})
				must(err)
			},
			undo: func() { must(w.vault.Delete(t.Context(), quota)) },
		},
		"the API server is restarted before a write": {
			at: beforePatchStep, nth: 150, do: func() { must(w.api.Restart(t.Context())) },
		},
		"the API server is restarted while others are written": {
			at: beforePatchStep, nth: 150, do: func() { meanwhile(w.api.Restart, w.api.Address) },
		},
		"the API server is restarted during a list": {
			at: afterPage, nth: 2, do: func() { must(w.api.Restart(t.Context())) },
		},
		"the API server is restarted before the summary": {
			at: beforeSummary, nth: 1, do: func() { must(w.api.Restart(t.Context())) },
		},
	}
	plain := w.fill(400)
	version := 1
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w.t = t
			version++
			g := &trigger{step: test.at, nth: test.nth, do: test.do}
			server, err := g.vault(w.vault.Address)
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			session := w.session(server.URL, w.vault.RootToken)
			if test.patient {
				session = w.patient(server.URL)
			}
			opts := w.options(func(o *rotator.Options) { o.Rotate = rotator.Always })
			report, err := rotator.RunInside(t.Context(), session, w.client(g.wrap), opts, rotator.Inside{PageSize: 100})
			coming.Wait()
			if test.undo != nil {
				test.undo()
			}
			if report == nil {
				t.Fatal(err)
			}
			k := only(t, report)
			if test.err == "" {
				if err != nil || k.Rewrapped != 400 {
					t.Errorf("%v; %d rewrapped, want 400", err, k.Rewrapped)
				}
			} else {
				if !errors.Is(err, rotator.ErrIncomplete) || !strings.Contains(err.Error(), test.err) ||
					!strings.Contains(k.Error, test.err) {
					t.Errorf("got %v, want %q", err, test.err)
				}
				opts.Rotate = rotator.Never
				if w.keyInfo().Latest < version {
					opts.Rotate = rotator.Always
				}
				if _, err := rotator.Run(t.Context(), w.root, w.kube, opts); err != nil {
					t.Errorf("the next run: %v", err)
				}
			}
			if latest := w.keyInfo().Latest; latest != version {
				t.Errorf("the key is at version %d, want %d", latest, version)
			}
			w.intact(plain, version)
		})
	}
}

// TestVaultCutsTheConnection lets Vault do the work and loses the answer.
func TestVaultCutsTheConnection(t *testing.T) {
	w := newWorld(t)
	w.agedKey(48 * time.Hour)
	plain := w.fill(300)
	var cut sync.Map // paths that were cut once
	address := w.proxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
		if _, again := cut.LoadOrStore(r.URL.Path, true); again {
			vault.ServeHTTP(rw, r)
			return
		}
		vault.ServeHTTP(discard{}, r)
		panic(http.ErrAbortHandler)
	})
	client, err := transit.NewClient(transit.Config{Address: address, RetryFor: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	opts := w.options(func(o *rotator.Options) { o.Rotate = rotator.Auto })
	report, err := rotator.Run(t.Context(), client.Session("", transit.StaticToken(w.vault.RootToken)), w.kube, opts)
	if err != nil || !only(t, report).Rotated {
		t.Errorf("%v, %+v", err, report)
	}
	if latest := w.keyInfo().Latest; latest != 2 {
		t.Errorf("the key is at version %d, want 2", latest)
	}
	for _, path := range w.rotatorPaths() {
		if _, ok := cut.Load("/v1/" + path); !ok {
			t.Errorf("%s was not asked", path)
		}
	}
	w.intact(plain, 2)
}

// discard is an answer that nobody gets.
type discard struct{}

func (discard) Header() http.Header            { return http.Header{} }
func (discard) Write(text []byte) (int, error) { return len(text), nil }
func (discard) WriteHeader(int)                {}

// TestKubernetesRefusesForNow answers requests in place of the API server, which
// does so only under a load that no test should make.
func TestKubernetesRefusesForNow(t *testing.T) {
	list := func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.Contains(r.URL.RawQuery, "limit=")
	}
	patch := func(r *http.Request) bool { return r.Method == http.MethodPatch }
	reset := errors.New("connection reset by peer")
	tests := map[string]struct {
		what   func(*http.Request) bool
		status int  // 0: no answer
		takes  bool // the request gets there all the same
		times  int64
		err    string
		left   int
	}{
		"list, 500":                      {what: list, status: 500, times: 3},
		"list, 503":                      {what: list, status: 503, times: 3},
		"list, 429":                      {what: list, status: 429, times: 3},
		"list, no answer":                {what: list, times: 3},
		"list, 500 for ever":             {what: list, status: 500, times: 1 << 40, err: "listing ciphertext Secrets"},
		"write, 429":                     {what: patch, status: 429, times: 3},
		"write, 503":                     {what: patch, status: 503, times: 3},
		"write, no answer":               {what: patch, times: 3},
		"write, it took and no answer":   {what: patch, takes: true, times: 3},
		"write, it took and a 504":       {what: patch, takes: true, status: 504, times: 3},
		"write, 500 of a broken webhook": {what: patch, status: 500, times: 1, err: "1 left", left: 1},
		"write, 409":                     {what: patch, status: 409, times: 1, err: "1 left", left: 1},
		"write, 429 for ever":            {what: patch, status: 429, times: 1 << 40, err: "30 left", left: 30},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			plain := w.fill(30)
			w.rotateKey()
			var failed atomic.Int64
			kube := w.client(func(next http.RoundTripper) http.RoundTripper {
				return roundTrip(func(r *http.Request) (*http.Response, error) {
					if !test.what(r) || failed.Add(1) > test.times {
						return next.RoundTrip(r)
					}
					if test.takes {
						if resp, err := next.RoundTrip(r); err == nil {
							resp.Body.Close()
						}
					}
					if test.status == 0 {
						return nil, reset
					}
					text := fmt.Sprintf(
						`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d,"message":"not now"}`, reasons[test.status], test.status)
					return &http.Response{StatusCode: test.status, Header: http.Header{"Content-Type": {"application/json"}},
						Body: io.NopCloser(bytes.NewReader([]byte(text))), Request: r}, nil
				})
			})
			patience := time.Minute
			if test.times > 3 {
				patience = 300 * time.Millisecond
			}
			report, err := rotator.RunInside(t.Context(), w.minimal(), kube, w.options(), rotator.Inside{RetryFor: patience})
			if failed.Load() == 0 {
				t.Fatal("nothing was refused")
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %v, want %q", err, test.err)
			}
			if report == nil {
				return
			}
			k := only(t, report)
			if k.Rewrapped != 30-test.left || k.LeftCount != test.left {
				t.Errorf("%d rewrapped, %d left: want %d and %d", k.Rewrapped, k.LeftCount, 30-test.left, test.left)
			}
			for _, l := range k.Left {
				if l.Name == "" || l.Reason == "" {
					t.Errorf("left without a name or a reason: %+v", l)
				}
			}
			if test.left == 0 {
				w.intact(plain, 2)
			}
		})
	}
}

var reasons = map[int]metav1.StatusReason{
	409: metav1.StatusReasonConflict, 429: metav1.StatusReasonTooManyRequests, 500: metav1.StatusReasonInternalError,
	503: metav1.StatusReasonServiceUnavailable, 504: metav1.StatusReasonTimeout,
}

// TestOutageCostsItsTimeOnce has an API server that takes no write: how often it
// is asked does not depend on how many Secrets there are.
func TestOutageCostsItsTimeOnce(t *testing.T) {
	w := newWorld(t)
	w.fill(200)
	w.rotateKey()
	var asked atomic.Int64
	var kube kubernetes.Interface = w.client(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodPatch {
				return next.RoundTrip(r)
			}
			asked.Add(1)
			return nil, errors.New("connection refused")
		})
	})
	report, err := rotator.RunInside(t.Context(), w.minimal(), kube, w.options(), rotator.Inside{RetryFor: time.Second})
	if k := only(t, report); !errors.Is(err, rotator.ErrIncomplete) || k.LeftCount != 200 {
		t.Errorf("%v, %d left", err, k.LeftCount)
	}
	// Once each, and what four workers try in a second.
	if n := asked.Load(); n < 200 || n > 200+4*20 {
		t.Errorf("%d writes were tried for 200 Secrets", n)
	}
}

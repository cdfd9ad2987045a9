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
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

// newUnsharedFixture starts a Vault and an API server that the test may seal and restart.
func newUnsharedFixture(t *testing.T) *testFixture {
	t.Helper()
	return onServers(fixture.In(t, testenv.NewVault(t)).With(testenv.NewAPIServer(t)))
}

// patient returns a session that repeats failed requests.
func (f *testFixture) patient(address string) *transit.Session {
	f.T.Helper()
	client, err := transit.NewClient(transit.Config{Address: address, RetryFor: time.Minute})
	if err != nil {
		f.T.Fatal(err)
	}
	return client.Session("", transit.StaticToken(f.Vault.RootToken))
}

// TestOutage lets the real servers fail during a run. After a short outage the run
// completes. After a long one the report has the cause, and the next run completes the
// work.
func TestOutage(t *testing.T) {
	f := newUnsharedFixture(t)
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	// inBackground restarts a server. It returns when the server is down.
	var restarts sync.WaitGroup
	inBackground := func(restart func(context.Context) error, address string) {
		_, host, _ := strings.Cut(address, "//")
		restarts.Go(func() { must(restart(t.Context())) })
		for range 100000 {
			conn, err := net.Dial("tcp", host)
			if err != nil {
				return
			}
			conn.Close()
		}
		t.Errorf("%s did not stop", address)
	}
	const quota = "sys/quotas/rate-limit/outage"
	tests := map[string]struct {
		patient bool
		at      step
		nth     int64
		do      func()
		undo    func()
		err     string // part of the error; empty for none
		always  bool   // in make test too, not only in make test-long
	}{
		"Vault is sealed": {
			at: beforeRewrap, nth: 2, do: func() { must(f.Vault.Seal(t.Context())) },
			undo: func() { must(f.Vault.Unseal(t.Context())) }, err: "Vault is sealed",
		},
		"Vault is sealed briefly": {
			always: true, patient: true, at: beforeRewrap, nth: 2, do: func() {
				must(f.Vault.Seal(t.Context()))
				restarts.Go(func() { must(f.Vault.Unseal(t.Context())) })
			},
		},
		"Vault is sealed before the key is rotated": {
			at: beforeRotate, nth: 1, do: func() { must(f.Vault.Seal(t.Context())) },
			undo: func() { must(f.Vault.Unseal(t.Context())) }, err: "Vault is sealed",
		},
		"Vault is restarted": {
			patient: true, at: beforeRewrap, nth: 2, do: func() { inBackground(f.Vault.Restart, f.Vault.Address) },
		},
		"Vault has a quota": {
			at: beforeRewrap, nth: 2, do: func() {
				_, err := f.Vault.Write(t.Context(), quota, map[string]any{"path": "transit/", "rate": 0.001, "interval": "1h"})
				must(err)
			},
			undo: func() { must(f.Vault.Delete(t.Context(), quota)) }, err: "429",
		},
		"Vault has a quota that slows the run": {
			patient: true, at: beforeRewrap, nth: 1, do: func() {
				_, err := f.Vault.Write(t.Context(), quota, map[string]any{"path": "transit/", "rate": 1, "interval": "1s"})
				must(err)
			},
			undo: func() { must(f.Vault.Delete(t.Context(), quota)) },
		},
		"the API server is restarted before a write": {
			at: beforePatchStep, nth: 150, do: func() { must(f.API.Restart(t.Context())) },
		},
		"the API server is restarted during writes": {
			always: true, at: beforePatchStep, nth: 150, do: func() { inBackground(f.API.Restart, f.API.Address) },
		},
		"the API server is restarted during a list": {
			at: afterPage, nth: 2, do: func() { must(f.API.Restart(t.Context())) },
		},
		"the API server is restarted before the summary": {
			at: beforeSummary, nth: 1, do: func() { must(f.API.Restart(t.Context())) },
		},
	}
	plain := f.fill(400)
	version := 1
	for name, test := range tests {
		if !test.always && !long() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			f.T = t
			version++
			g := &trigger{step: test.at, nth: test.nth, do: test.do}
			server, err := g.vault(f.Vault.Address)
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			session := f.Session(server.URL, f.Vault.RootToken)
			if test.patient {
				session = f.patient(server.URL)
			}
			opts := f.options(func(o *rotator.Options) { o.Rotate = rotator.Always })
			report, err := rotator.RunInside(t.Context(), session, f.Client(g.wrap), opts, rotator.Inside{PageSize: 100})
			restarts.Wait()
			if test.undo != nil {
				test.undo()
			}
			if report == nil {
				t.Fatal(err)
			}
			k := onlyKey(t, report)
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
				if f.KeyInfo().Latest < version {
					opts.Rotate = rotator.Always
				}
				if _, err := rotator.Run(t.Context(), f.Root, f.Kube, opts); err != nil {
					t.Errorf("the next run: %v", err)
				}
			}
			if latest := f.KeyInfo().Latest; latest != version {
				t.Errorf("the key is at version %d, want %d", latest, version)
			}
			f.checkIntact(plain, version)
		})
	}
}

// TestVaultClosesConnection loses responses to requests that Vault has processed.
func TestVaultClosesConnection(t *testing.T) {
	f := newServerFixture(t)
	f.ageKey(48 * time.Hour)
	plain := f.fill(300)
	var closed sync.Map // paths whose connection was closed once
	address := f.VaultProxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
		if _, again := closed.LoadOrStore(r.URL.Path, true); again {
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
	opts := f.options(func(o *rotator.Options) { o.Rotate = rotator.Auto })
	report, err := rotator.Run(t.Context(), client.Session("", transit.StaticToken(f.Vault.RootToken)), f.Kube, opts)
	if err != nil || !onlyKey(t, report).Rotated {
		t.Errorf("%v, %+v", err, report)
	}
	if latest := f.KeyInfo().Latest; latest != 2 {
		t.Errorf("the key is at version %d, want 2", latest)
	}
	for _, path := range f.rotatorPaths() {
		if _, ok := closed.Load("/v1/" + path); !ok {
			t.Errorf("no request to %s", path)
		}
	}
	f.checkIntact(plain, 2)
}

// discard is a ResponseWriter that discards the response.
type discard struct{}

func (discard) Header() http.Header            { return http.Header{} }
func (discard) Write(text []byte) (int, error) { return len(text), nil }
func (discard) WriteHeader(int)                {}

// TestAPIServerUnavailable responds to requests instead of the API server, which does so only
// under heavy load.
func TestAPIServerUnavailable(t *testing.T) {
	parallel(t)
	list := func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.Contains(r.URL.RawQuery, "limit=")
	}
	patch := func(r *http.Request) bool { return r.Method == http.MethodPatch }
	reset := errors.New("connection reset by peer")
	tests := map[string]struct {
		match      func(*http.Request) bool
		status     int  // 0: no response
		processed  bool // the API server processes the request
		times      int64
		err        string
		unresolved int
	}{
		"list, 500":                     {match: list, status: 500, times: 3},
		"list, 503":                     {match: list, status: 503, times: 3},
		"list, 429":                     {match: list, status: 429, times: 3},
		"list, no response":             {match: list, times: 3},
		"list, 500 permanently":         {match: list, status: 500, times: 1 << 40, err: "listing ciphertext Secrets"},
		"write, 429":                    {match: patch, status: 429, times: 3},
		"write, 503":                    {match: patch, status: 503, times: 3},
		"write, no response":            {match: patch, times: 3},
		"write, processed, no response": {match: patch, processed: true, times: 3},
		"write, processed, 504":         {match: patch, processed: true, status: 504, times: 3},
		"write, 500 of a webhook":       {match: patch, status: 500, times: 1, err: "1 unresolved", unresolved: 1},
		"write, 409":                    {match: patch, status: 409, times: 1, err: "1 unresolved", unresolved: 1},
		"write, 429 permanently":        {match: patch, status: 429, times: 1 << 40, err: "30 unresolved", unresolved: 30},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			plain := f.fill(30)
			f.RotateKey()
			var failed atomic.Int64
			kube := f.Client(func(next http.RoundTripper) http.RoundTripper {
				return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
					if !test.match(r) || failed.Add(1) > test.times {
						return next.RoundTrip(r)
					}
					if test.processed {
						if resp, err := next.RoundTrip(r); err == nil {
							resp.Body.Close()
						}
					}
					if test.status == 0 {
						return nil, reset
					}
					text := fmt.Sprintf(
						`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d,"message":"not now"}`,
						reasons[test.status], test.status)
					return &http.Response{StatusCode: test.status, Header: http.Header{"Content-Type": {"application/json"}},
						Body: io.NopCloser(bytes.NewReader([]byte(text))), Request: r}, nil
				})
			})
			retryFor := time.Minute
			if test.times > 3 {
				retryFor = 300 * time.Millisecond
			}
			report, err := rotator.RunInside(t.Context(), f.minimal(), kube, f.options(), rotator.Inside{RetryFor: retryFor})
			if failed.Load() == 0 {
				t.Fatal("no request failed")
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %v, want %q", err, test.err)
			}
			if report == nil {
				return
			}
			k := onlyKey(t, report)
			if k.Rewrapped != 30-test.unresolved || k.Unresolved.Count != test.unresolved {
				t.Errorf("%d rewrapped, %d unresolved: want %d and %d", k.Rewrapped, k.Unresolved.Count,
					30-test.unresolved, test.unresolved)
			}
			for _, p := range k.Unresolved.Items {
				if p.Name == "" || p.Reason == "" {
					t.Errorf("no name or no reason: %+v", p)
				}
			}
			if test.unresolved == 0 {
				f.checkIntact(plain, 2)
			}
		})
	}
}

var reasons = map[int]metav1.StatusReason{
	409: metav1.StatusReasonConflict, 429: metav1.StatusReasonTooManyRequests, 500: metav1.StatusReasonInternalError,
	503: metav1.StatusReasonServiceUnavailable, 504: metav1.StatusReasonTimeout,
}

// TestOutageIsWaitedForOnce has an API server that accepts no write. The number of repeated
// requests does not depend on the number of Secrets.
func TestOutageIsWaitedForOnce(t *testing.T) {
	parallel(t)
	f := newFixture(t)
	f.fill(200)
	f.RotateKey()
	var writes atomic.Int64
	var kube kubernetes.Interface = f.Client(func(next http.RoundTripper) http.RoundTripper {
		return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodPatch {
				return next.RoundTrip(r)
			}
			writes.Add(1)
			return nil, errors.New("connection refused")
		})
	})
	report, err := rotator.RunInside(t.Context(), f.minimal(), kube, f.options(), rotator.Inside{RetryFor: time.Second})
	if k := onlyKey(t, report); !errors.Is(err, rotator.ErrIncomplete) || k.Unresolved.Count != 200 {
		t.Errorf("%v, %d unresolved", err, k.Unresolved.Count)
	}
	// One for each Secret, and those that four workers repeat in a second.
	if n := writes.Load(); n < 200 || n > 200+4*20 {
		t.Errorf("%d writes for 200 Secrets", n)
	}
}

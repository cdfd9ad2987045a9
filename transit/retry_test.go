package transit

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestDeadlineReturnsLastError(t *testing.T) {
	s := fakeVault(t, 0, respond(503, `{"errors":["Vault is sealed"]}`))
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	_, err := s.Decrypt(ctx, fakeKey, []Item{{}})
	if !errors.Is(err, ErrSealed) || !strings.Contains(err.Error(), "tried ") {
		t.Errorf("got %v", err)
	}
}

func TestRetryAfterExceedsDeadline(t *testing.T) {
	var requests atomic.Int32
	s := fakeVault(t, 0, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("Retry-After", "3600")
		respond(429, `{"errors":["quota"]}`)(w, r)
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := s.Decrypt(ctx, fakeKey, []Item{{}}); !errors.Is(err, ErrBusy) || requests.Load() != 1 ||
		ctx.Err() != nil {
		t.Errorf("%v after %d requests", err, requests.Load())
	}
}

func TestRotateIsSentOnce(t *testing.T) {
	var requests atomic.Int32
	s := fakeVault(t, 0, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		respond(502, "")(w, r)
	})
	if _, err := s.Rotate(t.Context(), fakeKey); err == nil || requests.Load() != 1 {
		t.Errorf("%v after %d requests", err, requests.Load())
	}
}

// TestRetryAfterExceedsRetryFor has no deadline: RetryFor bounds the wait, and the error
// names what Vault asked for.
func TestRetryAfterExceedsRetryFor(t *testing.T) {
	s := fakeVault(t, time.Minute, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "3600")
		respond(429, `{"errors":["quota"]}`)(w, r)
	})
	if _, err := s.Decrypt(t.Context(), fakeKey, []Item{{}}); !errors.Is(err, ErrBusy) ||
		!strings.Contains(err.Error(), "retry after 1h0m0s") {
		t.Errorf("got %v", err)
	}
}

// TestSilentVault waits for a server that accepts connections and sends nothing, with and
// without a deadline.
func TestSilentVault(t *testing.T) {
	stop := make(chan struct{})
	s := fakeVault(t, 0, func(http.ResponseWriter, *http.Request) { <-stop })
	t.Cleanup(func() { close(stop) }) // before the Close of the server, which waits for the handler
	waited := make(chan string, 100)
	s.client.waiting, s.client.reportEvery = func(doing string, _ time.Duration) { waited <- doing }, 20*time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Decrypt(ctx, fakeKey, []Item{{}}); !errors.Is(err, ErrTimeout) {
		t.Errorf("with a deadline: %v", err)
	}
	if len(waited) == 0 || <-waited != "decrypting with transit/keys/k" {
		t.Error("the wait was not reported")
	}
	s.client.requestTimeout, s.client.retryFor = 100*time.Millisecond, -1
	if _, err := s.Decrypt(t.Context(), fakeKey, []Item{{}}); !errors.Is(err, ErrTimeout) {
		t.Errorf("without a deadline: %v", err)
	}
}

// TestQPS allows one request in 11 days: the second one fails at once.
func TestQPS(t *testing.T) {
	var requests atomic.Int32
	address := fakeVault(t, -1, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		respond(200, `{"data": {"latest_version": 1}}`)(w, r)
	}).Address()
	for qps, want := range map[float64]int32{1e-6: 1, 0: 2} {
		requests.Store(0)
		s := newSession(t, Config{Address: address, RetryFor: -1, QPS: qps})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err1 := s.Key(ctx, fakeKey)
		_, err2 := s.Key(ctx, fakeKey)
		if err1 != nil || (err2 == nil) != (want == 2) || err2 != nil &&
			!strings.Contains(err2.Error(), "would exceed context deadline") {
			t.Errorf("QPS %v: %v, %v", qps, err1, err2)
		}
		if got := requests.Load(); got != want {
			t.Errorf("QPS %v: %d requests, want %d", qps, got, want)
		}
	}
}

func TestEnvironmentIsIgnored(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "hvs.foreign\x01") // not a valid header
	t.Setenv("VAULT_NAMESPACE", "foreign")
	t.Setenv("VAULT_WRAP_TTL", "60s")
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:1")
	var got http.Header
	s := fakeVault(t, -1, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		writeToken(w, "t", 0)
	})
	login := fakeLogin("jwt")
	if _, err := s.client.Login(t.Context(), login); err != nil {
		t.Fatal(err)
	}
	for _, header := range []string{"X-Vault-Token", "X-Vault-Namespace", "X-Vault-Wrap-Ttl"} {
		if v := got.Get(header); v != "" {
			t.Errorf("%s: %q was sent", header, v)
		}
	}
	login.Namespace = "team"
	if _, err := s.client.Login(t.Context(), login); err != nil || got.Get("X-Vault-Namespace") != "team" {
		t.Errorf("namespace %q was sent, %v", got.Get("X-Vault-Namespace"), err)
	}
}

func TestNewClientErrors(t *testing.T) {
	for name, c := range map[string]Config{
		"no address":       {},
		"no scheme":        {Address: "vault:8200"},
		"unix":             {Address: "unix:///run/vault"},
		"half certificate": {Address: "https://vault:8200", ClientCert: "x"},
		"missing CA":       {Address: "https://vault:8200", CACert: "/does/not/exist"},
	} {
		if _, err := NewClient(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

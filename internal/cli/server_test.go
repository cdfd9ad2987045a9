package cli

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/pflag"

	"github.com/secretmanager-io/secretmanager/internal/retry"
	"github.com/secretmanager-io/secretmanager/transit"
)

// transport is a function as an http.RoundTripper.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// hang is a server that never responds.
func hang(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func respond(status int, body io.Reader) transport {
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(body)}, nil
	}
}

func newTestServer() *server {
	return &server{name: vaultName, timeout: requestTimeout, silence: silenceTimeout, line: newWaitLine(nil)}
}

// get makes a request, and reads the response.
func get(t *testing.T, s *server, next transport) error {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://vault.example:8200/v1/secret?x=y", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.wrap(next).RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	return err
}

// TestServerEndsRequests verifies that a request ends after its timeout, and that no request is sent to a server that
// has not responded to any for longer than that.
func TestServerEndsRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, began := newTestServer(), time.Now()
		err := get(t, s, hang)
		if took := time.Since(began); took != requestTimeout ||
			err.Error() != "no response from Vault at https://vault.example:8200 within 10s" ||
			!errors.Is(err, transit.ErrTimeout) || errors.Is(err, retry.ErrGivenUp) {
			t.Errorf("after %s: %v", took, err)
		}
		for range 10 {
			err = get(t, s, hang)
		}
		if took := time.Since(began); took != silenceTimeout || !errors.Is(err, retry.ErrGivenUp) ||
			!strings.Contains(err.Error(), "for 30s, and no further attempt") {
			t.Errorf("after %s: %v", took, err)
		}
		// Somebody who answered a question in between is not waiting.
		time.Sleep(time.Minute)
		if err := get(t, s, respond(http.StatusOK, strings.NewReader("x"))); err != nil {
			t.Error(err)
		}
	})
}

// TestServerThatResponds verifies that a run may take any time while the server responds.
func TestServerThatResponds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer()
		for range 20 {
			if err := get(t, s, func(r *http.Request) (*http.Response, error) {
				time.Sleep(9 * time.Second)
				return respond(http.StatusOK, strings.NewReader("x"))(r)
			}); err != nil {
				t.Fatal(err)
			}
			if err := get(t, s, hang); err == nil || errors.Is(err, retry.ErrGivenUp) {
				t.Fatal(err)
			}
		}
	})
}

// slowBody is a body that never ends.
type slowBody struct{ stopped <-chan struct{} }

func (b slowBody) Read([]byte) (int, error) {
	<-b.stopped
	return 0, errors.New("stopped")
}

// TestServerFailures verifies which results count as no response.
func TestServerFailures(t *testing.T) {
	for name, test := range map[string]struct {
		next  transport
		fails bool
	}{
		"connection refused": {func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") }, true},
		"sealed":             {respond(http.StatusServiceUnavailable, strings.NewReader("{}")), true},
		"body without an end": {func(r *http.Request) (*http.Response, error) {
			return respond(http.StatusOK, slowBody{r.Context().Done()})(r)
		}, true},
		"denied":    {respond(http.StatusForbidden, strings.NewReader("{}")), false},
		"throttled": {respond(http.StatusTooManyRequests, strings.NewReader("{}")), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, began := newTestServer(), time.Now()
				var err error
				for time.Since(began) < time.Minute && !errors.Is(err, retry.ErrGivenUp) {
					err = get(t, s, test.next)
					time.Sleep(time.Second) // as before another attempt
				}
				if given := errors.Is(err, retry.ErrGivenUp); given != test.fails {
					t.Errorf("gave up: %v; %v", given, err)
				}
				if took := time.Since(began); test.fails && took > silenceTimeout+2*time.Second {
					t.Errorf("took %s", took)
				}
			})
		})
	}
}

// TestTimeoutSettings verifies the precedence of the flag and the variable.
func TestTimeoutSettings(t *testing.T) {
	for name, test := range map[string]struct {
		args        []string
		env         string
		vault, kube time.Duration
		silence     time.Duration // for Vault
		fails       bool
	}{
		"defaults": {vault: 10 * time.Second, kube: 10 * time.Second, silence: 30 * time.Second},
		"variable": {env: "20", vault: 20 * time.Second, kube: 10 * time.Second, silence: 30 * time.Second},
		"long":     {env: "2m", vault: 2 * time.Minute, kube: 10 * time.Second, silence: 2 * time.Minute},
		"flag": {args: []string{"--request-timeout=3s"}, env: "20s", vault: 3 * time.Second, kube: 3 * time.Second,
			silence: 30 * time.Second},
		"none":              {args: []string{"--request-timeout=0"}},
		"invalid flag":      {args: []string{"--request-timeout=soon"}, fails: true},
		"negative variable": {env: "-1s", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := NewFactory(Environment{Getenv: func(name string) string {
				return map[string]string{"VAULT_CLIENT_TIMEOUT": test.env}[name]
			}})
			f := pflag.NewFlagSet("", pflag.ContinueOnError)
			p.AddFlags(f)
			if err := f.Parse(test.args); err != nil {
				t.Fatal(err)
			}
			err := p.SetTimeouts(f)
			if test.fails {
				if !errors.As(err, &UsageError{}) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || p.vault.timeout != test.vault || p.kube.timeout != test.kube || p.vault.silence != test.silence {
				t.Errorf("%v: Vault %s and %s, Kubernetes %s", err, p.vault.timeout, p.vault.silence, p.kube.timeout)
			}
		})
	}
}

func TestSimilar(t *testing.T) {
	keys := []string{"billing", "matrix", "matrix-eu", "web"}
	for name, want := range map[string]string{
		"matrx": "matrix", "matrix-u": "matrix-eu matrix", "wbe": "web", "nothing": "", "bill": "billing", "": "",
	} {
		if got := strings.Join(similar(name, keys), " "); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}

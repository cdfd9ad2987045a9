package transit

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// The tests of this package use a real Vault, except for faults that a real one does not
// produce on demand: for these they use a server of fakeVault.

const (
	canaryToken = "hvs.canary-token"
	canaryText  = "vault:v1:Y2FuYXJ5LWNpcGhlcnRleHQtY2FuYXJ5LWNpcGhlcnRleHQtY2FuYXJ5"
	canaryPlain = "Y2FuYXJ5LXBsYWludGV4dA=="
)

var fakeKey = ciphertext.Key{Mount: "transit", Name: "k"}

// fakeVault returns a session with the server of a handler.
func fakeVault(t *testing.T, retryFor time.Duration, h http.HandlerFunc) *Session {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return newSession(t, Config{Address: server.URL, RetryFor: retryFor})
}

func newSession(t *testing.T, config Config) *Session {
	t.Helper()
	client, err := NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	return client.Session("", StaticToken(canaryToken))
}

// respond returns a handler with a fixed response.
func respond(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// writeResults responds with n equal results of a batch.
func writeResults(w http.ResponseWriter, n int, result string) {
	fmt.Fprintf(w, `{"data":{"batch_results":[%s]}}`, strings.TrimSuffix(strings.Repeat(result+",", n), ","))
}

// batchSize returns the number of items of a request.
func batchSize(t *testing.T, r *http.Request) int {
	t.Helper()
	var in struct {
		Items []json.RawMessage `json:"batch_input"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		t.Error(err)
	}
	return len(in.Items)
}

// firstError returns the error of a call, or of the first item that failed.
func firstError(results []Result, err error) error {
	for _, r := range results {
		err = cmp.Or(err, r.Err)
	}
	return err
}

// checkLeak reports values of the test and line breaks in an error.
func checkLeak(t *testing.T, err error) {
	t.Helper()
	for _, text := range []string{"canary", canaryPlain, canaryText[10:40], "314159265", "\n"} {
		if err != nil && strings.Contains(err.Error(), text) {
			t.Errorf("error contains %q: %v", text, err)
		}
	}
}

func fakeLogin(jwt string) Login {
	return Login{Mount: "kubernetes", Role: "app", JWT: fixedJWT(jwt)}
}

func fixedJWT(jwt string) func() (string, error) { return func() (string, error) { return jwt, nil } }

// fakeLoginSource returns a source whose logins are handled by h.
func fakeLoginSource(t *testing.T, h func(w http.ResponseWriter, r *http.Request, jwt string)) *LoginSource {
	t.Helper()
	s := fakeVault(t, 0, func(w http.ResponseWriter, r *http.Request) {
		var in struct{ JWT string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		h(w, r, in.JWT)
	})
	return s.client.NewLoginSource(fakeLogin("jwt"))
}

// writeToken responds to a login with a token that lives ttl seconds.
func writeToken(w http.ResponseWriter, token string, ttl int) {
	fmt.Fprintf(w, `{"auth":{"client_token":%q,"lease_duration":%d,"metadata":{"role":"app"}}}`, token, ttl)
}

// tokenResult is the result of TokenSource.Token.
type tokenResult struct {
	token string
	err   error
}

// goToken calls Token in another goroutine.
func goToken(ctx context.Context, s TokenSource) <-chan tokenResult {
	got := make(chan tokenResult, 1)
	go func() {
		token, err := s.Token(ctx)
		got <- tokenResult{token, err}
	}()
	return got
}

// awaitCallers waits until n callers wait for the pending login.
func awaitCallers(t *testing.T, s *LoginSource, n int) {
	t.Helper()
	for t.Context().Err() == nil {
		s.mu.Lock()
		c := s.pending
		s.mu.Unlock()
		if c != nil {
			c.mu.Lock()
			waiting := c.waiting
			c.mu.Unlock()
			if waiting == n {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
}

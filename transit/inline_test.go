package transit

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// readInline returns the login in the headers of a request: the path and the parameters.
func readInline(t *testing.T, h http.Header) map[string]string {
	t.Helper()
	login := map[string]string{}
	for name, values := range h {
		name = strings.ToLower(name)
		if !strings.HasPrefix(name, "x-vault-inline-auth-") {
			continue
		}
		if len(values) != 1 {
			t.Errorf("header %s has %d values", name, len(values))
		}
		if name == "x-vault-inline-auth-path" {
			login["path"] = values[0]
			continue
		}
		var parameter struct{ Key, Value string }
		text, err := base64.RawURLEncoding.DecodeString(values[0])
		if err == nil {
			err = json.Unmarshal(text, &parameter)
		}
		if err != nil {
			t.Errorf("header %s: %v", name, err)
		}
		login[parameter.Key] = parameter.Value
	}
	return login
}

// inlineSession returns a session whose requests contain the login of fakeLogin.
func inlineSession(t *testing.T, config Config) *Session {
	t.Helper()
	client, err := NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	login := fakeLogin("canary-jwt")
	login.Namespace = "team/sub"
	return client.InlineSession(login)
}

var wantInline = map[string]string{"path": "auth/kubernetes/login", "role": "app", "jwt": "canary-jwt"}

// TestInlineRequests checks that each batch contains the login, no token, the namespace and
// the audit headers, also at the target of a redirect.
func TestInlineRequests(t *testing.T) {
	var batches []int
	check := func(r *http.Request) {
		if diff := cmp.Diff(wantInline, readInline(t, r.Header)); diff != "" {
			t.Errorf("login (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(wantAudit(fullAudit("1")), sentAudit(r.Header)); diff != "" {
			t.Errorf("audit headers (-want +got):\n%s", diff)
		}
		if r.Header.Get("X-Vault-Token") != "" || r.Header.Get("X-Vault-Namespace") != "team/sub" {
			t.Errorf("headers %v", r.Header)
		}
	}
	active := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		check(r)
		batches = append(batches, batchSize(t, r))
		writeResults(w, batches[len(batches)-1], `{"plaintext":""}`)
	}))
	t.Cleanup(active.Close)
	standby := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		check(r)
		http.Redirect(w, r, active.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(standby.Close)
	for _, address := range []string{active.URL, standby.URL} {
		batches = nil
		var logins []error
		s := inlineSession(t, Config{Address: address, RetryFor: -1,
			LoggedIn: func(err error) { logins = append(logins, err) }})
		results, err := s.Decrypt(WithAudit(t.Context(), fullAudit("1")), fakeKey, make([]Item, 250))
		if err != nil || len(results) != 250 {
			t.Errorf("%d results, %v", len(results), err)
		}
		if diff := cmp.Diff([]int{100, 100, 50}, batches); diff != "" {
			t.Errorf("batches (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]error{nil, nil, nil}, logins); diff != "" {
			t.Errorf("logins (-want +got):\n%s", diff)
		}
	}
}

// TestInlineRedirects checks that a refused redirect does not send the login to another
// server.
func TestInlineRedirects(t *testing.T) {
	var reached atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(elsewhere.Close)
	plain := strings.Replace(elsewhere.URL, "127.0.0.1", "0.0.0.0", 1) // counts as outside of the loopback interface
	for name, location := range map[string]string{
		"another request": elsewhere.URL + "/v1/sys/health", "login page": elsewhere.URL + "/login?rd=/v1/",
		"plain HTTP": plain + "/v1/transit/decrypt/k",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}))
		t.Cleanup(server.Close)
		_, err := inlineSession(t, Config{Address: server.URL, RetryFor: -1}).Decrypt(t.Context(), fakeKey, []Item{{}})
		if err == nil || reached.Load() != 0 {
			t.Errorf("%s: %d requests elsewhere, %v", name, reached.Load(), err)
		}
		checkLeak(t, err)
	}
}

// TestInlineRetries checks that each attempt contains the login, also at the next server of
// a cluster, and that all of them count as one login.
func TestInlineRetries(t *testing.T) {
	var sent []string
	answers := []int{http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusOK}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent = append(sent, readInline(t, r.Header)["jwt"])
		if status := answers[len(sent)-1]; status != http.StatusOK {
			respond(status, `{"errors":["Vault is sealed"]}`)(w, r)
			return
		}
		writeResults(w, 1, `{"plaintext":""}`)
	}))
	t.Cleanup(server.Close)
	logins := 0
	s := inlineSession(t, Config{Address: "http://127.0.0.1:1," + server.URL, RetryFor: time.Minute,
		LoggedIn: func(error) { logins++ }})
	if _, err := s.Decrypt(t.Context(), fakeKey, []Item{{}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"canary-jwt", "canary-jwt", "canary-jwt"}, sent); diff != "" || logins != 1 {
		t.Errorf("%d logins, tokens (-want +got):\n%s", logins, diff)
	}
}

// TestInlineErrors checks which errors are those of the login. A batch is only bisected if
// one of its items may be the cause.
func TestInlineErrors(t *testing.T) {
	for name, test := range map[string]struct {
		status   int
		failed   bool // the header of OpenBao
		message  string
		login    bool
		sentinel error
		requests int
		logins   int // that are known to have failed
	}{
		"login of a jwt mount":  {400, true, "invalid audience (aud) claim", true, ErrDenied, 1, 1},
		"login without a mount": {404, true, `no handler for route \"auth/x/login\"`, true, ErrNotFound, 1, 1},
		"denied login":          {403, true, "permission denied", true, ErrDenied, 1, 1},
		"login without a response": {403, false, "failed to perform inline authentication: permission denied", true,
			ErrDenied, 1, 1},
		"failure of the auth method": {500, false, "failed to perform inline authentication: no API server", true, nil, 1, 1},
		"denied, also by Vault":      {403, false, "permission denied", false, ErrDenied, 1, 0},
		"sealed":                     {503, false, "Vault is sealed", false, ErrSealed, 1, 1},
		"item":                       {400, false, "an item is invalid", false, nil, 7, 0},
		"login without a token":      {200, true, "", true, ErrNotVault, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			requests, logins := 0, 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests++
				if test.failed {
					w.Header().Set("X-Vault-Inline-Auth-Failed", "true")
				}
				respond(test.status, `{"errors":["`+test.message+`"]}`)(w, r)
			}))
			t.Cleanup(server.Close)
			s := inlineSession(t, Config{Address: server.URL, RetryFor: -1, LoggedIn: func(err error) {
				if err != nil {
					logins++
				}
			}})
			err := firstError(s.Decrypt(t.Context(), fakeKey, make([]Item, 4)))
			var e *Error
			if !errors.As(err, &e) || e.Login != test.login || test.sentinel != nil && !errors.Is(err, test.sentinel) {
				t.Errorf("error %v, login %t", err, e != nil && e.Login)
			}
			if requests != test.requests || logins != test.logins {
				t.Errorf("%d requests and %d failed logins, want %d and %d", requests, logins, test.requests, test.logins)
			}
			checkLeak(t, err)
		})
	}
}

// TestInlineLogin checks that an error for the service account token is returned, and that
// an invalid auth mount gets no request. Neither the login nor its text shows the token.
func TestInlineLogin(t *testing.T) {
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	t.Cleanup(server.Close)
	s := inlineSession(t, Config{Address: server.URL, RetryFor: -1})
	missing := errors.New("no token")
	s.inline.JWT = func() (string, error) { return "", missing }
	if _, err := s.Decrypt(t.Context(), fakeKey, []Item{{}}); !errors.Is(err, missing) {
		t.Errorf("without a token: %v", err)
	}
	s.inline.JWT = fixedJWT("canary-jwt")
	for _, mount := range []string{"", "../sys", "a\r\nX-Vault-Token: b", "a b"} {
		s.inline.Mount = mount
		if _, err := s.Decrypt(t.Context(), fakeKey, []Item{{}}); err == nil || !strings.Contains(err.Error(), "auth mount") {
			t.Errorf("auth mount %q: %v", mount, err)
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
	login := newInlineLogin(fakeLogin("canary-jwt"), "canary-jwt")
	for _, text := range []string{fmt.Sprint(login), fmt.Sprintf("%+v", login), fmt.Sprintf("%#v", login)} {
		if text != "(login)" {
			t.Errorf("the login is formatted as %q", text)
		}
	}
}

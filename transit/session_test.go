package transit

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/podtoken"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// TestDeniedWithOldToken checks that a denied request is sent again after a new login,
// unless the token is new: OpenBao denies requests with an expired token.
func TestDeniedWithOldToken(t *testing.T) {
	logins, requests, denying := 0, 0, ""
	c := fakeVault(t, -1, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/login") {
			logins++
			writeToken(w, fmt.Sprint("t", logins), 3600)
			return
		}
		requests++
		if token := r.Header.Get("X-Vault-Token"); denying == "all" || token == denying {
			respond(403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`)(w, r)
			return
		}
		fmt.Fprint(w, `{"data":{"latest_version":1}}`)
	}).client
	source := c.NewLoginSource(fakeLogin("jwt"))
	for _, step := range []struct {
		name             string
		denying          string
		logins, requests int
		denied           bool
	}{
		{"new token", "all", 1, 1, true},
		{"old token", "all", 2, 3, true},
		{"new policy", "", 2, 4, false},
		{"expired", "t2", 3, 6, false},
	} {
		denying = step.denying
		_, err := c.Session("", source).Key(t.Context(), fakeKey)
		if errors.Is(err, ErrDenied) != step.denied || (err != nil) != step.denied || logins != step.logins ||
			requests != step.requests {
			t.Errorf("%s: %d logins and %d requests, %v", step.name, logins, requests, err)
		}
	}
	if StaticToken("t").Denied("t") {
		t.Error("StaticToken.Denied returned true")
	}
}

func TestInvalidTokenIsReplacedOnce(t *testing.T) {
	var logins, requests atomic.Int32
	handler := func(valid string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/login") {
				writeToken(w, fmt.Sprint("t", logins.Add(1)), 3600)
				return
			}
			requests.Add(1)
			if r.Header.Get("X-Vault-Token") != valid {
				respond(403, `{"errors":["permission denied","invalid token"]}`)(w, r)
				return
			}
			writeResults(w, 1, `{"plaintext":""}`)
		}
	}
	for name, c := range map[string]struct {
		valid            string
		logins, requests int32
		ok               bool
	}{"second is valid": {"t2", 2, 2, true}, "none is valid": {"never", 2, 2, false}} {
		t.Run(name, func(t *testing.T) {
			logins.Store(0)
			requests.Store(0)
			s := fakeVault(t, -1, handler(c.valid))
			s.tokens = s.client.NewLoginSource(fakeLogin("jwt"))
			_, err := s.Decrypt(t.Context(), fakeKey, []Item{{}})
			if (err == nil) != c.ok || logins.Load() != c.logins || requests.Load() != c.requests {
				t.Errorf("%v after %d logins and %d requests", err, logins.Load(), requests.Load())
			}
		})
	}
}

func TestLoginIsShared(t *testing.T) {
	var logins atomic.Int32
	source := fakeLoginSource(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		writeToken(w, fmt.Sprint("t", logins.Add(1)), 3600)
	})
	var callers []<-chan tokenResult
	for range 20 {
		callers = append(callers, goToken(t.Context(), source))
	}
	for _, got := range callers {
		if got := <-got; got.err != nil {
			t.Error(got.err)
		}
	}
	if logins.Load() != 1 {
		t.Errorf("%d logins for 20 callers", logins.Load())
	}
}

// TestLoginResponseOfAnotherIdentity checks that a login fails if the response is about
// another role or service account. The tests of package provider log in with the real
// methods kubernetes and jwt; method cert returns no role.
func TestLoginResponseOfAnotherIdentity(t *testing.T) {
	issuer, err := testenv.NewJWTIssuer()
	if err != nil {
		t.Fatal(err)
	}
	jwt := issuer.Token("demo", "matrix", "vault", time.Hour)
	claims, err := podtoken.Parse(jwt)
	if err != nil {
		t.Fatal(err)
	}
	complete := map[string]string{"role": "app", "service_account_name": "matrix", "service_account_namespace": "demo",
		"service_account_uid": claims.ServiceAccountUID, "service_account_secret_name": ""}
	with := func(name, value string) map[string]string {
		other := maps.Clone(complete)
		other[name] = value
		return other
	}
	for name, c := range map[string]struct {
		metadata map[string]string
		jwt      string
		ok       bool
	}{
		"kubernetes":                             {complete, jwt, true},
		"jwt":                                    {map[string]string{"role": "app"}, jwt, true},
		"jwt, of an unreadable text":             {map[string]string{"role": "app"}, "jwt", true},
		"no metadata, as of cert":                {nil, jwt, false},
		"no role":                                {map[string]string{"cert_name": "node"}, jwt, false},
		"another role":                           {with("role", "admin"), jwt, false},
		"the role in capitals":                   {with("role", "APP"), jwt, false},
		"another account":                        {with("service_account_name", "other"), jwt, false},
		"another namespace":                      {with("service_account_namespace", "other"), jwt, false},
		"another uid":                            {with("service_account_uid", "other"), jwt, false},
		"an empty uid":                           {with("service_account_uid", ""), jwt, false},
		"an account for a text that is no token": {complete, "jwt", false},
	} {
		t.Run(name, func(t *testing.T) {
			body, err := json.Marshal(map[string]any{"auth": map[string]any{"client_token": "canary", "metadata": c.metadata}})
			if err != nil {
				t.Fatal(err)
			}
			s := fakeVault(t, -1, respond(200, string(body)))
			token, err := s.client.Login(t.Context(), fakeLogin(c.jwt))
			if c.ok {
				if err != nil || token.Value != "canary" {
					t.Errorf("got %q, %v", token.Value, err)
				}
				return
			}
			if !errors.Is(err, ErrWrongIdentity) || token.Value != "" {
				t.Errorf("got %q, %v", token.Value, err)
			}
			checkLeak(t, err)
		})
	}
}

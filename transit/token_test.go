package transit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/clock"
	"github.com/secretmanager-io/secretmanager/internal/podtoken"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// loginFake is a Vault whose logins do what the test wants.
func loginFake(t *testing.T, h func(w http.ResponseWriter, r *http.Request, jwt string)) *LoginSource {
	t.Helper()
	s := fake(t, 0, func(w http.ResponseWriter, r *http.Request) {
		var in struct{ JWT string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		h(w, r, in.JWT)
	})
	return s.client.NewLoginSource(Login{Mount: "kubernetes", Role: "app",
		JWT: func() (string, error) { return "jwt", nil }})
}

func give(w http.ResponseWriter, token string, ttl int) {
	fmt.Fprintf(w, `{"auth":{"client_token":%q,"lease_duration":%d,"metadata":{"role":"app"}}}`, token, ttl)
}

// result is what one who asked a source got.
type result struct {
	token string
	err   error
}

func ask(ctx context.Context, s TokenSource) <-chan result {
	got := make(chan result, 1)
	go func() {
		token, err := s.Token(ctx)
		got <- result{token, err}
	}()
	return got
}

// waiters waits until so many wait for the login under way.
func waiters(t *testing.T, s *LoginSource, n int) {
	t.Helper()
	for t.Context().Err() == nil {
		s.mu.Lock()
		c := s.under
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

func TestALoginOutlivesWhoAskedFirst(t *testing.T) {
	var logins atomic.Int32
	goOn := make(chan struct{})
	source := loginFake(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		logins.Add(1)
		select {
		case <-goOn:
			give(w, "t", 3600)
		case <-r.Context().Done():
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	first := ask(ctx, source)
	waiters(t, source, 1)
	second := ask(t.Context(), source)
	waiters(t, source, 2)
	cancel()
	if got := <-first; !errors.Is(got.err, context.Canceled) {
		t.Errorf("the first: %v", got)
	}
	close(goOn)
	if got := <-second; got.token != "t" || got.err != nil || logins.Load() != 1 {
		t.Errorf("the second: %v after %d logins", got, logins.Load())
	}
}

func TestWhoWaitsForALoginKeepsHisOwnDeadline(t *testing.T) {
	goOn := make(chan struct{})
	source := loginFake(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		<-goOn
		give(w, "t", 3600)
	})
	patient := ask(t.Context(), source)
	waiters(t, source, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got := <-ask(ctx, source); !errors.Is(got.err, ErrTimeout) || !strings.Contains(got.err.Error(), `role "app"`) {
		t.Errorf("the impatient: %v", got)
	}
	close(goOn)
	if got := <-patient; got.token != "t" {
		t.Errorf("the patient: %v", got)
	}
}

func TestALoginThatNobodyWaitsForEnds(t *testing.T) {
	sent, ended := make(chan struct{}), make(chan struct{})
	source := loginFake(t, func(_ http.ResponseWriter, r *http.Request, _ string) {
		close(sent)
		<-r.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := ask(ctx, source)
	waiters(t, source, 1)
	if source.Idle() {
		t.Error("idle in the middle of a login")
	}
	<-sent
	cancel()
	<-got
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("it goes on")
	}
	if !source.Idle() {
		t.Error("not idle after it")
	}
	// And one that nobody would wait for does not begin.
	source.now = func() clock.Reading {
		t.Error("a login began with a context that had ended")
		return clock.Now()
	}
	if _, err := source.Token(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	time.Sleep(20 * time.Millisecond) // a login would begin in a goroutine of its own
}

func TestVaultsWordsReachWhoeverGivesUp(t *testing.T) {
	source := loginFake(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		answer(503, `{"errors":["Vault is sealed"]}`)(w, r)
	})
	patient, cancel := context.WithCancel(t.Context())
	defer cancel()
	ask(patient, source)
	waiters(t, source, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if got := <-ask(ctx, source); !errors.Is(got.err, ErrSealed) {
		t.Errorf("got %v", got)
	}
}

// TestALoginStopsForTheLongestDeadline: a pause that nobody will sit through is
// not begun, but it is if one of those who wait has the time.
func TestALoginStopsForTheLongestDeadline(t *testing.T) {
	var logins atomic.Int32
	joined := make(chan struct{})
	source := loginFake(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		if logins.Add(1) == 1 {
			<-joined
			w.Header().Set("Retry-After", "2")
			answer(429, `{"errors":["quota"]}`)(w, nil)
			return
		}
		give(w, "t", 3600)
	})
	long, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	short, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	hasty := ask(short, source)
	waiters(t, source, 1)
	patient := ask(long, source)
	waiters(t, source, 2)
	close(joined)
	if got := <-hasty; !errors.Is(got.err, ErrBusy) {
		t.Errorf("the hasty: %v", got)
	}
	if got := <-patient; got.token != "t" || logins.Load() != 2 {
		t.Errorf("the patient: %v after %d logins", got, logins.Load())
	}

	logins.Store(0)
	source.Invalidate("t")
	short, cancel = context.WithTimeout(t.Context(), 1900*time.Millisecond)
	defer cancel()
	began := time.Now()
	if got := <-ask(short, source); !errors.Is(got.err, ErrBusy) || time.Since(began) > 1500*time.Millisecond {
		t.Errorf("alone: %v after %s", got, time.Since(began))
	}
}

func TestAFailedLoginIsSharedAndNotRemembered(t *testing.T) {
	var logins atomic.Int32
	goOn := make(chan struct{})
	refuse := atomic.Bool{}
	refuse.Store(true)
	source := loginFake(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		logins.Add(1)
		<-goOn
		if refuse.Load() {
			answer(403, `{"errors":["permission denied"]}`)(w, nil)
			return
		}
		give(w, "t", 3600)
	})
	var asked []<-chan result
	for range 5 {
		asked = append(asked, ask(t.Context(), source))
	}
	waiters(t, source, 5)
	close(goOn)
	for _, got := range asked {
		if got := <-got; !errors.Is(got.err, ErrDenied) {
			t.Errorf("got %v", got)
		}
	}
	if logins.Load() != 1 {
		t.Errorf("%d logins for five at once", logins.Load())
	}
	refuse.Store(false)
	if token, err := source.Token(t.Context()); token != "t" || err != nil {
		t.Errorf("afterwards: %q, %v", token, err)
	}
}

// TestEachLogsInWithHisOwn: of those who share a Vault token, the one for whom
// a login is made gives the service-account token for it. That it was refused
// is not the fault of those who have another.
func TestEachLogsInWithHisOwn(t *testing.T) {
	var shown []string
	goOn := make(chan struct{})
	source := loginFake(t, func(w http.ResponseWriter, _ *http.Request, jwt string) {
		shown = append(shown, jwt)
		<-goOn
		if jwt == "expired" {
			answer(403, `{"errors":["permission denied"]}`)(w, nil)
			return
		}
		give(w, "token of "+jwt, 3600)
	})
	bad := ask(t.Context(), source.With(own("expired")))
	waiters(t, source, 1)
	good := ask(t.Context(), source.With(own("good")))
	waiters(t, source, 2)
	close(goOn)
	if got := <-bad; !errors.Is(got.err, ErrDenied) {
		t.Errorf("the expired: %v", got)
	}
	if got := <-good; got.token != "token of good" {
		t.Errorf("the good: %v", got)
	}
	if token, _ := source.With(own("newer")).Token(t.Context()); token != "token of good" {
		t.Errorf("while it lasts: %q", token)
	}
	source.now = func() clock.Reading { return clock.Now().Add(time.Hour) }
	if token, _ := source.With(own("newest")).Token(t.Context()); token != "token of newest" {
		t.Errorf("after its end: %q", token)
	}
	if got := strings.Join(shown, " "); got != "expired good newest" {
		t.Errorf("shown to Vault: %s", got)
	}
}

func TestWhenATokenIsReplaced(t *testing.T) {
	asked := clock.Now()
	for _, test := range []struct {
		name string
		ttl  int
		now  clock.Reading
		same bool
	}{
		{"at once", 5, asked, true},
		{"before its last tenth", 1000, asked.Add(899 * time.Second), true},
		{"in its last tenth", 1000, asked.Add(901 * time.Second), false},
		{"after its end", 1000, asked.Add(time.Hour), false},
		{"of five seconds, after four", 5, asked.Add(4 * time.Second), true},
		{"of five seconds, before the fifth", 5, asked.Add(4600 * time.Millisecond), false},
		{"without an end, after years", 0, asked.Add(30000 * time.Hour), true},
		{"the machine was suspended", 1000, clock.Reading{Wall: asked.Wall.Add(time.Hour), Mono: asked.Mono}, false},
		{"the wall clock was set back", 1000,
			clock.Reading{Wall: asked.Wall.Add(-time.Hour), Mono: asked.Mono + time.Hour}, false},
		{"the wall clock was set back a moment ago", 1000,
			clock.Reading{Wall: asked.Wall.Add(-time.Hour), Mono: asked.Mono}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			logins := 0
			source := loginFake(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
				logins++
				give(w, fmt.Sprint("t", logins), test.ttl)
			})
			source.now = func() clock.Reading { return asked }
			if _, err := source.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
			source.now = func() clock.Reading { return test.now }
			if source.Idle() == test.same {
				t.Errorf("idle: %v", source.Idle())
			}
			if token, err := source.Token(t.Context()); err != nil || (token == "t1") != test.same {
				t.Errorf("%q, %v", token, err)
			}
		})
	}
}

// TestAPanicInALogin: it happens in a goroutine of its own, where nobody would
// keep it from ending the process.
func TestAPanicInALogin(t *testing.T) {
	source := (*Client)(nil).NewLoginSource(Login{Mount: "kubernetes", Role: "app"})
	for range 2 {
		func() {
			defer func() {
				if _, ok := recover().(error); !ok {
					t.Error("it did not come to the one who asked")
				}
			}()
			source.With(own("jwt")).Token(t.Context())
		}()
	}
}

// own is the service-account token of one who has it at hand.
func own(jwt string) func() (string, error) { return func() (string, error) { return jwt, nil } }

// TestDeniedWithAnOldToken: what is denied is tried once more with a new login, as
// OpenBao says no more of a token that has ended; not where the token is fresh.
func TestDeniedWithAnOldToken(t *testing.T) {
	logins, requests, denying := 0, 0, ""
	c := fake(t, -1, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/login") {
			logins++
			fmt.Fprintf(w, `{"auth":{"client_token":"t%d","lease_duration":3600,"metadata":{"role":"app"}}}`, logins)
			return
		}
		requests++
		if token := r.Header.Get("X-Vault-Token"); denying == "all" || token == denying {
			answer(403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`)(w, r)
			return
		}
		fmt.Fprint(w, `{"data":{"latest_version":1}}`)
	}).client
	source := c.NewLoginSource(Login{Mount: "jwt", Role: "app", JWT: func() (string, error) { return "jwt", nil }})
	for _, step := range []struct {
		name             string
		denying          string
		logins, requests int
		denied           bool
	}{
		{"a first token", "all", 1, 1, true},
		{"which is old now", "all", 2, 3, true},
		{"is good", "", 2, 4, false},
		{"has ended", "t2", 3, 6, false},
	} {
		denying = step.denying
		_, err := c.Session("", source).Key(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"})
		if errors.Is(err, ErrDenied) != step.denied || (err != nil) != step.denied || logins != step.logins ||
			requests != step.requests {
			t.Errorf("%s: %d logins and %d requests, %v", step.name, logins, requests, err)
		}
	}
	if StaticToken("t").Denied("t") {
		t.Error("a static token is worth another try")
	}
}

// TestLoginResponseOfAnotherIdentity: whatever a method returns about the identity
// must be what was requested and shown. The methods kubernetes and jwt do so (the
// tests of package provider log in with the real ones); cert returns no role.
func TestLoginResponseOfAnotherIdentity(t *testing.T) {
	issuer, err := testenv.NewJWTIssuer()
	if err != nil {
		t.Fatal(err)
	}
	shown := issuer.Token("demo", "matrix", "vault", time.Hour)
	claims, err := podtoken.Parse(shown)
	if err != nil {
		t.Fatal(err)
	}
	whole := map[string]string{"role": "app", "service_account_name": "matrix", "service_account_namespace": "demo",
		"service_account_uid": claims.ServiceAccountUID, "service_account_secret_name": ""}
	with := func(name, value string) map[string]string {
		other := maps.Clone(whole)
		other[name] = value
		return other
	}
	for name, c := range map[string]struct {
		metadata map[string]string
		jwt      string
		ok       bool
	}{
		"kubernetes":                             {whole, shown, true},
		"jwt":                                    {map[string]string{"role": "app"}, shown, true},
		"jwt, of an unreadable text":             {map[string]string{"role": "app"}, "jwt", true},
		"no metadata, as of cert":                {nil, shown, false},
		"no role":                                {map[string]string{"cert_name": "node"}, shown, false},
		"another role":                           {with("role", "admin"), shown, false},
		"the role in capitals":                   {with("role", "APP"), shown, false},
		"another account":                        {with("service_account_name", "other"), shown, false},
		"another namespace":                      {with("service_account_namespace", "other"), shown, false},
		"another uid":                            {with("service_account_uid", "other"), shown, false},
		"an empty uid":                           {with("service_account_uid", ""), shown, false},
		"an account for a text that is no token": {whole, "jwt", false},
	} {
		t.Run(name, func(t *testing.T) {
			body, err := json.Marshal(map[string]any{"auth": map[string]any{"client_token": "canary", "metadata": c.metadata}})
			if err != nil {
				t.Fatal(err)
			}
			s := fake(t, -1, answer(200, string(body)))
			token, err := s.client.Login(t.Context(), Login{Mount: "kubernetes", Role: "app", JWT: own(c.jwt)})
			if c.ok {
				if err != nil || token.Value != "canary" {
					t.Errorf("got %q, %v", token.Value, err)
				}
				return
			}
			if !errors.Is(err, ErrWrongIdentity) || token.Value != "" {
				t.Errorf("got %q, %v", token.Value, err)
			}
			checkQuiet(t, err)
		})
	}
}

package transit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/clock"
)

func TestLoginOutlivesFirstCaller(t *testing.T) {
	var logins atomic.Int32
	proceed := make(chan struct{})
	source := fakeLoginSource(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		logins.Add(1)
		select {
		case <-proceed:
			writeToken(w, "t", 3600)
		case <-r.Context().Done():
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	first := goToken(ctx, source)
	awaitCallers(t, source, 1)
	second := goToken(t.Context(), source)
	awaitCallers(t, source, 2)
	cancel()
	if got := <-first; !errors.Is(got.err, context.Canceled) {
		t.Errorf("the first caller: %v", got)
	}
	close(proceed)
	if got := <-second; got.token != "t" || got.err != nil || logins.Load() != 1 {
		t.Errorf("the second caller: %v after %d logins", got, logins.Load())
	}
}

func TestLoginWaiterKeepsOwnDeadline(t *testing.T) {
	proceed := make(chan struct{})
	source := fakeLoginSource(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		<-proceed
		writeToken(w, "t", 3600)
	})
	patient := goToken(t.Context(), source)
	awaitCallers(t, source, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got := <-goToken(ctx, source); !errors.Is(got.err, ErrTimeout) || !strings.Contains(got.err.Error(), `role "app"`) {
		t.Errorf("the second caller: %v", got)
	}
	close(proceed)
	if got := <-patient; got.token != "t" {
		t.Errorf("the first caller: %v", got)
	}
}

func TestLoginWithoutCallersEnds(t *testing.T) {
	sent, ended := make(chan struct{}), make(chan struct{})
	source := fakeLoginSource(t, func(_ http.ResponseWriter, r *http.Request, _ string) {
		close(sent)
		<-r.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := goToken(ctx, source)
	awaitCallers(t, source, 1)
	if source.Idle() {
		t.Error("idle during a login")
	}
	<-sent
	cancel()
	<-got
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the login continues")
	}
	if !source.Idle() {
		t.Error("not idle after the login")
	}
	// A context that has ended starts no login.
	source.now = func() clock.Reading {
		t.Error("a login started")
		return clock.Now()
	}
	if _, err := source.Token(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	time.Sleep(20 * time.Millisecond) // for the goroutine of a login
}

func TestLoginWaiterGetsLastError(t *testing.T) {
	source := fakeLoginSource(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		respond(503, `{"errors":["Vault is sealed"]}`)(w, r)
	})
	patient, cancel := context.WithCancel(t.Context())
	defer cancel()
	goToken(patient, source)
	awaitCallers(t, source, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if got := <-goToken(ctx, source); !errors.Is(got.err, ErrSealed) {
		t.Errorf("got %v", got)
	}
}

// TestLoginWaitsUntilLatestDeadline checks that a login is retried if one of its callers
// has the time for it, and fails at once otherwise.
func TestLoginWaitsUntilLatestDeadline(t *testing.T) {
	var logins atomic.Int32
	joined := make(chan struct{})
	source := fakeLoginSource(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		if logins.Add(1) == 1 {
			<-joined
			w.Header().Set("Retry-After", "2")
			respond(429, `{"errors":["quota"]}`)(w, nil)
			return
		}
		writeToken(w, "t", 3600)
	})
	long, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	short, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	early := goToken(short, source)
	awaitCallers(t, source, 1)
	patient := goToken(long, source)
	awaitCallers(t, source, 2)
	close(joined)
	if got := <-early; !errors.Is(got.err, ErrBusy) {
		t.Errorf("the caller with the short deadline: %v", got)
	}
	if got := <-patient; got.token != "t" || logins.Load() != 2 {
		t.Errorf("the caller with the long deadline: %v after %d logins", got, logins.Load())
	}

	logins.Store(0)
	source.Invalidate("t")
	short, cancel = context.WithTimeout(t.Context(), 1900*time.Millisecond)
	defer cancel()
	began := time.Now()
	if got := <-goToken(short, source); !errors.Is(got.err, ErrBusy) || time.Since(began) > 1500*time.Millisecond {
		t.Errorf("with the short deadline alone: %v after %s", got, time.Since(began))
	}
}

func TestFailedLoginIsSharedAndNotCached(t *testing.T) {
	var logins atomic.Int32
	proceed := make(chan struct{})
	refuse := atomic.Bool{}
	refuse.Store(true)
	source := fakeLoginSource(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		logins.Add(1)
		<-proceed
		if refuse.Load() {
			respond(403, `{"errors":["permission denied"]}`)(w, nil)
			return
		}
		writeToken(w, "t", 3600)
	})
	var callers []<-chan tokenResult
	for range 5 {
		callers = append(callers, goToken(t.Context(), source))
	}
	awaitCallers(t, source, 5)
	close(proceed)
	for _, got := range callers {
		if got := <-got; !errors.Is(got.err, ErrDenied) {
			t.Errorf("got %v", got)
		}
	}
	if logins.Load() != 1 {
		t.Errorf("%d logins for five callers", logins.Load())
	}
	refuse.Store(false)
	if token, err := source.Token(t.Context()); token != "t" || err != nil {
		t.Errorf("afterwards: %q, %v", token, err)
	}
}

// TestLoginWithEachJWT checks that the caller that starts a login provides the service
// account token, and that its refusal does not affect callers with another one.
func TestLoginWithEachJWT(t *testing.T) {
	var shown []string
	proceed := make(chan struct{})
	source := fakeLoginSource(t, func(w http.ResponseWriter, _ *http.Request, jwt string) {
		shown = append(shown, jwt)
		<-proceed
		if jwt == "expired" {
			respond(403, `{"errors":["permission denied"]}`)(w, nil)
			return
		}
		writeToken(w, "token of "+jwt, 3600)
	})
	bad := goToken(t.Context(), source.With(fixedJWT("expired")))
	awaitCallers(t, source, 1)
	good := goToken(t.Context(), source.With(fixedJWT("good")))
	awaitCallers(t, source, 2)
	close(proceed)
	if got := <-bad; !errors.Is(got.err, ErrDenied) {
		t.Errorf("with the expired token: %v", got)
	}
	if got := <-good; got.token != "token of good" {
		t.Errorf("with the good token: %v", got)
	}
	if token, _ := source.With(fixedJWT("newer")).Token(t.Context()); token != "token of good" {
		t.Errorf("before its end: %q", token)
	}
	source.now = func() clock.Reading { return clock.Now().Add(time.Hour) }
	if token, _ := source.With(fixedJWT("newest")).Token(t.Context()); token != "token of newest" {
		t.Errorf("after its end: %q", token)
	}
	if got := strings.Join(shown, " "); got != "expired good newest" {
		t.Errorf("tokens sent to Vault: %s", got)
	}
}

func TestTokenLifetime(t *testing.T) {
	requested := clock.Now()
	for _, test := range []struct {
		name string
		ttl  int
		now  clock.Reading
		same bool
	}{
		{"at once", 5, requested, true},
		{"before its last tenth", 1000, requested.Add(899 * time.Second), true},
		{"in its last tenth", 1000, requested.Add(901 * time.Second), false},
		{"after its end", 1000, requested.Add(time.Hour), false},
		{"five seconds, after four", 5, requested.Add(4 * time.Second), true},
		{"five seconds, in the last tenth", 5, requested.Add(4600 * time.Millisecond), false},
		{"unlimited, after years", 0, requested.Add(30000 * time.Hour), true},
		{"the machine was suspended", 1000, clock.Reading{Wall: requested.Wall.Add(time.Hour), Mono: requested.Mono}, false},
		{"the wall clock was set back", 1000,
			clock.Reading{Wall: requested.Wall.Add(-time.Hour), Mono: requested.Mono + time.Hour}, false},
		{"the wall clock was set back a moment ago", 1000,
			clock.Reading{Wall: requested.Wall.Add(-time.Hour), Mono: requested.Mono}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			logins := 0
			source := fakeLoginSource(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
				logins++
				writeToken(w, fmt.Sprint("t", logins), test.ttl)
			})
			source.now = func() clock.Reading { return requested }
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

// TestLoginPanic checks that a panic in the goroutine of a login reaches the callers and
// does not end the process.
func TestLoginPanic(t *testing.T) {
	source := (*Client)(nil).NewLoginSource(Login{Mount: "kubernetes", Role: "app"})
	for range 2 {
		func() {
			defer func() {
				if _, ok := recover().(error); !ok {
					t.Error("the caller did not panic")
				}
			}()
			source.With(fixedJWT("jwt")).Token(t.Context())
		}()
	}
}

package transit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/clock"
	"github.com/secretmanager-io/secretmanager/internal/podtoken"
)

// TokenSource gives a session its Vault token.
type TokenSource interface {
	// Token returns a token that is valid as far as is known.
	Token(ctx context.Context) (string, error)
	// Invalidate drops a token that Vault refused as invalid. It returns whether
	// asking for another one makes sense.
	Invalidate(token string) bool
	// Denied drops a token that a request was denied with, if it may have ended:
	// of such a one OpenBao says no more than that. It returns whether to ask for
	// another one and make the request once again.
	Denied(token string) bool
}

// StaticToken is a token somebody else looks after, such as VAULT_TOKEN's.
type StaticToken string

// Token returns it.
func (t StaticToken) Token(context.Context) (string, error) { return string(t), nil }

// Invalidate returns false: there is no other.
func (t StaticToken) Invalidate(string) bool { return false }

// Denied returns false.
func (t StaticToken) Denied(string) bool { return false }

// String keeps the token out of logs.
func (t StaticToken) String() string { return "(token)" }

// GoString keeps the token out of logs.
func (t StaticToken) GoString() string { return "(token)" }

// Login names a way into Vault: an auth mount of the kubernetes or the jwt
// kind, a role of it, and the service-account token to show.
type Login struct {
	Namespace string // of Vault; empty for the root
	Mount     string // path of the auth mount below auth/, such as "kubernetes"
	Role      string
	// JWT returns the service-account token. It is called for each login, as the
	// kubelet renews the file that it may come from, and from several goroutines
	// at once. A source that is only used through [LoginSource.With] needs none.
	JWT func() (string, error)
}

// Token is what a login gives.
type Token struct {
	Value   string
	Expires time.Time // zero: never

	life time.Duration // zero: for ever
}

// Login logs in once. The error is an *Error; a refusal wraps [ErrDenied], and a
// response that is not about the token that was shown wraps [ErrWrongIdentity].
func (c *Client) Login(ctx context.Context, l Login) (Token, error) {
	jwt, err := l.JWT()
	if err != nil {
		return Token{}, err
	}
	return c.login(ctx, l, jwt, nil)
}

func (l Login) doing() string {
	return fmt.Sprintf("logging in to Vault as role %q of auth/%s", l.Role, l.Mount)
}

// login logs in with the service-account token. It tells of each failure that
// it does not leave at.
func (c *Client) login(ctx context.Context, l Login, jwt string, failed func(*Error)) (Token, error) {
	token, err := c.tryLogin(ctx, l, jwt, failed)
	if c.loggedIn != nil {
		c.loggedIn(err)
	}
	return token, err
}

func (c *Client) tryLogin(ctx context.Context, l Login, jwt string, failed func(*Error)) (Token, error) {
	doing := l.doing()
	if err := ciphertext.CheckPath(l.Mount); err != nil {
		return Token{}, &Error{Doing: doing, Address: c.address, Err: fmt.Errorf("auth mount: %w", err)}
	}
	var out struct {
		Auth *struct {
			Token    string            `json:"client_token"`
			TTL      int64             `json:"lease_duration"`
			Metadata map[string]string `json:"metadata"`
		} `json:"auth"`
	}
	asked := time.Now()
	if err := c.do(ctx, request{
		op: OpLogin, doing: doing, method: http.MethodPost, path: "auth/" + l.Mount + "/login", namespace: l.Namespace,
		in: map[string]string{"role": l.Role, "jwt": jwt}, out: &out, failed: failed,
	}); err != nil {
		var e *Error
		// A jwt mount says no with HTTP 400 and a text.
		if errors.As(err, &e) && e.Status == http.StatusBadRequest && !errors.Is(err, ErrNotVault) &&
			!errors.Is(err, ErrNotFound) {
			e.Err = worded{ErrDenied, e.Err.Error()}
		}
		return Token{}, err
	}
	if out.Auth == nil || out.Auth.Token == "" {
		return Token{}, &Error{Doing: doing, Address: c.address, Status: http.StatusOK,
			Err: fmt.Errorf("%w: it has no token in it", ErrNotVault)}
	}
	if err := l.checkIdentity(jwt, out.Auth.Metadata); err != nil {
		return Token{}, &Error{Doing: doing, Address: c.address, Status: http.StatusOK, Err: err}
	}
	t := Token{Value: out.Auth.Token}
	if ttl := out.Auth.TTL; ttl > 0 {
		t.life = time.Duration(min(ttl, 10*365*86400)) * time.Second
		t.Expires = asked.Add(t.life)
	}
	return t, nil
}

// checkIdentity reports whether a login response is about the token that was shown.
// A method that does not look at it, such as cert, logs in the holder of the
// connection's certificate. Methods kubernetes and jwt return the role; kubernetes
// also returns whose token it was (measured on Vault 1.21 and OpenBao 2.4).
func (l Login) checkIdentity(jwt string, metadata map[string]string) error {
	if got := metadata["role"]; got != l.Role {
		return fmt.Errorf("%w: its metadata has role %q", ErrWrongIdentity, clip(got))
	}
	// A token that cannot be read has no claims, and none is equal to what is there.
	claims, _ := podtoken.Parse(jwt)
	for _, field := range []struct{ name, claim string }{
		{"service_account_name", claims.ServiceAccount},
		{"service_account_namespace", claims.Namespace},
		{"service_account_uid", claims.ServiceAccountUID},
	} {
		if got, ok := metadata[field.name]; ok && got != field.claim {
			return fmt.Errorf("%w: its metadata has %s %q", ErrWrongIdentity, field.name, clip(got))
		}
	}
	return nil
}

// LoginSource is a TokenSource that logs in when it is first asked and again
// when its token is near its end or was refused. It is safe for concurrent use.
//
// There is at most one login at a time, which all who ask meanwhile wait for.
// It goes on for as long as anybody does: it does not end with the context of
// the one who happened to ask first, and each waits no longer than his own. A
// login that failed is not remembered.
type LoginSource struct {
	client *Client
	login  Login
	now    func() clock.Reading

	mu    sync.Mutex
	token Token
	since clock.Reading // when the token was asked for
	given bool          // the token has been at hand for somebody
	under *loginCall    // the login under way; nil for none
}

// NewLoginSource returns a source that has not logged in yet.
func (c *Client) NewLoginSource(l Login) *LoginSource {
	return &LoginSource{client: c, login: l, now: clock.Now}
}

// Token returns the current token, after a login where there is none.
func (s *LoginSource) Token(ctx context.Context) (string, error) {
	return s.get(ctx, s.login.JWT)
}

// With returns the source for one who has a service-account token of his own,
// and logs in with that one where a login is needed. It is asked for only then,
// or where a login is under way already. All of them share the Vault token: they
// must be the same to Vault.
func (s *LoginSource) With(jwt func() (string, error)) TokenSource { return loginWith{s, jwt} }

type loginWith struct {
	*LoginSource
	jwt func() (string, error)
}

func (l loginWith) Token(ctx context.Context) (string, error) { return l.get(ctx, l.jwt) }

// Idle reports whether there is neither a token nor a login under way, so that
// nothing is lost with the source.
func (s *LoginSource) Idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.under == nil && s.current() == ""
}

// Invalidate drops the token, unless another has come in its place already.
func (s *LoginSource) Invalidate(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token.Value == token {
		s.token = Token{}
	}
	return true
}

// Denied drops the token unless it is fresh from its login: then it has not ended,
// and has the policies that its role has now.
func (s *LoginSource) Denied(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token.Value != token {
		return true // another has come in its place, or it was dropped
	}
	if s.given {
		s.token = Token{}
	}
	return s.given
}

func (s *LoginSource) get(ctx context.Context, jwt func() (string, error)) (string, error) {
	for {
		s.mu.Lock()
		token := s.current()
		s.given = s.given || token != ""
		s.mu.Unlock()
		if token != "" {
			return token, nil
		}
		own, err := jwt()
		if err != nil {
			return "", err
		}
		s.mu.Lock()
		if token := s.current(); token != "" {
			s.given = true
			s.mu.Unlock()
			return token, nil
		}
		if ctx.Err() != nil {
			s.mu.Unlock()
			return "", s.givenUp(ctx, nil)
		}
		if s.under == nil {
			s.under = s.begin(ctx, own)
		}
		call := s.under
		call.join(ctx)
		s.mu.Unlock()

		select {
		case <-call.done:
		case <-ctx.Done():
			s.leave(call)
			return "", s.givenUp(ctx, call)
		}
		switch {
		case call.panicked != nil:
			panic(call.panicked) // in the call that it belongs to, which knows what to do
		case call.err == nil:
			return call.token.Value, nil
		case call.jwt == own:
			return "", call.err
		}
		// Somebody else's service-account token was refused: it may have expired,
		// or its pod be gone. That says nothing about this one.
	}
}

// current returns the token to hand out; s.mu is held. The last tenth of its
// life is left for requests under way.
func (s *LoginSource) current() string {
	if life := s.token.life; life > 0 && s.now().Since(s.since) >= life-life/10 {
		return ""
	}
	return s.token.Value
}

// loginCall is a login under way, and the context of its requests: that ends
// when nobody waits any more.
type loginCall struct {
	context.Context
	cancel context.CancelFunc
	jwt    string
	last   atomic.Pointer[Error] // why the login is being tried again

	done     chan struct{} // closed when what follows is there
	token    Token
	err      error
	panicked any

	mu       sync.Mutex
	waiting  int
	deadline time.Time // of whoever waits longest
	endless  bool      // somebody has none
}

// Deadline returns that of whoever waits longest: beyond it no retry makes sense.
func (c *loginCall) Deadline() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deadline, !c.endless
}

func (c *loginCall) join(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting++
	end, ok := ctx.Deadline()
	if !ok {
		c.endless = true
	}
	if end.After(c.deadline) {
		c.deadline = end
	}
}

// begin starts a login; s.mu is held.
func (s *LoginSource) begin(ctx context.Context, jwt string) *loginCall {
	c := &loginCall{jwt: jwt, done: make(chan struct{}), err: errors.New("the login did not come to an end")}
	c.Context, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	// Its requests see the context after the one who asks has joined: s.mu.
	go s.run(c)
	return c
}

func (s *LoginSource) run(c *loginCall) {
	defer c.cancel()
	defer close(c.done)
	defer func() {
		c.panicked = recover() // nobody would, in this goroutine
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.under == c {
			s.under = nil
		}
	}()
	s.mu.Lock()
	asked := s.now()
	s.mu.Unlock()
	c.token, c.err = s.client.login(c, s.login, c.jwt, func(e *Error) { c.last.Store(e) })
	if c.err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.under == c {
		s.token, s.since, s.given = c.token, asked, false
	}
}

// leave ends a login that nobody waits for.
func (s *LoginSource) leave(c *loginCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting--; c.waiting > 0 {
		return
	}
	c.cancel()
	if s.under == c {
		s.under = nil
	}
}

// givenUp is the error for one whose context ended before the login did: the
// last thing that Vault said, if it said any.
func (s *LoginSource) givenUp(ctx context.Context, c *loginCall) error {
	if c != nil {
		if last := c.last.Load(); last != nil {
			return last
		}
	}
	e := &Error{Doing: s.login.doing(), Address: s.client.address, Err: ErrTimeout, Transient: true}
	if errors.Is(ctx.Err(), context.Canceled) {
		e.Err, e.Transient = context.Canceled, false
	}
	return e
}

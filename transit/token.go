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

// TokenSource returns the Vault tokens of a [Session].
type TokenSource interface {
	// Token returns a token that is not known to be invalid.
	Token(ctx context.Context) (string, error)
	// Invalidate drops a token that Vault rejected as invalid. It reports whether
	// Token may return another one.
	Invalidate(token string) bool
	// Denied drops the token of a denied request, if the token may have expired:
	// OpenBao denies requests with such a token. It reports whether to send the
	// request again with another token.
	Denied(token string) bool
}

// StaticToken is a fixed token, such as that of VAULT_TOKEN.
type StaticToken string

// Token returns the token.
func (t StaticToken) Token(context.Context) (string, error) { return string(t), nil }

// Invalidate returns false.
func (t StaticToken) Invalidate(string) bool { return false }

// Denied returns false.
func (t StaticToken) Denied(string) bool { return false }

// String keeps the token out of logs.
func (t StaticToken) String() string { return "(token)" }

// GoString keeps the token out of logs.
func (t StaticToken) GoString() string { return "(token)" }

// Login is a login with a Kubernetes service account token: an auth mount of type
// kubernetes or jwt, and a role of it.
type Login struct {
	Namespace string // of Vault; empty for the root
	Mount     string // path of the auth mount below auth/, such as "kubernetes"
	Role      string
	// JWT returns the service account token. It is called for each login, since the
	// kubelet renews the token, and from several goroutines at once. It may be nil for
	// a source that is only used through [LoginSource.With].
	JWT func() (string, error)
}

// Token is a Vault token.
type Token struct {
	Value   string
	Expires time.Time // zero: never

	life time.Duration // zero: unlimited
}

// Login logs in once. The error is an [*Error]. It wraps [ErrDenied] if Vault refuses the
// login, and [ErrWrongIdentity] if the response is not about the service account of the
// token.
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

// login logs in with a service account token. It calls failed for each failure that it
// retries.
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
	requested := time.Now()
	if err := c.do(ctx, request{
		op: OpLogin, doing: doing, method: http.MethodPost, path: "auth/" + l.Mount + "/login", namespace: l.Namespace,
		in: map[string]string{"role": l.Role, "jwt": jwt}, out: &out, failed: failed,
	}); err != nil {
		var e *Error
		// A jwt mount refuses a login with HTTP 400 and a message.
		if errors.As(err, &e) && e.Status == http.StatusBadRequest && !errors.Is(err, ErrNotVault) &&
			!errors.Is(err, ErrNotFound) {
			e.Err = vaultError{ErrDenied, e.Err.Error()}
		}
		return Token{}, err
	}
	if out.Auth == nil || out.Auth.Token == "" {
		return Token{}, &Error{Doing: doing, Address: c.address, Status: http.StatusOK,
			Err: fmt.Errorf("%w: it has no token", ErrNotVault)}
	}
	if err := l.checkIdentity(jwt, out.Auth.Metadata); err != nil {
		return Token{}, &Error{Doing: doing, Address: c.address, Status: http.StatusOK, Err: err}
	}
	t := Token{Value: out.Auth.Token}
	if ttl := out.Auth.TTL; ttl > 0 {
		t.life = time.Duration(min(ttl, 10*365*86400)) * time.Second
		t.Expires = requested.Add(t.life)
	}
	return t, nil
}

// checkIdentity reports whether a login response is about the service account of the
// token. An auth method that ignores the token, such as cert, logs in the owner of the
// client certificate. The methods kubernetes and jwt return the role; kubernetes also
// returns the service account (measured on Vault 1.21 and OpenBao 2.4).
func (l Login) checkIdentity(jwt string, metadata map[string]string) error {
	if got := metadata["role"]; got != l.Role {
		return fmt.Errorf("%w: its metadata has role %q", ErrWrongIdentity, clip(got))
	}
	// A token that cannot be parsed has empty claims, which differ from any metadata.
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

// LoginSource is a [TokenSource] that logs in when it has no token, and again when the
// token is about to expire or was rejected. It is safe for concurrent use.
//
// There is at most one login at a time, and all callers wait for it. It continues as
// long as a caller waits: it does not end with the context of the first caller, and no
// caller waits longer than its own context allows. LoginSource does not cache failures.
// Package singleflight is not used: there a login would not end with its last caller, or
// be retried until the latest deadline of all, and a panic in it would end the process.
type LoginSource struct {
	client *Client
	login  Login
	now    func() clock.Reading

	mu        sync.Mutex
	token     Token
	requested clock.Reading // when the token was requested
	reused    bool          // the token was returned from memory
	pending   *loginCall    // nil for none
}

// NewLoginSource returns a source that has not logged in yet.
func (c *Client) NewLoginSource(l Login) *LoginSource {
	return &LoginSource{client: c, login: l, now: clock.Now}
}

// Token returns the current token. It logs in if there is none.
func (s *LoginSource) Token(ctx context.Context) (string, error) {
	return s.get(ctx, s.login.JWT)
}

// With returns a source that shares the Vault token with s and logs in with another
// service account token of the same identity. It calls jwt only if a login is needed or
// pending.
func (s *LoginSource) With(jwt func() (string, error)) TokenSource { return loginWith{s, jwt} }

type loginWith struct {
	*LoginSource
	jwt func() (string, error)
}

func (l loginWith) Token(ctx context.Context) (string, error) { return l.get(ctx, l.jwt) }

// Idle reports whether there is neither a token nor a pending login.
func (s *LoginSource) Idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending == nil && s.current() == ""
}

// Invalidate drops the token, unless it was already replaced.
func (s *LoginSource) Invalidate(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token.Value == token {
		s.token = Token{}
	}
	return true
}

// Denied drops the token unless it was used for the first time: then it has not expired
// and has the current policies of its role.
func (s *LoginSource) Denied(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token.Value != token {
		return true // it was replaced or dropped
	}
	if s.reused {
		s.token = Token{}
	}
	return s.reused
}

func (s *LoginSource) get(ctx context.Context, jwt func() (string, error)) (string, error) {
	for {
		s.mu.Lock()
		token := s.current()
		s.reused = s.reused || token != ""
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
			s.reused = true
			s.mu.Unlock()
			return token, nil
		}
		if ctx.Err() != nil {
			s.mu.Unlock()
			return "", s.contextError(ctx, nil)
		}
		if s.pending == nil {
			s.pending = s.begin(ctx, own)
		}
		call := s.pending
		call.join(ctx)
		s.mu.Unlock()

		select {
		case <-call.done:
		case <-ctx.Done():
			s.leave(call)
			return "", s.contextError(ctx, call)
		}
		switch {
		case call.panicked != nil:
			panic(call.panicked) // in the goroutine of the caller, which may recover it
		case call.err == nil:
			return call.token.Value, nil
		case call.jwt == own:
			return "", call.err
		}
		// Another caller's service account token was refused, as it is after its pod was
		// deleted. Log in with this caller's own.
	}
}

// current returns the token, or an empty string in the last tenth of its life, which is
// reserved for requests in progress. The caller holds s.mu.
func (s *LoginSource) current() string {
	if life := s.token.life; life > 0 && s.now().Since(s.requested) >= life-life/10 {
		return ""
	}
	return s.token.Value
}

// loginCall is a pending login and the context of its requests, which ends when no
// caller waits.
type loginCall struct {
	context.Context
	cancel context.CancelFunc
	jwt    string
	last   atomic.Pointer[Error] // the last failure that is retried

	done     chan struct{} // closed after the following fields are set
	token    Token
	err      error
	panicked any

	mu         sync.Mutex
	waiting    int       // number of callers
	deadline   time.Time // the latest of all callers
	noDeadline bool      // a caller has none
}

// Deadline returns the latest deadline of all callers.
func (c *loginCall) Deadline() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deadline, !c.noDeadline
}

func (c *loginCall) join(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting++
	end, ok := ctx.Deadline()
	if !ok {
		c.noDeadline = true
	}
	if end.After(c.deadline) {
		c.deadline = end
	}
}

// begin starts a login. The caller holds s.mu, so run waits until the caller has joined.
func (s *LoginSource) begin(ctx context.Context, jwt string) *loginCall {
	c := &loginCall{jwt: jwt, done: make(chan struct{}), err: errors.New("login did not complete")}
	c.Context, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go s.run(c)
	return c
}

func (s *LoginSource) run(c *loginCall) {
	defer c.cancel()
	defer close(c.done)
	defer func() {
		c.panicked = recover() // get panics with it
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.pending == c {
			s.pending = nil
		}
	}()
	s.mu.Lock()
	requested := s.now()
	s.mu.Unlock()
	c.token, c.err = s.client.login(c, s.login, c.jwt, func(e *Error) { c.last.Store(e) })
	if c.err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == c {
		s.token, s.requested, s.reused = c.token, requested, false
	}
}

// leave removes a caller, and ends the login if it was the last one.
func (s *LoginSource) leave(c *loginCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting--; c.waiting > 0 {
		return
	}
	c.cancel()
	if s.pending == c {
		s.pending = nil
	}
}

// contextError returns the error of a caller whose context ended before the login did:
// the last error of Vault, if there is one.
func (s *LoginSource) contextError(ctx context.Context, c *loginCall) error {
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

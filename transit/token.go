package transit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// TokenSource gives a session its Vault token.
type TokenSource interface {
	// Token returns a token that is valid as far as is known.
	Token(ctx context.Context) (string, error)
	// Invalidate drops a token that Vault refused as invalid. It returns whether
	// asking for another one makes sense.
	Invalidate(token string) bool
}

// StaticToken is a token somebody else looks after, such as VAULT_TOKEN's.
type StaticToken string

// Token returns it.
func (t StaticToken) Token(context.Context) (string, error) { return string(t), nil }

// Invalidate returns false: there is no other.
func (t StaticToken) Invalidate(string) bool { return false }

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
	// kubelet renews the file that it may come from.
	JWT func() (string, error)
}

// Token is what a login gives.
type Token struct {
	Value   string
	Expires time.Time // zero: never
}

// Login logs in once. The error is an *Error; a refusal wraps [ErrDenied].
func (c *Client) Login(ctx context.Context, l Login) (Token, error) {
	jwt, err := l.JWT()
	if err != nil {
		return Token{}, err
	}
	doing := fmt.Sprintf("logging in to Vault as role %q of auth/%s", l.Role, l.Mount)
	if err := ciphertext.CheckPath(l.Mount); err != nil {
		return Token{}, &Error{Doing: doing, Address: c.address, Err: fmt.Errorf("auth mount: %w", err)}
	}
	var out struct {
		Auth *struct {
			Token string `json:"client_token"`
			TTL   int64  `json:"lease_duration"`
		} `json:"auth"`
	}
	asked := time.Now()
	err = c.do(ctx, request{
		doing: doing, method: http.MethodPost, path: "auth/" + l.Mount + "/login", namespace: l.Namespace,
		in: map[string]string{"role": l.Role, "jwt": jwt}, out: &out,
	})
	if err != nil {
		var e *Error
		// A jwt mount says no with HTTP 400 and a text.
		if errors.As(err, &e) && e.Status == http.StatusBadRequest && !errors.Is(err, ErrNotVault) && !errors.Is(err, ErrNotFound) {
			e.Err = worded{ErrDenied, e.Err.Error()}
		}
		return Token{}, err
	}
	if out.Auth == nil || out.Auth.Token == "" {
		return Token{}, &Error{Doing: doing, Address: c.address, Status: http.StatusOK,
			Err: fmt.Errorf("%w: it has no token in it", ErrNotVault)}
	}
	t := Token{Value: out.Auth.Token}
	if ttl := out.Auth.TTL; ttl > 0 {
		t.Expires = asked.Add(time.Duration(min(ttl, 10*365*86400)) * time.Second)
	}
	return t, nil
}

// LoginSource is a TokenSource that logs in when it is first asked and again
// when its token is near its end or was refused. It is safe for concurrent use;
// there is at most one login at a time, and whoever waits for it can give up.
type LoginSource struct {
	client *Client
	login  Login

	turn  chan struct{} // held by whoever logs in
	mu    sync.Mutex
	token Token
	renew time.Time // when the token is not handed out any more; zero: never
}

// NewLoginSource returns a source that has not logged in yet.
func (c *Client) NewLoginSource(l Login) *LoginSource {
	return &LoginSource{client: c, login: l, turn: make(chan struct{}, 1)}
}

// Token returns the current token, after a login where there is none.
func (s *LoginSource) Token(ctx context.Context) (string, error) {
	if t := s.current(); t != "" {
		return t, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return "", &Error{Doing: "waiting for a login to Vault", Address: s.client.address, Err: ErrTimeout, Transient: true}
	}
	if t := s.current(); t != "" {
		return t, nil // whoever had the turn before got it
	}
	token, err := s.client.Login(ctx, s.login)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.renew = token, time.Time{}
	if !token.Expires.IsZero() {
		// The last tenth of its life is left for requests under way.
		s.renew = token.Expires.Add(-time.Until(token.Expires) / 10)
	}
	return token.Value, nil
}

func (s *LoginSource) current() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token.Value == "" || (!s.renew.IsZero() && !time.Now().Before(s.renew)) {
		return ""
	}
	return s.token.Value
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

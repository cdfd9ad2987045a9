package transit

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// Headers of OpenBao's inline authentication. A parameter header may have any suffix: its
// value contains the name of the parameter.
const (
	inlinePathHeader      = "X-Vault-Inline-Auth-Path"
	inlineParameterHeader = "X-Vault-Inline-Auth-Parameter-"
	inlineFailedHeader    = "X-Vault-Inline-Auth-Failed"
)

// inlineFailedMessage begins the message of a failed login without a response of the auth
// method, to which OpenBao does not add inlineFailedHeader.
const inlineFailedMessage = "failed to perform inline authentication"

// InlineSession returns a session whose requests contain the login: OpenBao 2.4 and later
// log in and handle the request in one step, and store no token. Each attempt at a request
// is a login of its own. Vault ignores the login and denies the request.
//
// There is no login response to compare with the role and the service account, as
// [Client.Login] does. The auth mount must be of type kubernetes or jwt: other types may
// ignore the token. The session has the namespace of the login.
//
// If the login fails, the error is an [*Error] with Login set, and wraps [ErrDenied] or
// [ErrNotFound] as that of [Client.Login] does.
func (c *Client) InlineSession(l Login) *Session {
	return &Session{client: c, namespace: l.Namespace, inline: &l}
}

// doInline sends a request with the login in its headers.
func (s *Session) doInline(ctx context.Context, r request) error {
	c := s.client
	if err := ciphertext.CheckPath(s.inline.Mount); err != nil {
		return &Error{Doing: r.doing, Address: c.address, Err: fmt.Errorf("auth mount: %w", err)}
	}
	jwt, err := s.inline.JWT()
	if err != nil {
		return err
	}
	r.namespace, r.inline = s.namespace, newInlineLogin(*s.inline, jwt)
	err = c.do(ctx, r)
	var e *Error
	// A response without the marks of a failed login does not tell whether there was one.
	if known := err == nil || errors.As(err, &e) && (e.Login || e.Transient); known && c.loggedIn != nil {
		c.loggedIn(err)
	}
	return err
}

// inlineLogin is a login in the headers of a request. Its zero value is none.
type inlineLogin struct {
	path       string
	parameters map[string]string // encoded, by the suffix of the header
}

func newInlineLogin(l Login, jwt string) inlineLogin {
	login := inlineLogin{path: "auth/" + l.Mount + "/login", parameters: map[string]string{}}
	for name, value := range map[string]string{"role": l.Role, "jwt": jwt} {
		text, _ := json.Marshal(map[string]string{"key": name, "value": value}) // texts cannot fail
		login.parameters[name] = base64.RawURLEncoding.EncodeToString(text)
	}
	return login
}

// String keeps the token out of logs.
func (l inlineLogin) String() string { return "(login)" }

// GoString keeps the token out of logs.
func (l inlineLogin) GoString() string { return "(login)" }

func (l inlineLogin) setHeaders(to http.Header) {
	if l.path == "" {
		return
	}
	to.Set(inlinePathHeader, l.path)
	for name, value := range l.parameters {
		to.Set(inlineParameterHeader+name, value)
	}
}

// failed reports whether a response is that of the login.
func (l inlineLogin) failed(resp *api.Response) bool {
	return l.path != "" && resp.Header.Get(inlineFailedHeader) != ""
}

// markLogin makes an error that of the login, if the response says that the login failed.
func (l inlineLogin) markLogin(e *Error, resp *api.Response, message string) {
	if l.path == "" || !l.failed(resp) && !strings.Contains(message, inlineFailedMessage) {
		return
	}
	e.Login = true
	// A jwt mount refuses a login with HTTP 400 and a message.
	if e.Status == http.StatusBadRequest && !errors.Is(e.Err, ErrNotVault) && !errors.Is(e.Err, ErrNotFound) {
		e.Err = vaultError{ErrDenied, e.Err.Error()}
	}
}

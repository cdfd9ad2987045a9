// Package transit talks to HashiCorp Vault: it logs in, and it encrypts,
// decrypts and rewraps in batches with the transit secrets engine.
//
// A [Client] is one Vault address and the one pool of connections to it. It
// holds no token. A [Session] is a Client together with the identity that acts,
// a [TokenSource]: a fixed token, or a login with a Kubernetes service-account
// token that is repeated when its Vault token ends. The token travels with each
// request, so sessions of different pods share connections and nothing else.
//
// Transient failures (no connection, 412, 429, 5xx, a sealed Vault) are retried
// with jittered back-off for as long as the context and [Config.RetryFor] allow,
// and what is reported is Vault's last answer rather than "deadline exceeded".
// Nothing is retried that might have happened: see [Session.Rotate].
//
// No error of this package holds a token, plaintext or ciphertext. The values
// that Vault gets and gives pass through here alone.
package transit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/time/rate"
)

// The bounds of what is read of an answer. A result is as long as what it was made
// of, a third more for base64, and what each brings of its own: the nonce and tag
// of a ciphertext, the names of JSON, or the message of what failed. maxResponse,
// for the rest, is enough for a key with ten thousand versions.
const (
	maxResponse = 512 << 10
	maxPerItem  = 512 // of a batch, beside twice what was sent
)

// itemsKey is that of a context's number of items of the request it is for.
type itemsKey struct{}

// Config says how to reach one Vault. Only Address is required.
type Config struct {
	Address       string        // such as https://vault.example:8200, with a path prefix where there is one
	CACert        string        // file of PEM certificates to trust instead of the system's
	CAPath        string        // folder of such files
	ClientCert    string        // file of a PEM client certificate
	ClientKey     string        // and of its key
	TLSServerName string        // name to expect in Vault's certificate; default: the address's host
	InsecureHTTP  bool          // accept an http address outside the loopback interface; for development only
	Insecure      bool          // do not check Vault's certificate; for a developer's own machine
	NoRedirects   bool          // take a standby's redirect to the active node for an error
	RetryFor      time.Duration // how long transient failures are retried; 0: until the context ends; negative: not at all

	// QPS is how many requests a second there may be, in the long run; 0: no limit.
	QPS float64

	// Observe is told of each try of a request: what it was, the HTTP status of
	// the answer (0 if there was none, or not a whole one) and how long it took,
	// with redirects. LoggedIn is told of each login when its last try is done:
	// nil, or why it failed. Both may be nil, and are called from many goroutines.
	Observe  func(op Operation, status int, took time.Duration)
	LoggedIn func(error)
}

// EnvInsecureHTTP is the environment variable for [Config.InsecureHTTP].
const EnvInsecureHTTP = "SECRETMANAGER_VAULT_INSECURE_HTTP"

// FromEnvironment returns the Config that Vault's own tools would use: VAULT_ADDR,
// VAULT_CACERT, VAULT_CAPATH, VAULT_CLIENT_CERT, VAULT_CLIENT_KEY,
// VAULT_TLS_SERVER_NAME, VAULT_SKIP_VERIFY and VAULT_DISABLE_REDIRECTS as getenv
// gives them, and our own [EnvInsecureHTTP].
func FromEnvironment(getenv func(string) string) Config {
	is := func(name string) bool {
		return slices.Contains([]string{"1", "t", "true"}, strings.ToLower(getenv(name)))
	}
	return Config{
		Address:       getenv(api.EnvVaultAddress),
		CACert:        getenv(api.EnvVaultCACert),
		CAPath:        getenv(api.EnvVaultCAPath),
		ClientCert:    getenv(api.EnvVaultClientCert),
		ClientKey:     getenv(api.EnvVaultClientKey),
		TLSServerName: getenv(api.EnvVaultTLSServerName),
		InsecureHTTP:  is(EnvInsecureHTTP),
		Insecure:      is(api.EnvVaultSkipVerify),
		NoRedirects:   is(api.EnvVaultDisableRedirects),
	}
}

// Client is a pool of connections to one Vault. It is safe for concurrent use.
type Client struct {
	api      *api.Client
	address  string
	retryFor time.Duration
	limit    *rate.Limiter

	transport    *transport
	noRedirects  bool
	insecureHTTP bool

	observe  func(Operation, int, time.Duration)
	loggedIn func(error)
}

// NewClient checks the configuration and reads the certificates, which are read
// again when their files change. It does not connect. Environment variables are
// not consulted, but for those that name a proxy: see [FromEnvironment].
func NewClient(c Config) (*Client, error) {
	if err := CheckAddress(c.Address); err != nil {
		return nil, fmt.Errorf("vault address %w", err)
	}
	if err := CheckTransport(c.Address, c.InsecureHTTP); err != nil {
		return nil, fmt.Errorf("vault address %w", err)
	}
	if (c.ClientCert == "") != (c.ClientKey == "") {
		return nil, errors.New("a client certificate for Vault needs both its certificate and its key")
	}
	conf := api.DefaultConfig()
	if conf.Error != nil && conf.HttpClient == nil {
		return nil, fmt.Errorf("preparing the Vault client: %w", conf.Error)
	}
	conf.Error = nil // of reading the environment, which does not count here
	conf.Address = c.Address
	conf.AgentAddress = ""
	conf.MaxRetries = 0          // ours is the only retry policy
	conf.Timeout = 0             // and the context the only deadline
	conf.Limiter = nil           // it would send the request also when it may not wait that long
	conf.DisableRedirects = true // they are followed here, see send
	conf.HttpClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	transport, err := newTransport(c)
	if err != nil {
		return nil, fmt.Errorf("preparing TLS to Vault: %w", err)
	}
	conf.HttpClient.Transport = bounded{transport}
	client, err := api.NewClient(conf)
	if err != nil {
		return nil, fmt.Errorf("preparing the Vault client: %w", err)
	}
	// What api.NewClient took from the environment of the process does not act:
	// whoever has a Session has said whose token and namespace it is.
	client.ClearToken()
	client.ClearNamespace()
	client.SetWrappingLookupFunc(func(string, string) string { return "" })
	limit := rate.NewLimiter(rate.Inf, 0)
	if c.QPS > 0 {
		limit = rate.NewLimiter(rate.Limit(c.QPS), max(int(c.QPS), 1))
	}
	return &Client{
		api: client, address: c.Address, retryFor: c.RetryFor, limit: limit, transport: transport, noRedirects: c.NoRedirects,
		insecureHTTP: c.InsecureHTTP, observe: c.Observe, loggedIn: c.LoggedIn,
	}, nil
}

// Address returns the address as it was configured.
func (c *Client) Address() string { return c.address }

// bounded ends a response body that is too long with an error, so that no answer,
// of Vault or of what stands in its place, takes more memory than the request does.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil && resp.Body != nil {
		items, _ := r.Context().Value(itemsKey{}).(int)
		limit := maxResponse + 2*max(r.ContentLength, 0) + int64(maxPerItem*items)
		resp.Body = &boundedBody{resp.Body, limit, limit}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left, limit int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		// One byte more tells an answer of just that length from a longer one.
		if n, err := b.ReadCloser.Read(make([]byte, 1)); n == 0 {
			return 0, err
		}
		return 0, tooLongError(b.limit)
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	return n, err
}

// tooLongError is that of an answer with more bytes than this.
type tooLongError int64

func (e tooLongError) Error() string {
	return fmt.Sprintf("the answer is longer than %d KiB", int64(e)>>10)
}

// Session acts in one Vault namespace as the identity of its token source. It
// is safe for concurrent use if the source is.
type Session struct {
	client    *Client
	namespace string
	tokens    TokenSource
}

// Session returns a session. The namespace is Vault Enterprise's or OpenBao's;
// empty for the root namespace.
func (c *Client) Session(namespace string, tokens TokenSource) *Session {
	return &Session{client: c, namespace: namespace, tokens: tokens}
}

// Address returns the address of the session's Vault.
func (s *Session) Address() string { return s.client.address }

// do sends a request with the session's token. A token that Vault does not know
// any more is dropped, and the request is made once again with a new one. So is it
// where it was denied, unless the token is fresh: it may have ended, or be from
// before somebody mended the role.
func (s *Session) do(ctx context.Context, r request) error {
	for again := false; ; again = true {
		token, err := s.tokens.Token(ctx)
		if err != nil {
			return err
		}
		r.namespace, r.token = s.namespace, token
		err = s.client.do(ctx, r)
		switch {
		case again:
			return err
		case errors.Is(err, ErrInvalidToken) && s.tokens.Invalidate(token):
		case errors.Is(err, ErrDenied) && s.tokens.Denied(token):
		default:
			return err
		}
	}
}

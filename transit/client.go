// Package transit is a client of HashiCorp Vault. It logs in, and it encrypts, decrypts
// and rewraps in batches with the transit secrets engine.
//
// A [Client] is a pool of connections to one Vault, which may be a cluster with several
// addresses. It holds no token. A
// [Session] is a Client with a Vault identity, its [TokenSource]: a fixed token, or a
// login with a Kubernetes service account token, which is repeated when the Vault token
// expires. Each request carries its own token, so sessions of different pods share only
// connections.
//
// Transient failures (no connection, 412, 429, 5xx, a sealed Vault) are retried with
// jittered backoff as long as the context and [Config.RetryFor] allow. The error is that
// of Vault's last response rather than "deadline exceeded". A request that is not
// idempotent is never retried: see [Session.Rotate].
//
// No error of this package contains a token, plaintext or ciphertext.
package transit

import (
	"cmp"
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

	"github.com/secretmanager-io/secretmanager/internal/retry"
	"github.com/secretmanager-io/secretmanager/internal/vaultaddr"
)

// A response is read up to maxResponse bytes, twice the length of the request and
// maxPerItem bytes for each item of a batch. A result has the length of its item, a
// third more for base64, and an overhead: the nonce and tag of a ciphertext, the names
// of JSON, or an error message. maxResponse alone is enough for a key with ten thousand
// versions.
const (
	maxResponse = 512 << 10
	maxPerItem  = 512
)

// itemsKey is the context key of the number of items of a request.
type itemsKey struct{}

// Config is the configuration of a [Client]. Only Address is required.
type Config struct {
	Address       string        // such as https://vault.example:8200, with an optional path prefix; see NewClient
	CACert        string        // file of PEM certificates to trust instead of the system's
	CAPath        string        // directory of such files
	ClientCert    string        // file of a PEM client certificate
	ClientKey     string        // file of its key
	TLSServerName string        // name to expect in Vault's certificate; default: the host of the address
	InsecureHTTP  bool          // accept an http address outside the loopback interface; for development only
	Insecure      bool          // do not verify Vault's certificate; for development only
	NoRedirects   bool          // fail if a standby redirects to the active node
	RetryFor      time.Duration // how long to retry transient failures; 0: until the context ends; negative: never

	// RequestTimeout bounds one attempt at a request; 0: a minute; negative: only the context bounds it.
	RequestTimeout time.Duration

	// QPS limits the requests per second, on average. 0 means no limit.
	QPS float64

	// Observe is called for each attempt at a request, with the HTTP status of the
	// response (0 if there was none, or an incomplete one) and the duration, including
	// redirects. LoggedIn is called after the last attempt at each login, with nil or
	// the error. Both may be nil, and are called from many goroutines.
	Observe  func(op Operation, status int, took time.Duration)
	LoggedIn func(error)

	// Avoided is called when requests begin to avoid a server of several, with its address
	// and its failure. It may be nil, and is called from many goroutines.
	Avoided func(address string, err error)

	// Wrap, if not nil, is called once with the transport of all requests, and returns another one to use.
	Wrap func(http.RoundTripper) http.RoundTripper

	// Waiting is called every five seconds while a request has no result yet, with what
	// the request does and how long it has taken, including retries. It may be nil, and is
	// called from many goroutines.
	Waiting func(doing string, waited time.Duration)
}

// EnvInsecureHTTP is the environment variable for [Config.InsecureHTTP].
const EnvInsecureHTTP = "SECRETMANAGER_VAULT_INSECURE_HTTP"

// FromEnvironment returns the Config that Vault's own tools would use. It reads
// VAULT_ADDR (which may name several addresses), VAULT_CACERT, VAULT_CAPATH, VAULT_CLIENT_CERT, VAULT_CLIENT_KEY,
// VAULT_TLS_SERVER_NAME, VAULT_SKIP_VERIFY, VAULT_DISABLE_REDIRECTS and
// [EnvInsecureHTTP] with getenv, such as [os.Getenv].
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
	servers  *servers
	address  string
	retryFor time.Duration
	limit    *rate.Limiter // nil: none

	transport    *transport
	noRedirects  bool
	insecureHTTP bool

	observe  func(Operation, int, time.Duration)
	loggedIn func(error)
	waiting  func(string, time.Duration)

	requestTimeout, reportEvery, decryptLag time.Duration
}

// NewClient checks the configuration and reads the certificates. It does not connect.
// The client reads the certificates again when their files change. It does not use
// environment variables, except those that name a proxy: see [FromEnvironment].
//
// The address may be a list, separated by commas: the addresses of the servers of one
// cluster, the most preferred first. If there is no connection to a server within half a
// second, the request goes to the next one. A server that failed is avoided until it
// responds to a health check, unless all have failed. Vault's certificate is verified
// with the host of the address that is used.
func NewClient(c Config) (*Client, error) {
	addresses := vaultaddr.Split(c.Address)
	if len(addresses) == 0 {
		addresses = []string{""} // which is invalid
	}
	for _, address := range addresses {
		if err := vaultaddr.Check(address); err != nil {
			return nil, fmt.Errorf("vault address %w", err)
		}
		if err := CheckTransport(address, c.InsecureHTTP); err != nil {
			return nil, fmt.Errorf("vault address %w", err)
		}
	}
	if (c.ClientCert == "") != (c.ClientKey == "") {
		return nil, errors.New("a client certificate for Vault needs both its certificate and its key")
	}
	conf := api.DefaultConfig()
	if conf.Error != nil && conf.HttpClient == nil {
		return nil, fmt.Errorf("preparing the Vault client: %w", conf.Error)
	}
	conf.Error = nil // of reading the environment, which is not used
	conf.AgentAddress = ""
	conf.MaxRetries = 0          // Client.do retries
	conf.Timeout = 0             // the context has the deadline
	conf.Limiter = nil           // it would send the request also if the wait exceeds the deadline
	conf.DisableRedirects = true // send follows them
	conf.HttpClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	transport, err := newTransport(c)
	if err != nil {
		return nil, fmt.Errorf("preparing TLS to Vault: %w", err)
	}
	var connections http.RoundTripper = transport
	if c.Wrap != nil {
		connections = c.Wrap(transport)
	}
	conf.HttpClient.Transport = boundedTransport{connections}
	servers, err := newServers(conf, addresses)
	if err != nil {
		return nil, fmt.Errorf("preparing the Vault client: %w", err)
	}
	servers.avoided = c.Avoided
	var limit *rate.Limiter
	if c.QPS > 0 {
		limit = rate.NewLimiter(rate.Limit(c.QPS), max(int(c.QPS), 1))
	}
	return &Client{
		servers: servers, address: c.Address, retryFor: c.RetryFor, limit: limit, transport: transport,
		noRedirects:  c.NoRedirects,
		insecureHTTP: c.InsecureHTTP, observe: c.Observe, loggedIn: c.LoggedIn,
		waiting: c.Waiting, requestTimeout: cmp.Or(c.RequestTimeout, requestTimeout), reportEvery: retry.ReportEvery,
		decryptLag: decryptLag,
	}, nil
}

// Address returns the address, or all addresses, as configured.
func (c *Client) Address() string { return c.address }

// boundedTransport fails the reading of a response body that is too long, so that the
// memory for a response is limited by the size of its request, whatever server sends it.
type boundedTransport struct{ next http.RoundTripper }

func (b boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
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
	remaining, limit int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.remaining <= 0 {
		// One more byte distinguishes a longer response from one of exactly this length.
		if n, err := b.ReadCloser.Read(make([]byte, 1)); n == 0 {
			return 0, err
		}
		return 0, tooLongError(b.limit)
	}
	if int64(len(p)) > b.remaining {
		p = p[:b.remaining]
	}
	n, err := b.ReadCloser.Read(p)
	b.remaining -= int64(n)
	return n, err
}

// tooLongError is the error of a response with more bytes than this.
type tooLongError int64

func (e tooLongError) Error() string {
	return fmt.Sprintf("response is longer than %d KiB", int64(e)>>10)
}

// Session makes requests in one Vault namespace with the tokens of its source. It is
// safe for concurrent use if the source is.
type Session struct {
	client    *Client
	namespace string
	tokens    TokenSource
	inline    *Login // in place of tokens; see [Client.InlineSession]
}

// Session returns a session in a namespace of Vault Enterprise or OpenBao. An empty
// string means the root namespace.
func (c *Client) Session(namespace string, tokens TokenSource) *Session {
	return &Session{client: c, namespace: namespace, tokens: tokens}
}

// Address returns the address of the session's Vault.
func (s *Session) Address() string { return s.client.address }

// do sends a request with the session's token. If the token is invalid, do drops it and
// sends the request a second time with a new one. It does the same for a denied request
// unless the token is new: an older one may have expired, or lack the current policies
// of its role.
func (s *Session) do(ctx context.Context, r request) error {
	if s.inline != nil {
		return s.doInline(ctx, r)
	}
	for second := false; ; second = true {
		token, err := s.tokens.Token(ctx)
		if err != nil {
			return err
		}
		r.namespace, r.token = s.namespace, token
		err = s.client.do(ctx, r)
		switch {
		case second:
			return err
		case errors.Is(err, ErrInvalidToken) && s.tokens.Invalidate(token):
		case errors.Is(err, ErrDenied) && s.tokens.Denied(token):
		default:
			return err
		}
	}
}

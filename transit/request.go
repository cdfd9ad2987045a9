package transit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/secretmanager-io/secretmanager/internal/retry"
)

// request is a request of Vault's HTTP API.
type request struct {
	op        Operation
	doing     string // the action of the caller, for messages, such as "decrypting with transit/keys/app"
	method    string
	path      string // below /v1/
	namespace string
	token     string
	inline    inlineLogin // in place of a token
	in        any         // JSON body; nil for none
	items     int         // number of items of a batch
	out       any         // for the JSON response; nil to drop it

	once    bool // not idempotent, must not be sent twice
	partial bool // a batch: HTTP 400 with results of its items is a success

	began time.Time // of the attempt

	failed func(*Error) // is called for each transient failure; may be nil
	status *int         // for the HTTP status of a response; may be nil
	header *http.Header // for the headers of a response; may be nil
}

// do sends a request until there is a response, a final failure, or no time for another
// attempt. The error is an *Error.
func (c *Client) do(ctx context.Context, r request) error {
	if err := AuditFrom(ctx).check(); err != nil {
		return &Error{Doing: r.doing, Address: c.address, Err: err}
	}
	defer c.reportWaiting(r.doing)()
	tries := 0
	return retry.Do(ctx, max(c.retryFor, 0), func() *retry.Failure {
		failure := c.observed(ctx, r)
		if failure == nil {
			return nil
		}
		tries++
		failure.Tries = tries
		final := !failure.Transient || r.once || c.retryFor < 0
		if !final && r.failed != nil {
			r.failed(failure)
		}
		return &retry.Failure{Err: failure, Final: final, After: failure.retryAfter}
	})
}

// requestTimeout is the default of [Config.RequestTimeout]. It bounds one attempt at a request, so that a server that
// accepts connections and sends nothing stops nobody for longer, also without a deadline of the caller.
const requestTimeout = time.Minute

// reportWaiting calls Waiting at intervals until the returned function is called.
func (c *Client) reportWaiting(doing string) (stop func()) {
	if c.waiting == nil {
		return func() {}
	}
	return retry.Report(c.reportEvery, func(waited time.Duration) { c.waiting(doing, waited) })
}

// once makes one attempt at the request.
func (c *Client) once(ctx context.Context, r request) *Error {
	fail := func(err error) *Error {
		return &Error{Doing: r.doing, Address: c.address, Err: err}
	}
	if c.limit != nil {
		if err := c.limit.Wait(ctx); err != nil {
			return fail(fmt.Errorf("waiting for the rate limit: %w", err))
		}
	}
	if c.requestTimeout > 0 {
		limited, cancel := context.WithTimeout(ctx, c.requestTimeout)
		defer cancel()
		ctx = limited
	}
	r.began = time.Now()
	return c.sendToOne(ctx, r)
}

// readResponse reads a response into r.out, or returns the error of the request.
func (c *Client) readResponse(ctx context.Context, r request, resp *api.Response, err error) *Error {
	if resp == nil || resp.Response == nil {
		return c.noResponse(ctx, r, err)
	}
	defer resp.Body.Close()
	if r.status != nil {
		*r.status = resp.StatusCode
	}
	if r.header != nil {
		*r.header = resp.Header
	}
	if redirect := (*Error)(nil); errors.As(err, &redirect) {
		return redirect
	}
	var errorBody *api.ResponseError
	switch {
	case err == nil && r.inline.failed(resp):
		return &Error{Doing: r.doing, Address: c.address, Status: resp.StatusCode, Login: true,
			Err: fmt.Errorf("%w: the login has no token", ErrNotVault)}
	case err == nil:
	case errors.As(err, &errorBody):
		if r.partial && resp.StatusCode == http.StatusBadRequest {
			if body, ok := partialResults(resp); ok {
				return c.decode(r, body, resp.StatusCode)
			}
		}
		return c.statusError(r, resp, errorBody)
	default:
		// There are headers without a body.
		return c.noResponse(ctx, r, err)
	}
	if r.out == nil {
		// A connection with an unread body is not reused.
		_, _ = io.Copy(io.Discard, resp.Body)
		return nil
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		return c.noResponse(ctx, r, err)
	}
	return c.decode(r, body.Bytes(), resp.StatusCode)
}

// partialResults returns the body of a response with batch results. If an item failed,
// Vault's response is HTTP 400 with them and without "errors".
func partialResults(resp *api.Response) ([]byte, bool) {
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		return nil, false
	}
	var probe struct {
		Data struct {
			Results []json.RawMessage `json:"batch_results"`
		} `json:"data"`
	}
	if json.Unmarshal(body.Bytes(), &probe) != nil || len(probe.Data.Results) == 0 {
		return nil, false
	}
	return body.Bytes(), true
}

// decode reads a JSON response into r.out. The error does not repeat the response, which
// may contain anything.
func (c *Client) decode(r request, body []byte, status int) *Error {
	if err := json.Unmarshal(body, r.out); err != nil {
		e := &Error{Doing: r.doing, Address: c.address, Status: status, Err: ErrNotVault}
		if mistyped := (*json.UnmarshalTypeError)(nil); errors.As(err, &mistyped) {
			e.Err = fmt.Errorf("%w: field %q is a JSON %s", ErrNotVault, mistyped.Field, kindOf(mistyped.Value))
		}
		return e
	}
	return nil
}

// kindOf returns the JSON type from an error of package json, such as "number" from
// "number 123".
func kindOf(jsonValue string) string {
	for _, kind := range []string{"number", "string", "bool", "array", "object"} {
		if len(jsonValue) >= len(kind) && jsonValue[:len(kind)] == kind {
			return kind
		}
	}
	return "value"
}

func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if seconds, err := strconv.Atoi(v); err == nil && seconds > 0 {
		// The limit of a day prevents an overflow.
		return time.Duration(min(seconds, 86400)) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

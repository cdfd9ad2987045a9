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

// request is one call of Vault's HTTP API.
type request struct {
	op        Operation
	doing     string // for messages: what the caller is doing, such as "decrypting with transit/keys/app"
	method    string
	path      string // below /v1/
	namespace string
	token     string
	in        any // JSON body; nil for none
	items     int // in it, of a batch
	out       any // where the JSON answer goes; nil to drop it

	once    bool // may not be sent twice, as it is not idempotent
	partial bool // a batch: HTTP 400 with results for the items in data is an answer

	failed   func(*Error) // is told of each transient failure; may be nil
	answered *int         // where the HTTP status of an answer goes; may be nil
}

// do sends a request until it is answered, fails for good, or may not be
// retried any longer. The error is an *Error.
func (c *Client) do(ctx context.Context, r request) error {
	if err := AuditFrom(ctx).check(); err != nil {
		return &Error{Doing: r.doing, Address: c.address, Err: err}
	}
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

// once sends the request one time.
func (c *Client) once(ctx context.Context, r request) *Error {
	fail := func(err error) *Error {
		return &Error{Doing: r.doing, Address: c.address, Err: err}
	}
	if err := c.limit.Wait(ctx); err != nil {
		return fail(fmt.Errorf("waiting for its turn: %w", err))
	}
	client := c.api
	if r.namespace != "" {
		client = client.WithNamespace(r.namespace) // shares the connections
	}
	req := client.NewRequest(r.method, "/v1/"+r.path)
	req.ClientToken = r.token
	if req.Headers == nil {
		req.Headers = http.Header{} // of this request only: NewRequest copies the client's
	}
	AuditFrom(ctx).SetHeaders(req.Headers)
	if r.in != nil {
		if err := req.SetJSONBody(r.in); err != nil {
			return fail(fmt.Errorf("making the request: %w", err))
		}
	}
	resp, to, err := c.send(context.WithValue(ctx, itemsKey{}, r.items), client, req, r)
	failure := c.answer(ctx, r, resp, err)
	if failure != nil && to != "" {
		failure.Err = fmt.Errorf("redirected to %s: %w", to, failure.Err)
	}
	return failure
}

// answer reads what Vault answered, or makes the error of why it did not.
func (c *Client) answer(ctx context.Context, r request, resp *api.Response, err error) *Error {
	if resp == nil || resp.Response == nil {
		return c.unanswered(ctx, r, err)
	}
	defer resp.Body.Close()
	if r.answered != nil {
		*r.answered = resp.StatusCode
	}
	if refused := (*Error)(nil); errors.As(err, &refused) {
		return refused // a redirect
	}
	var refused *api.ResponseError
	switch {
	case err == nil:
	case errors.As(err, &refused):
		if r.partial && resp.StatusCode == http.StatusBadRequest {
			if body, ok := partialResults(resp); ok {
				return c.decode(r, body, resp.StatusCode)
			}
		}
		return c.refused(r, resp, refused)
	default:
		// Headers came, the body did not.
		return c.unanswered(ctx, r, err)
	}
	if r.out == nil {
		// A connection with an unread answer would not be used again.
		_, _ = io.Copy(io.Discard, resp.Body)
		return nil
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		return c.unanswered(ctx, r, err)
	}
	return c.decode(r, body.Bytes(), resp.StatusCode)
}

// partialResults returns the body of an answer that holds batch results. Vault
// answers HTTP 400 with them and with no "errors" when an item failed.
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

// decode reads a JSON answer into r.out. What is in the way of that is not
// repeated in the error: it may be anything.
func (c *Client) decode(r request, body []byte, status int) *Error {
	if err := json.Unmarshal(body, r.out); err != nil {
		e := &Error{Doing: r.doing, Address: c.address, Status: status, Err: ErrNotVault}
		if mistyped := (*json.UnmarshalTypeError)(nil); errors.As(err, &mistyped) {
			e.Err = fmt.Errorf("%w: field %q of its answer is a JSON %s", ErrNotVault, mistyped.Field, kindOf(mistyped.Value))
		}
		return e
	}
	return nil
}

// kindOf drops the number from "number 123".
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
		// Beyond a day it is nonsense; the deadline decides before that.
		return time.Duration(min(seconds, 86400)) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

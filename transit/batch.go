package transit

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// A batch request holds at most maxBatchItems and maxBatchBytes of ciphertext or
// encoded plaintext; a longer slice is sent as several requests. OpenBao accepts
// 1,000 JSON strings in a request, which is 249 items with a context. Vault accepts
// a string of 1 MiB, so one item may fill a batch.
const (
	maxBatchItems = 100
	maxBatchBytes = 1 << 20
)

// maxEncryptItems is Vault's limit. Entries that are encrypted together should get the
// same key version, so they share a request if the server accepts it. If it does not,
// like OpenBao, bisect finds a length that it accepts.
const maxEncryptItems = 10_000

// Item is an item to encrypt (Data is plaintext), decrypt or rewrap (Data is
// ciphertext). Context is the derivation context before base64, or nil for a key that
// is not derived. Either all items of a call have a context or none has.
type Item struct {
	Data    []byte
	Context []byte
	// KeyVersion is the version of the key to encrypt or rewrap with; 0 is the newest. A
	// result with another version is an error: a server that lags behind may not have it
	// yet.
	KeyVersion int
}

// Result is the outcome for the Item at the same position: Data, or Err, which wraps
// [ErrMismatch], [ErrTooOld], [ErrTooNew] or [ErrNotFound] where one fits. If a request
// fails because of one of its items, that item alone fails, with an [*Error].
type Result struct {
	Data []byte
	Err  error
}

// Encrypt returns the ciphertext of each item, under its KeyVersion, in one request if the
// server accepts it. The error is an [*Error] that affects every
// item, such as a denied request; other failures are in the Result of their item.
func (s *Session) Encrypt(ctx context.Context, k ciphertext.Key, items []Item) ([]Result, error) {
	return s.batch(ctx, "encrypt", "encrypting", k, items)
}

// Rewrap returns each item encrypted under its KeyVersion. The plaintext does not leave
// Vault. Rewrap also returns a new ciphertext for an item that has that version already,
// so callers should skip such items. Errors are as for [Session.Encrypt]. Before a result
// overwrites anything, use [RewrapVerified] instead.
func (s *Session) Rewrap(ctx context.Context, k ciphertext.Key, items []Item) ([]Result, error) {
	return s.batch(ctx, "rewrap", "rewrapping", k, items)
}

type batchItem struct {
	Plaintext  *string `json:"plaintext,omitempty"`
	Ciphertext string  `json:"ciphertext,omitempty"`
	Context    string  `json:"context,omitempty"`
	KeyVersion int     `json:"key_version,omitempty"`
}

type batchResult struct {
	Plaintext  *string `json:"plaintext"`
	Ciphertext string  `json:"ciphertext"`
	Error      string  `json:"error"`
}

func (s *Session) batch(ctx context.Context, op, doing string, k ciphertext.Key, items []Item) ([]Result, error) {
	doing += " with " + k.String()
	fail := func(err error) error { return &Error{Doing: doing, Address: s.client.address, Err: err} }
	if err := k.Check(); err != nil {
		return nil, fail(err)
	}
	for _, it := range items {
		if (it.Context == nil) != (items[0].Context == nil) {
			return nil, fail(errors.New("some items of the batch have a context and some have none"))
		}
	}
	results := make([]Result, 0, len(items))
	call := batchCall{session: s, op: op, doing: doing, key: k}
	for rest := encodeItems(op, items); len(rest) > 0; {
		n := batchLength(op, rest)
		batch, err := call.bisect(ctx, rest[:n])
		if err != nil {
			return nil, err
		}
		results, rest = append(results, batch...), rest[n:]
	}
	return results, nil
}

// batchLength returns how many of the items share the first request: at least one.
func batchLength(op string, items []batchItem) int {
	limit := maxBatchItems
	if op == "encrypt" {
		limit = maxEncryptItems
	}
	size := 0
	for i, it := range items[:min(len(items), limit)] {
		size += it.size()
		if i > 0 && size > maxBatchBytes {
			return i
		}
	}
	return min(len(items), limit)
}

// maxFailures bounds the failed requests of one call. It is enough to bisect a batch in
// which every item fails.
const maxFailures = 2 * maxBatchItems

// batchCall is a call of Encrypt, Decrypt or Rewrap.
type batchCall struct {
	session  *Session
	op       string
	doing    string
	key      ciphertext.Key
	failures int // requests that failed because of an item
}

// bisect sends the items in one request. If the request fails for a reason that one item
// may have caused, bisect sends each half by itself, so that a single item fails alone.
func (c *batchCall) bisect(ctx context.Context, items []batchItem) ([]Result, error) {
	results, err := c.send(ctx, items)
	if err == nil || !c.itemMayCause(err) {
		return results, err
	}
	if c.failures++; len(items) == 1 || c.failures >= maxFailures {
		return slices.Repeat([]Result{{Err: err}}, len(items)), nil
	}
	half := len(items) / 2
	first, err := c.bisect(ctx, items[:half])
	if err != nil {
		return nil, err
	}
	second, err := c.bisect(ctx, items[half:])
	if err != nil {
		return nil, err
	}
	return append(first, second...), nil
}

// itemMayCause reports whether a request may have failed because of one of its items,
// rather than because of the login, the policy, the key or the state of Vault. The limits
// that servers set on the JSON of a request are such a reason.
func (c *batchCall) itemMayCause(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Doing == c.doing && !e.Login && !e.Transient && !errors.Is(err, ErrNotFound) &&
		(e.Status == http.StatusBadRequest || e.Status == http.StatusRequestEntityTooLarge ||
			e.Status >= http.StatusInternalServerError)
}

// send makes one request and returns the result of each item.
func (c *batchCall) send(ctx context.Context, items []batchItem) ([]Result, error) {
	var out struct {
		Data struct {
			Results []batchResult `json:"batch_results"`
		} `json:"data"`
	}
	if err := c.session.do(ctx, request{
		op: Operation(c.op), doing: c.doing, method: http.MethodPost, path: c.key.Mount + "/" + c.op + "/" + c.key.Name,
		in: map[string]any{"batch_input": items}, items: len(items), out: &out, partial: true,
	}); err != nil {
		return nil, err
	}
	// Only the position assigns a result to its item: with a wrong number of results,
	// one file could get the secret of another.
	if n := len(out.Data.Results); n != len(items) {
		return nil, &Error{
			Doing: c.doing, Address: c.session.client.address,
			Err: fmt.Errorf("%w: %d results for %d items", ErrNotVault, n, len(items)),
		}
	}
	results := make([]Result, len(items))
	for i, r := range out.Data.Results {
		results[i] = decodeResult(c.op, r)
		if v := items[i].KeyVersion; v != 0 && results[i].Err == nil {
			results[i] = checkVersion(results[i], v)
		}
	}
	return results, nil
}

// checkVersion returns the result, or an error if it does not have the requested version.
func checkVersion(r Result, want int) Result {
	if got, err := ciphertext.Version(r.Data); err != nil || got != want {
		return Result{Err: fmt.Errorf("%w: version %d of the key was requested, and the result has version %d", ErrLagging,
			want, got)}
	}
	return r
}

func encodeItems(op string, items []Item) []batchItem {
	encoded := make([]batchItem, len(items))
	for i, it := range items {
		encoded[i] = encode(op, it)
	}
	return encoded
}

// size returns the length of the text of the item, which is most of its JSON.
func (b batchItem) size() int {
	if b.Plaintext != nil {
		return len(*b.Plaintext)
	}
	return len(b.Ciphertext)
}

func encode(op string, it Item) batchItem {
	var b batchItem
	if op == "encrypt" {
		text := base64.StdEncoding.EncodeToString(it.Data)
		b.Plaintext = &text // present even when empty
	} else {
		b.Ciphertext = string(it.Data)
	}
	if op != "decrypt" {
		b.KeyVersion = it.KeyVersion
	}
	if it.Context != nil {
		b.Context = base64.StdEncoding.EncodeToString(it.Context)
	}
	return b
}

func decodeResult(op string, r batchResult) Result {
	if r.Error != "" {
		message := clip(r.Error)
		if sentinel := sentinelOf(message); sentinel != nil {
			return Result{Err: vaultError{sentinel, message}}
		}
		return Result{Err: errors.New(message)}
	}
	if op == "decrypt" {
		if r.Plaintext == nil {
			return Result{Err: fmt.Errorf("%w: result has neither plaintext nor error", ErrNotVault)}
		}
		data, err := base64.StdEncoding.DecodeString(*r.Plaintext)
		if err != nil {
			return Result{Err: fmt.Errorf("%w: plaintext is not base64", ErrNotVault)}
		}
		return Result{Data: data}
	}
	text := []byte(r.Ciphertext)
	if _, err := ciphertext.Version(text); err != nil {
		return Result{Err: fmt.Errorf("%w: result %w", ErrNotVault, err)}
	}
	return Result{Data: text}
}

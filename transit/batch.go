package transit

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// A batch request holds at most so many items, and so many bytes of ciphertext
// or encoded plaintext; a longer slice is sent as several. OpenBao takes 1,000
// JSON strings a request, which is 249 items with a context; Vault takes a
// string of 1 MiB, so an item may fill a batch by itself.
const (
	maxBatchItems = 100
	maxBatchBytes = 1 << 20
)

// maxEncryptItems is Vault's own limit. What is encrypted together belongs
// together, so it goes in one request where the server takes it: with OpenBao
// that is found out by asking.
const maxEncryptItems = 10_000

// Key names a transit key.
type Key struct {
	Mount string // path of the transit engine
	Name  string
}

// String returns the key as Vault's paths have it, such as "transit/keys/app".
func (k Key) String() string { return k.Mount + "/keys/" + k.Name }

func (k Key) check() error {
	var errs []error
	if err := ciphertext.CheckPath(k.Mount); err != nil {
		errs = append(errs, fmt.Errorf("transit mount: %w", err))
	}
	if err := ciphertext.CheckName(k.Name); err != nil {
		errs = append(errs, fmt.Errorf("transit key: %w", err))
	}
	return errors.Join(errs...)
}

// Item is what to encrypt (Data is plaintext), decrypt or rewrap (Data is
// ciphertext). Context is the derivation context before base64, nil for a key
// that is not derived; either all items of a call have one or none has.
type Item struct {
	Data    []byte
	Context []byte
}

// Result answers the Item at the same position: Data, or Err, which wraps
// [ErrMismatch], [ErrTooOld], [ErrTooNew] or [ErrNotFound] where one fits.
type Result struct {
	Data []byte
	Err  error
}

// Encrypt returns the ciphertext of each item, under the newest version of the
// key: in one request if they are no more than fit into a Secret. The error is
// about the request as a whole; items fail on their own.
func (s *Session) Encrypt(ctx context.Context, k Key, items []Item) ([]Result, error) {
	return s.batch(ctx, "encrypt", "encrypting", k, items)
}

// Decrypt returns the plaintext of each item.
func (s *Session) Decrypt(ctx context.Context, k Key, items []Item) ([]Result, error) {
	return s.batch(ctx, "decrypt", "decrypting", k, items)
}

// Rewrap returns each item encrypted anew under the newest version of the key,
// without showing the plaintext to anybody outside of Vault. An item that is
// at that version already gets a new text all the same: leave such items out.
func (s *Session) Rewrap(ctx context.Context, k Key, items []Item) ([]Result, error) {
	return s.batch(ctx, "rewrap", "rewrapping", k, items)
}

type batchItem struct {
	Plaintext  *string `json:"plaintext,omitempty"`
	Ciphertext string  `json:"ciphertext,omitempty"`
	Context    string  `json:"context,omitempty"`
}

type batchResult struct {
	Plaintext  *string `json:"plaintext"`
	Ciphertext string  `json:"ciphertext"`
	Error      string  `json:"error"`
}

func (s *Session) batch(ctx context.Context, op, doing string, k Key, items []Item) ([]Result, error) {
	doing += " with " + k.String()
	fail := func(err error) error { return &Error{Doing: doing, Address: s.client.address, Err: err} }
	if err := k.check(); err != nil {
		return nil, fail(err)
	}
	for _, it := range items {
		if (it.Context == nil) != (items[0].Context == nil) {
			return nil, fail(errors.New("some items of the batch have a context and some have none"))
		}
	}
	limit := maxBatchItems
	if op == "encrypt" {
		limit = maxEncryptItems
	}
	results := make([]Result, 0, len(items))
	for start := 0; start < len(items); {
		end, size := start, 0
		in := make([]batchItem, 0, min(len(items)-start, limit))
		for end < len(items) && len(in) < limit {
			it := encode(op, items[end])
			n := len(it.Ciphertext)
			if it.Plaintext != nil {
				n = len(*it.Plaintext)
			}
			if len(in) > 0 && size+n > maxBatchBytes {
				break
			}
			in, size, end = append(in, it), size+n, end+1
		}
		var out struct {
			Data *struct {
				Results []batchResult `json:"batch_results"`
			} `json:"data"`
		}
		err := s.do(ctx, request{
			op: Operation(op), doing: doing, method: http.MethodPost, path: k.Mount + "/" + op + "/" + k.Name,
			in: map[string]any{"batch_input": in}, items: len(in), out: &out, partial: true,
		})
		if len(in) > maxBatchItems && tooMany(err) {
			limit = maxBatchItems
			continue
		}
		if err != nil {
			return nil, err
		}
		// Results are told apart by nothing but their position: a wrong number of
		// them could give one file the secret of another.
		if out.Data == nil || len(out.Data.Results) != len(in) {
			n := 0
			if out.Data != nil {
				n = len(out.Data.Results)
			}
			return nil, fail(fmt.Errorf("%w: %d results for %d items", ErrNotVault, n, len(in)))
		}
		for _, r := range out.Data.Results {
			results = append(results, decodeResult(op, r))
		}
		start = end
	}
	return results, nil
}

// tooMany is whether a request was refused for the size of its JSON, which both
// servers name so.
func tooMany(err error) bool {
	var e *Error
	return errors.As(err, &e) && !e.Transient && e.Status >= http.StatusBadRequest && strings.Contains(e.Error(), "JSON")
}

func encode(op string, it Item) batchItem {
	var b batchItem
	if op == "encrypt" {
		text := base64.StdEncoding.EncodeToString(it.Data)
		b.Plaintext = &text // present even when empty
	} else {
		b.Ciphertext = string(it.Data)
	}
	if it.Context != nil {
		b.Context = base64.StdEncoding.EncodeToString(it.Context)
	}
	return b
}

func decodeResult(op string, r batchResult) Result {
	if r.Error != "" {
		words := clip(r.Error)
		if sentinel := sentinelOf(words); sentinel != nil {
			return Result{Err: worded{sentinel, words}}
		}
		return Result{Err: errors.New(words)}
	}
	if op == "decrypt" {
		if r.Plaintext == nil {
			return Result{Err: fmt.Errorf("%w: a result with neither plaintext nor error", ErrNotVault)}
		}
		data, err := base64.StdEncoding.DecodeString(*r.Plaintext)
		if err != nil {
			return Result{Err: fmt.Errorf("%w: plaintext that is not base64", ErrNotVault)}
		}
		return Result{Data: data}
	}
	text := []byte(r.Ciphertext)
	if _, err := ciphertext.Version(text); err != nil {
		return Result{Err: fmt.Errorf("%w: a result that %w", ErrNotVault, err)}
	}
	return Result{Data: text}
}

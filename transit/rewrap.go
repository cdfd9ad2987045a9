package transit

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/retry"
)

// verifyFor bounds how long RewrapVerified repeats items whose result cannot be verified.
// It is longer than a standby server lags behind.
const verifyFor = 30 * time.Second

// Rewrapper rewraps. A [*Session] is one.
type Rewrapper interface {
	Rewrap(ctx context.Context, key ciphertext.Key, items []Item) ([]Result, error)
}

// RewrapVerified rewraps the items to a version of the key and verifies each result, so
// that it may overwrite the item: the result has that version, holds as many bytes, and
// can be rewrapped itself, that is, it decrypts with the same key and context. It ignores
// the KeyVersion of the items.
//
// A server that lags behind, or that is not the right one, may fail these checks for a
// while, or not know the version yet. Such items are repeated for up to 30 seconds, or until the deadline of the
// context; then their Result wraps [ErrUnverified] or [ErrLagging]. Two ciphertexts of
// the same length and context that the server swapped cannot be told apart without
// decrypting them.
//
// Other errors are as for [Session.Rewrap].
func RewrapVerified(ctx context.Context, vault Rewrapper, key ciphertext.Key, version int,
	items []Item) ([]Result, error) {
	results := make([]Result, len(items))
	todo := make([]int, len(items))
	for i := range items {
		todo[i] = i
	}
	var failed error
	_ = retry.Do(ctx, verifyFor, func() *retry.Failure {
		batch := make([]Item, len(todo))
		for i, n := range todo {
			batch[i] = Item{Data: items[n].Data, Context: items[n].Context, KeyVersion: version}
		}
		var checked []Result
		if checked, failed = rewrapOnce(ctx, vault, key, version, batch); failed != nil {
			return &retry.Failure{Err: failed, Final: true}
		}
		var again []int
		var err error
		for i, n := range todo {
			results[n] = checked[i]
			if e := checked[i].Err; errors.Is(e, ErrUnverified) || errors.Is(e, ErrLagging) {
				again, err = append(again, n), e
			}
		}
		if todo = again; len(todo) > 0 {
			return &retry.Failure{Err: err}
		}
		return nil
	})
	return results, failed
}

// rewrapOnce rewraps and verifies the items once. All of them have the requested version.
func rewrapOnce(ctx context.Context, vault Rewrapper, key ciphertext.Key, version int,
	items []Item) ([]Result, error) {
	results, err := vault.Rewrap(ctx, key, items)
	if err != nil {
		return nil, err
	}
	var verify []Item
	var at []int
	for i, r := range results {
		if lagging(r.Err, items[i].Data, version) {
			results[i].Err = fmt.Errorf("%w: %w", ErrLagging, r.Err)
		}
		if r.Err != nil {
			continue
		}
		if r = checkVersion(r, version); r.Err == nil {
			r.Err = checkReplacement(items[i].Data, r.Data)
		}
		if results[i] = r; r.Err == nil {
			verify = append(verify, Item{Data: r.Data, Context: items[i].Context, KeyVersion: version})
			at = append(at, i)
		}
	}
	if len(verify) == 0 {
		return results, nil
	}
	again, err := vault.Rewrap(ctx, key, verify)
	if err != nil {
		return nil, err
	}
	for i, n := range at {
		err := again[i].Err
		if err == nil {
			err = checkReplacement(items[n].Data, again[i].Data)
		}
		if err != nil && !errors.Is(err, ErrUnverified) {
			// The error is not wrapped: it is about the result, not about the item.
			err = fmt.Errorf("%w: it cannot be rewrapped again: %s", ErrUnverified, err.Error())
		}
		if err != nil {
			results[n] = Result{Err: err}
		}
	}
	return results, nil
}

// lagging reports whether the error of a rewrap to a version says that the server does not have this or an older
// version of the key, although the caller has seen it.
func lagging(err error, old []byte, version int) bool {
	before, parseErr := ciphertext.Version(old)
	return errors.Is(err, ErrTooNew) && parseErr == nil && before <= version
}

// checkReplacement reports whether a result may hold the same value as the old text.
func checkReplacement(old, replacement []byte) error {
	before, errBefore := contentLength(old)
	after, errAfter := contentLength(replacement)
	switch {
	case errBefore != nil || errAfter != nil:
		return fmt.Errorf("%w: it is not ciphertext", ErrUnverified)
	case before != after:
		return fmt.Errorf("%w: it holds %d bytes, and the old one %d", ErrUnverified, after, before)
	case slices.Equal(old, replacement):
		return fmt.Errorf("%w: it is the old ciphertext", ErrUnverified)
	}
	return nil
}

// contentLength returns the number of bytes after the version of a ciphertext.
func contentLength(text []byte) (int, error) {
	if _, err := ciphertext.Version(text); err != nil {
		return 0, err
	}
	content := text[bytes.LastIndexByte(text, ':')+1:]
	return base64.StdEncoding.DecodedLen(len(content)) - bytes.Count(content, []byte("=")), nil
}

// Decryptable reports for each item whether it decrypts, without its plaintext: nil, or why
// not. It ignores the KeyVersion of the items. The error is as for [Session.Rewrap].
func Decryptable(ctx context.Context, vault Rewrapper, key ciphertext.Key, items []Item) ([]error, error) {
	items = slices.Clone(items)
	for i := range items {
		items[i].KeyVersion = 0
	}
	results, err := vault.Rewrap(ctx, key, items)
	if err != nil {
		return nil, err
	}
	errs := make([]error, len(results))
	for i, r := range results {
		errs[i] = r.Err
	}
	return errs, nil
}

// IsUndecryptable reports whether the error of an item is evidence that the item does not
// decrypt with the key and the context. Others are none, such as [ErrTooNew]: a server that
// lags behind, is busy or was restored from a backup may return them for an item that
// decrypts.
func IsUndecryptable(err error) bool { return errors.Is(err, ErrMismatch) }

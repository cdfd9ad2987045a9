package transit

import (
	"context"
	"errors"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/retry"
)

// decryptLag bounds how long Decrypt waits for a server that does not have a key version yet. Standbys of OpenBao
// 2.5 and of Vault Enterprise respond to reads themselves, and normally lag by less than a second.
const decryptLag = 10 * time.Second

var errLagging = errors.New("the server does not have the key version yet")

// Decrypt returns the plaintext of each item. Errors are as for [Session.Encrypt]. Items that fail with [ErrTooNew] are
// tried again for ten seconds, or until the deadline of the context: a standby may not have their key version yet.
func (s *Session) Decrypt(ctx context.Context, k ciphertext.Key, items []Item) ([]Result, error) {
	results := make([]Result, len(items))
	pending := make([]int, len(items)) // indexes of items
	for i := range items {
		pending[i] = i
	}
	responded := false
	err := retry.Do(ctx, s.client.decryptLag, func() *retry.Failure {
		request := make([]Item, len(pending))
		for i, item := range pending {
			request[i] = items[item]
		}
		found, err := s.batch(ctx, "decrypt", "decrypting", k, request)
		if err != nil {
			return &retry.Failure{Err: err, Final: true}
		}
		responded = true
		for i, item := range pending {
			results[item] = found[i]
		}
		if pending = tooNew(results); len(pending) > 0 {
			return &retry.Failure{Err: errLagging}
		}
		return nil
	})
	if !responded {
		return nil, err
	}
	return results, nil // also if the last attempt failed: they have the error of each item
}

// tooNew returns the indexes of the results of which the server does not have the key version.
func tooNew(results []Result) (late []int) {
	for i, r := range results {
		if errors.Is(r.Err, ErrTooNew) {
			late = append(late, i)
		}
	}
	return late
}

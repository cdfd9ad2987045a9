package inventory

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/retry"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	// keyReaders bounds the concurrent requests for keys.
	keyReaders = 8
	// lagFor bounds how long a KeyReader waits, in all, for servers of Vault that lag behind: see
	// [transit.Session.Decrypt].
	lagFor = 10 * time.Second
)

var errLagging = errors.New("the server has an older version of the key")

// KeyReader reads keys from Vault and keeps what it has read.
type KeyReader struct {
	session *transit.Session // nil: no key can be read
	settle  time.Duration    // see transit.Session.Settle
	note    func(string)     // takes each failure once
	results map[ciphertext.Key]keyResult
	noted   map[string]bool
	lagFor  time.Duration // for which Read still waits for servers that lag behind
}

type keyResult struct {
	info   transit.KeyInfo
	target transit.Target // what entries should have at least
	err    error
}

// NewKeyReader returns a reader whose session may be nil. The settle time is as for
// [transit.Session.Target].
func NewKeyReader(session *transit.Session, settle time.Duration, note func(string)) *KeyReader {
	return &KeyReader{
		session: session, settle: settle, note: note,
		results: map[ciphertext.Key]keyResult{}, noted: map[string]bool{}, lagFor: lagFor,
	}
}

// Note notes an error, unless it has been noted before.
func (r *KeyReader) Note(err error) {
	if text := err.Error(); !r.noted[text] {
		r.noted[text] = true
		r.note(text)
	}
}

// KeysOf returns the keys of Secrets without duplicates.
func KeysOf(secrets []*Secret) (keys []ciphertext.Key) {
	known := map[ciphertext.Key]bool{}
	for _, s := range secrets {
		if key := s.TransitKey(); key.Name != "" && !known[key] {
			known[key] = true
			keys = append(keys, key)
		}
	}
	return keys
}

// Read reads the keys of Secrets from Vault. It reads a key again if a Secret has a newer version than the key: a
// standby may lag behind, or the key was restored from a backup.
func (r *KeyReader) Read(ctx context.Context, secrets []*Secret) {
	r.read(ctx, KeysOf(secrets))
	behind := r.behind(secrets)
	if len(behind) == 0 || r.lagFor <= 0 {
		return
	}
	r.Note(display.Errorf("waiting up to %s for Vault, which has no version of %s that is as new as a Secret's", r.lagFor,
		behind[0]))
	began := time.Now()
	_ = retry.Do(ctx, r.lagFor, func() *retry.Failure {
		r.read(ctx, behind)
		if behind = r.behind(secrets); len(behind) > 0 {
			return &retry.Failure{Err: errLagging}
		}
		return nil
	})
	r.lagFor -= time.Since(began)
	if len(behind) > 0 {
		r.lagFor = 0
	}
}

// behind returns the keys that are older than an entry of a Secret.
func (r *KeyReader) behind(secrets []*Secret) (keys []ciphertext.Key) {
	older := slices.DeleteFunc(slices.Clone(secrets), func(s *Secret) bool {
		result, known := r.results[s.TransitKey()]
		return !known || result.err != nil || s.Newest <= result.info.Latest
	})
	return KeysOf(older)
}

// read reads one key first, so that a Vault that does not respond costs one timeout and not one for each key.
func (r *KeyReader) read(ctx context.Context, keys []ciphertext.Key) {
	for limit := 1; len(keys) > 0 && r.session != nil; limit = keyReaders {
		batch := keys[:min(len(keys), limit)]
		keys = keys[len(batch):]
		results := make([]keyResult, len(batch))
		var group errgroup.Group
		for i, key := range batch {
			group.Go(func() error {
				info, err := r.session.Key(ctx, key)
				results[i] = keyResult{info: info, err: err}
				if err == nil {
					results[i].target = r.session.Target(ctx, info, r.settle)
				}
				return nil
			})
		}
		group.Wait()
		if ctx.Err() != nil {
			return
		}
		for i, result := range results {
			r.results[batch[i]] = result
			if result.err != nil {
				r.Note(result.err)
			}
		}
		if slices.ContainsFunc(results, keyResult.appliesToAll) {
			return
		}
	}
}

// appliesToAll reports whether a request for any other key would fail in the same way.
func (r keyResult) appliesToAll() bool {
	return errors.Is(r.err, transit.ErrUnreachable) || errors.Is(r.err, transit.ErrTimeout) ||
		errors.Is(r.err, transit.ErrSealed) || errors.Is(r.err, transit.ErrInvalidToken)
}

var errNotRead = errors.New("the key was not read, because another key could not be read")

// Info returns what has been read of a key, or why it could not be read.
func (r *KeyReader) Info(key ciphertext.Key) (transit.KeyInfo, error) {
	result, known := r.results[key]
	if !known {
		return transit.KeyInfo{}, errNotRead
	}
	return result.info, result.err
}

// Latest returns the newest version of a key; known is false if the key has not been read.
func (r *KeyReader) Latest(key ciphertext.Key) (version int, known bool) {
	result, known := r.results[key]
	return result.info.Latest, known
}

// SetState sets the state of a Secret by what has been read of its key.
func (r *KeyReader) SetState(s *Secret) {
	result, known := r.results[s.TransitKey()]
	switch {
	case errors.Is(result.err, transit.ErrNotFound):
		s.addProblem("", "key %s does not exist", s.TransitKey())
		s.setState(nil)
	case !known || result.err != nil:
		s.setState(nil)
	default:
		s.setState(&result)
	}
}

// Package memoryvault is the transit engine of a Vault in memory, for tests of logic that need thousands of
// runs, and for examples. It really encrypts: ciphertext decrypts only with its key, version and context.
//
// [TestContract] compares it with a real Vault.
package memoryvault

import (
	"bytes"
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Vault has the methods of a [transit.Session] that the programs use for keys and ciphertext. It is safe for
// concurrent use.
type Vault struct {
	// Before, if not nil, is called before each request with its name, such as "rewrap". If it returns an
	// error, the request fails with it. After is called when the request was processed; its error replaces
	// the response.
	Before, After func(ctx context.Context, operation string) error
	// Change, if not nil, may replace the results of a rewrap.
	Change func(key ciphertext.Key, items []transit.Item, results []transit.Result) ([]transit.Result, error)
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	mu       sync.Mutex
	keys     map[ciphertext.Key]*transit.KeyInfo
	secret   [32]byte
	requests []string
}

// New returns a Vault with derived keys of these names in the engine "transit", at version 1.
func New(names ...string) *Vault {
	v := &Vault{keys: map[ciphertext.Key]*transit.KeyInfo{}}
	_, _ = rand.Read(v.secret[:])
	for _, name := range names {
		v.CreateKey(Key(name), true)
	}
	return v
}

// Clone returns another server with the same keys, which does not get later changes.
func (v *Vault) Clone() *Vault {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := &Vault{keys: map[ciphertext.Key]*transit.KeyInfo{}, secret: v.secret, Now: v.Now}
	for key, info := range v.keys {
		copied := *info
		copied.Created = maps.Clone(info.Created)
		c.keys[key] = &copied
	}
	return c
}

// Key returns the key of a name in the engine "transit".
func Key(name string) ciphertext.Key { return ciphertext.Key{Mount: "transit", Name: name} }

// CreateKey creates a key with one version, or replaces it.
func (v *Vault) CreateKey(key ciphertext.Key, derived bool) {
	v.DeleteKey(key)
	v.SetKey(key, transit.KeyInfo{Type: "aes256-gcm96", Derived: derived, Latest: 1, MinDecryptionVersion: 1,
		Created: map[int]time.Time{1: v.Clock()}})
}

// SetKey sets the state of a key. Versions without a creation time keep the one that they have.
func (v *Vault) SetKey(key ciphertext.Key, info transit.KeyInfo) {
	v.mu.Lock()
	defer v.mu.Unlock()
	created := map[int]time.Time{}
	for n := 1; n <= info.Latest; n++ {
		created[n] = v.Clock()
		if before := v.keys[key]; before != nil && !before.Created[n].IsZero() {
			created[n] = before.Created[n]
		}
		if at := info.Created[n]; !at.IsZero() {
			created[n] = at
		}
	}
	info.Created = created
	v.keys[key] = &info
}

// DeleteKey deletes a key.
func (v *Vault) DeleteKey(key ciphertext.Key) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.keys, key)
}

// Requests returns the names of the requests since the last call.
func (v *Vault) Requests() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := v.requests
	v.requests = nil
	return all
}

// Clock returns the time of the Vault.
func (v *Vault) Clock() time.Time {
	if v.Now != nil {
		return v.Now()
	}
	return time.Now()
}

// request processes a request for a key.
func request[T any](ctx context.Context, v *Vault, operation string, key ciphertext.Key,
	do func(*transit.KeyInfo) (T, error)) (out T, err error) {
	if err := ctx.Err(); err != nil {
		return out, err
	}
	if v.Before != nil {
		if err := v.Before(ctx, operation); err != nil {
			return out, err
		}
	}
	v.mu.Lock()
	v.requests = append(v.requests, operation)
	info := v.keys[key]
	if info == nil {
		err = fmt.Errorf("%s with %s: %w", operation, key, transit.ErrNotFound)
	} else {
		out, err = do(info)
	}
	v.mu.Unlock()
	if v.After != nil {
		if err := v.After(ctx, operation); err != nil {
			var none T
			return none, err
		}
	}
	return out, err
}

// Key returns a copy of the state of a key.
func (v *Vault) Key(ctx context.Context, key ciphertext.Key) (transit.KeyInfo, error) {
	return request(ctx, v, "key", key, func(info *transit.KeyInfo) (transit.KeyInfo, error) { return v.copyOf(info), nil })
}

func (v *Vault) copyOf(info *transit.KeyInfo) transit.KeyInfo {
	c := *info
	c.Created = maps.Clone(info.Created)
	maps.DeleteFunc(c.Created, func(n int, _ time.Time) bool { return n < info.MinDecryptionVersion })
	c.ReadAt = v.Clock().UTC().Truncate(time.Second)
	return c
}

// ListKeys returns the names of the keys of an engine.
func (v *Vault) ListKeys(_ context.Context, mount string) (names []string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for key := range v.keys {
		if key.Mount == mount {
			names = append(names, key.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Settle returns the configured time, as if this were storage that keeps its data.
func (v *Vault) Settle(_ context.Context, configured time.Duration) time.Duration {
	return max(cmp.Or(configured, transit.DefaultSettle), 0)
}

// Rotate adds a version.
func (v *Vault) Rotate(ctx context.Context, key ciphertext.Key) (transit.KeyInfo, error) {
	return request(ctx, v, "rotate", key, func(info *transit.KeyInfo) (transit.KeyInfo, error) {
		info.Latest++
		info.Created[info.Latest] = v.Clock()
		return v.copyOf(info), nil
	})
}

// SetMinDecryptionVersion retires the versions below version.
func (v *Vault) SetMinDecryptionVersion(ctx context.Context, key ciphertext.Key, _ transit.KeyInfo, version int) error {
	_, err := request(ctx, v, "config", key, func(info *transit.KeyInfo) (none struct{}, err error) {
		if version > info.Latest {
			return none, fmt.Errorf("version %d of %s does not exist", version, key)
		}
		info.MinDecryptionVersion = version
		return none, nil
	})
	return err
}

// Encrypt encrypts the items, each with its KeyVersion or the newest.
func (v *Vault) Encrypt(ctx context.Context, key ciphertext.Key, items []transit.Item) ([]transit.Result, error) {
	return v.each(ctx, "encrypt", key, items, func(info *transit.KeyInfo, item transit.Item) ([]byte, error) {
		return v.seal(key, info, item, item.Data)
	})
}

// Decrypt decrypts the items.
func (v *Vault) Decrypt(ctx context.Context, key ciphertext.Key, items []transit.Item) ([]transit.Result, error) {
	return v.each(ctx, "decrypt", key, items, func(info *transit.KeyInfo, item transit.Item) ([]byte, error) {
		return v.open(key, info, item)
	})
}

// Rewrap encrypts the items again, each with its KeyVersion or the newest.
func (v *Vault) Rewrap(ctx context.Context, key ciphertext.Key, items []transit.Item) ([]transit.Result, error) {
	results, err := v.each(ctx, "rewrap", key, items, func(info *transit.KeyInfo, item transit.Item) ([]byte, error) {
		plaintext, err := v.open(key, info, item)
		if err != nil {
			return nil, err
		}
		return v.seal(key, info, item, plaintext)
	})
	if err == nil && v.Change != nil {
		return v.Change(key, items, results)
	}
	return results, err
}

func (v *Vault) each(ctx context.Context, operation string, key ciphertext.Key, items []transit.Item,
	do func(*transit.KeyInfo, transit.Item) ([]byte, error)) ([]transit.Result, error) {
	return request(ctx, v, operation, key, func(info *transit.KeyInfo) ([]transit.Result, error) {
		results := make([]transit.Result, len(items))
		for i, item := range items {
			if (item.Context == nil) != (items[0].Context == nil) {
				return nil, fmt.Errorf("%s with %s: some items have a context and some have none", operation, key)
			}
			if info.Derived && len(item.Context) == 0 {
				results[i].Err = fmt.Errorf("item: missing 'context' for key derivation; the key was created using a "+
					"derived key (%s)", key)
				continue
			}
			results[i].Data, results[i].Err = do(info, item)
		}
		return results, nil
	})
}

// seal returns the ciphertext of a plaintext at the location of the item.
func (v *Vault) seal(key ciphertext.Key, info *transit.KeyInfo, item transit.Item, plaintext []byte) ([]byte, error) {
	version := cmp.Or(item.KeyVersion, info.Latest)
	if version > info.Latest {
		return nil, fmt.Errorf("item: %w", transit.ErrTooNew)
	}
	aead := v.aead(key, info, version, item.Context)
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce)
	return fmt.Appendf(nil, "vault:v%d:%s", version,
		base64.StdEncoding.EncodeToString(aead.Seal(nonce, nonce, plaintext, nil))), nil
}

func (v *Vault) open(key ciphertext.Key, info *transit.KeyInfo, item transit.Item) ([]byte, error) {
	version, err := ciphertext.Version(item.Data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("item: %w", err)
	case version > info.Latest:
		return nil, fmt.Errorf("item: %w", transit.ErrTooNew)
	case version < info.MinDecryptionVersion:
		return nil, fmt.Errorf("item: %w", transit.ErrTooOld)
	}
	content, err := base64.StdEncoding.DecodeString(string(item.Data[bytes.LastIndexByte(item.Data, ':')+1:]))
	if err != nil {
		return nil, fmt.Errorf("item: %w", err)
	}
	aead := v.aead(key, info, version, item.Context)
	if len(content) < aead.NonceSize() {
		return nil, fmt.Errorf("item: %w", transit.ErrMismatch)
	}
	plaintext, err := aead.Open(nil, content[:aead.NonceSize()], content[aead.NonceSize():], nil)
	if err != nil {
		return nil, fmt.Errorf("item: %w", transit.ErrMismatch)
	}
	return plaintext, nil
}

func (v *Vault) aead(key ciphertext.Key, info *transit.KeyInfo, version int, context []byte) cipher.AEAD {
	h := hmac.New(sha256.New, v.secret[:])
	fmt.Fprintf(h, "%s %d %d ", key, version, info.Created[version].UnixNano())
	if info.Derived {
		h.Write(context)
	}
	block, err := aes.NewCipher(h.Sum(nil))
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

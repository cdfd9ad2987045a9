package secretmanager_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// fakeVault is a Vault in memory, for examples and for tests of this package's own logic.
// Its ciphertexts are well-formed and bound to key and context, but not encrypted.
// TestVaultContract compares it with a real one.
type fakeVault struct {
	keys  map[ciphertext.Key]transit.KeyInfo
	calls []string // operations, with the number of items
}

func newFakeVault(keys ...string) *fakeVault {
	v := &fakeVault{keys: map[ciphertext.Key]transit.KeyInfo{}}
	for _, name := range keys {
		v.keys[ciphertext.Key{Mount: "transit", Name: name}] = transit.KeyInfo{Derived: true, Latest: 1}
	}
	return v
}

func (v *fakeVault) Key(_ context.Context, key ciphertext.Key) (transit.KeyInfo, error) {
	v.calls = append(v.calls, "key")
	return v.info(key)
}

func (v *fakeVault) info(key ciphertext.Key) (transit.KeyInfo, error) {
	info, ok := v.keys[key]
	if !ok {
		return transit.KeyInfo{}, fmt.Errorf("reading %s: %w", key, transit.ErrNotFound)
	}
	return info, nil
}

func (v *fakeVault) Encrypt(_ context.Context, key ciphertext.Key, items []transit.Item) ([]transit.Result, error) {
	return v.each("encrypt", key, items, func(it transit.Item, latest int) ([]byte, error) {
		return v.text(key, latest, it.Context, it.Data), nil
	})
}

func (v *fakeVault) Decrypt(_ context.Context, key ciphertext.Key, items []transit.Item) ([]transit.Result, error) {
	return v.each("decrypt", key, items, func(it transit.Item, _ int) ([]byte, error) { return v.decrypt(key, it) })
}

func (v *fakeVault) Rewrap(_ context.Context, key ciphertext.Key, items []transit.Item) ([]transit.Result, error) {
	return v.each("rewrap", key, items, func(it transit.Item, latest int) ([]byte, error) {
		plaintext, err := v.decrypt(key, it)
		if err != nil {
			return nil, err
		}
		return v.text(key, latest, it.Context, plaintext), nil
	})
}

func (v *fakeVault) each(
	operation string, key ciphertext.Key, items []transit.Item, do func(transit.Item, int) ([]byte, error),
) ([]transit.Result, error) {
	v.calls = append(v.calls, fmt.Sprintf("%s %d", operation, len(items)))
	info, err := v.info(key)
	if err != nil {
		return nil, err
	}
	results := make([]transit.Result, len(items))
	for i, it := range items {
		results[i].Data, results[i].Err = do(it, cmp.Or(it.KeyVersion, info.Latest))
	}
	return results, nil
}

func (v *fakeVault) text(key ciphertext.Key, version int, context, plaintext []byte) []byte {
	content := strings.Join([]string{"not encrypted at all........", key.String(), string(context),
		string(plaintext)}, "\x00")
	return fmt.Appendf(nil, "vault:v%d:%s", version, base64.StdEncoding.EncodeToString([]byte(content)))
}

func (v *fakeVault) decrypt(key ciphertext.Key, it transit.Item) ([]byte, error) {
	version, err := ciphertext.Version(it.Data)
	if err != nil {
		return nil, err
	}
	info := v.keys[key]
	switch {
	case version > info.Latest:
		return nil, transit.ErrTooNew
	case version < info.MinDecryptionVersion:
		return nil, transit.ErrTooOld
	}
	_, encoded, _ := strings.Cut(strings.TrimPrefix(string(it.Data), "vault:v"), ":")
	content, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, err
	}
	parts := strings.SplitN(string(content), "\x00", 4)
	if len(parts) != 4 || parts[1] != key.String() || parts[2] != string(it.Context) {
		return nil, fmt.Errorf("%w: %w", transit.ErrMismatch, errors.New("cipher: message authentication failed"))
	}
	return []byte(parts[3]), nil
}

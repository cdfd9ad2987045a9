package transit_test

import (
	"bytes"
	"encoding/base64"
	"testing"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestIsUndecryptable checks what a Vault says about garbage, for each type of key that decrypts:
// that it is evidence, and about no other item.
func TestIsUndecryptable(t *testing.T) {
	f := fixture.NewTransit(t)
	for _, kind := range []string{"aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "rsa-2048"} {
		t.Run(kind, func(t *testing.T) {
			key := ciphertext.Key{Mount: "transit", Name: f.Key + "-" + kind}
			f.Write(key.String(), map[string]any{"type": kind})
			good := transit.Item{Data: []byte(f.Encrypt(key, nil, "text"))}
			garbage := func(version string, n int) transit.Item {
				return transit.Item{Data: []byte("vault:v" + version + ":" +
					base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, n)))}
			}
			errs, err := transit.Decryptable(t.Context(), f.Root, key,
				[]transit.Item{good, garbage("1", 28), good, garbage("1", 256), garbage("2", 28), good})
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range []struct{ decrypts, evidence bool }{
				{true, false}, {false, true}, {true, false}, {false, true}, {false, false}, {true, false},
			} {
				if got := errs[i]; (got == nil) != want.decrypts || transit.IsUndecryptable(got) != want.evidence {
					t.Errorf("item %d: %v", i, got)
				}
			}
		})
	}
}

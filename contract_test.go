package secretmanager_test

import (
	"errors"
	"testing"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestVaultContract checks that the Vault in memory of other tests and examples behaves as
// a real one.
func TestVaultContract(t *testing.T) {
	e := newEnv(t)
	for name, vault := range map[string]secretmanager.Vault{"real": e.Root, "in memory": newFakeVault(e.Key)} {
		t.Run(name, func(t *testing.T) {
			key := ciphertext.Key{Mount: "transit", Name: e.Key}
			info, err := vault.Key(t.Context(), key)
			if err != nil || !info.Derived || info.Latest != 1 {
				t.Errorf("%+v, %v", info, err)
			}
			missing := ciphertext.Key{Mount: "transit", Name: e.Key + "-missing"}
			if _, err := vault.Key(t.Context(), missing); !errors.Is(err, transit.ErrNotFound) {
				t.Errorf("a key that does not exist: %v", err)
			}
			items := []transit.Item{{Data: []byte("1"), Context: []byte("a")}, {Data: nil, Context: []byte("b")}}
			encrypted, err := vault.Encrypt(t.Context(), key, items)
			if err != nil || len(encrypted) != 2 {
				t.Fatal(encrypted, err)
			}
			rewrapped, err := vault.Rewrap(t.Context(), key, []transit.Item{
				{Data: encrypted[0].Data, Context: []byte("a")}, {Data: encrypted[1].Data, Context: []byte("elsewhere")},
			})
			if err != nil || rewrapped[0].Err != nil || !errors.Is(rewrapped[1].Err, transit.ErrMismatch) {
				t.Errorf("%+v, %v", rewrapped, err)
			}
			decrypted, err := vault.Decrypt(t.Context(), key, []transit.Item{
				{Data: rewrapped[0].Data, Context: []byte("a")}, {Data: encrypted[1].Data, Context: []byte("b")},
				{Data: []byte("vault:v7:" + string(encrypted[0].Data[9:])), Context: []byte("a")},
			})
			if err != nil || string(decrypted[0].Data) != "1" || len(decrypted[1].Data) != 0 || decrypted[1].Err != nil ||
				!errors.Is(decrypted[2].Err, transit.ErrTooNew) {
				t.Errorf("%+v, %v", decrypted, err)
			}
			if _, err := vault.Decrypt(t.Context(), missing, items[:1]); !errors.Is(err, transit.ErrNotFound) {
				t.Errorf("decrypting with a key that does not exist: %v", err)
			}
		})
	}
}

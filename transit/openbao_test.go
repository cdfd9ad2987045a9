package transit_test

import (
	"fmt"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestOpenBao runs the tests of a real Vault with OpenBao.
func TestOpenBao(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"RoundTrip":            TestRoundTrip,
		"LargestItem":          TestLargestItem,
		"ScopeBindsCiphertext": TestScopeBindsCiphertext,
		"VaultErrors":          TestVaultErrors,
		"Key":                  TestKey,
		"KeyTypes":             TestKeyTypes,
		"KeyVersions":          TestKeyVersions,
		"Login":                TestLogin,
		"SealedVault":          TestSealedVault,
		"TLS":                  TestTLS,
		"Limit":                testJSONLimit,
	} {
		t.Run(name, test)
	}
}

// TestJSONLimit puts the limit of OpenBao 2.4.1 and later in front of a Vault.
func TestJSONLimit(t *testing.T) { testJSONLimit(t) }

// testJSONLimit encrypts, rewraps and decrypts 1,100 items with a server that accepts
// 1,000 JSON strings in a request. Only encrypt, which prefers one request, reaches the
// limit and bisects.
func testJSONLimit(t *testing.T) {
	v := testenv.SharedVault(t)
	for _, derived := range []bool{true, false} {
		t.Run(fmt.Sprintf("derived %v", derived), func(t *testing.T) {
			k := newKey(t, v, derived)
			address, refused := testenv.LimitJSON(t, v)
			s := asRoot(t, v, transit.Config{Address: address})
			items := make([]transit.Item, 1100)
			for i := range items {
				items[i].Data = fmt.Append(nil, i)
				if derived {
					items[i].Context = fmt.Append(nil, i)
				}
			}
			step := func(what string, f func() ([]transit.Result, error)) {
				t.Helper()
				results, err := f()
				if err != nil || len(results) != len(items) {
					t.Fatalf("%s: %d results, %v", what, len(results), err)
				}
				for i, r := range results {
					if r.Err != nil {
						t.Fatalf("%s: item %d: %v", what, i, r.Err)
					}
					items[i].Data = r.Data
				}
			}
			step("encrypt", func() ([]transit.Result, error) { return s.Encrypt(t.Context(), k, items) })
			bisected := refused()
			if bisected < 1 || bisected > 7 { // 1,100, 550 and 275 items
				t.Errorf("%d requests of encrypt were refused", bisected)
			}
			if _, err := s.Rotate(t.Context(), k); err != nil {
				t.Fatal(err)
			}
			step("rewrap", func() ([]transit.Result, error) { return s.Rewrap(t.Context(), k, items) })
			step("decrypt", func() ([]transit.Result, error) { return s.Decrypt(t.Context(), k, items) })
			for i, it := range items {
				if string(it.Data) != fmt.Sprint(i) {
					t.Fatalf("item %d decrypts to %q", i, it.Data)
				}
			}
			if n := refused(); n != bisected {
				t.Errorf("%d more requests were refused", n-bisected)
			}
		})
	}
}

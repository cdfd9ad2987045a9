package transit_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestOpenBao does with an OpenBao what the other tests do with a Vault.
func TestOpenBao(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"RoundTrip":                      TestRoundTrip,
		"TheLargestSecretIsOneItem":      TestTheLargestSecretIsOneItem,
		"CiphertextOpensInItsPlaceAlone": TestCiphertextOpensInItsPlaceAlone,
		"VaultsRefusalsAreRecognised":    TestVaultsRefusalsAreRecognised,
		"Key":                            TestKey,
		"LoginWithAServiceAccountToken":  TestLoginWithAServiceAccountToken,
		"ASealedVault":                   TestASealedVault,
		"TLSWithAPrivateCA":              TestTLSWithAPrivateCA,
		"Limit":                          testJSONLimit,
	} {
		t.Run(name, test)
	}
}

// TestJSONLimit is the limit of OpenBao 2.4.1 and later, in front of a Vault.
func TestJSONLimit(t *testing.T) { testJSONLimit(t) }

// limited refuses requests with more JSON strings than OpenBao takes, names and
// values, in its words.
func limited(t *testing.T, v *testenv.Vault, refused *int) *httptest.Server {
	t.Helper()
	to, err := url.Parse(v.Address)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		strs := 0
		for d := json.NewDecoder(strings.NewReader(string(body))); ; {
			token, err := d.Token()
			if err != nil {
				break
			}
			if _, ok := token.(string); ok {
				strs++
			}
		}
		if strs > 1000 {
			*refused++
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"errors":["input JSON exceeded number of strings"]}`)
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// 1,100 entries are encrypted, rotated, rewrapped and decrypted by a server that
// takes 1,000 JSON strings a request. Only encrypt, which would like to be one
// request, finds the limit, and goes on in small ones.
func testJSONLimit(t *testing.T) {
	v := testenv.SharedVault(t)
	for _, derived := range []bool{true, false} {
		t.Run(fmt.Sprintf("derived %v", derived), func(t *testing.T) {
			k := newKey(t, v, derived)
			refused := 0
			s := asRoot(t, v, transit.Config{Address: limited(t, v, &refused).URL})
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
			if refused != 1 {
				t.Errorf("%d requests were refused while encrypting", refused)
			}
			if _, err := s.Rotate(t.Context(), k); err != nil {
				t.Fatal(err)
			}
			step("rewrap", func() ([]transit.Result, error) { return s.Rewrap(t.Context(), k, items) })
			step("decrypt", func() ([]transit.Result, error) { return s.Decrypt(t.Context(), k, items) })
			for i, it := range items {
				if string(it.Data) != fmt.Sprint(i) {
					t.Fatalf("item %d came back as %q", i, it.Data)
				}
			}
			if refused != 1 {
				t.Errorf("%d requests were refused", refused-1)
			}
		})
	}
}

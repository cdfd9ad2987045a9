package transit_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestBisect checks that only the item fails that makes a server reject the whole request,
// and that denied requests are not repeated.
func TestBisect(t *testing.T) {
	f := fixture.NewTransit(t)
	k := ciphertext.Key{Mount: "transit", Name: f.Key}
	items := make([]transit.Item, 7)
	for i := range items {
		items[i] = transit.Item{Data: []byte("text"), Context: []byte("context")}
	}
	results, err := f.Root.Encrypt(t.Context(), k, items)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		items[i].Data = r.Data
	}
	for name, test := range map[string]struct {
		status int
		sizes  []int
		failed []bool // nil: the whole call fails
	}{
		"bad request": {http.StatusBadRequest, []int{7, 3, 4, 2, 2, 1, 1}, []bool{6: true}},
		"too large":   {http.StatusRequestEntityTooLarge, []int{7, 3, 4, 2, 2, 1, 1}, []bool{6: true}},
		"denied":      {http.StatusForbidden, []int{7}, nil},
		"not found":   {http.StatusNotFound, []int{7}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var sizes []int
			proxy := f.VaultProxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
				text, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				sizes = append(sizes, strings.Count(string(text), `"ciphertext"`))
				if strings.Contains(string(text), string(items[6].Data)) {
					http.Error(rw, `{"errors":["refused"]}`, test.status)
					return
				}
				r.Body = io.NopCloser(bytes.NewReader(text))
				vault.ServeHTTP(rw, r)
			})
			got, err := f.Session(proxy, f.Vault.RootToken).Decrypt(t.Context(), k, items)
			if diff := cmp.Diff(test.sizes, sizes); diff != "" {
				t.Errorf("items of each request (-want +got):\n%s", diff)
			}
			if test.failed == nil {
				if err == nil {
					t.Error("the call succeeded")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range got {
				if (r.Err != nil) != test.failed[i] || r.Err == nil && string(r.Data) != "text" {
					t.Errorf("item %d: %q, %v", i, r.Data, r.Err)
				}
			}
		})
	}
}

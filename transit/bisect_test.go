package transit_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestBisect checks that only the item fails that makes a server reject the whole request,
// and that denied requests are not repeated.
func TestBisect(t *testing.T) {
	v := testenv.SharedVault(t)
	k := newKey(t, v, true)
	items := make([]transit.Item, 7)
	for i := range items {
		items[i] = transit.Item{Data: []byte("text"), Context: []byte("context")}
	}
	results, err := asRoot(t, v, transit.Config{Address: v.Address}).Encrypt(t.Context(), k, items)
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
			proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				text, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				sizes = append(sizes, strings.Count(string(text), `"ciphertext"`))
				if strings.Contains(string(text), string(items[6].Data)) {
					http.Error(rw, `{"errors":["refused"]}`, test.status)
					return
				}
				copied, err := http.NewRequestWithContext(r.Context(), r.Method, v.Address+r.URL.Path,
					strings.NewReader(string(text)))
				if err != nil {
					t.Error(err)
					return
				}
				copied.Header = r.Header
				resp, err := http.DefaultClient.Do(copied)
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				rw.WriteHeader(resp.StatusCode)
				_, _ = io.Copy(rw, resp.Body)
			}))
			defer proxy.Close()
			got, err := asRoot(t, v, transit.Config{Address: proxy.URL}).Decrypt(t.Context(), k, items)
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

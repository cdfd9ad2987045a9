package transit

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestDecryptLag decrypts three items with a server that does not have the key version of two of them yet.
func TestDecryptLag(t *testing.T) {
	const (
		done    = `{"plaintext":"eA=="}`
		late    = `{"error":"invalid ciphertext: version is too new"}`
		retired = `{"error":"ciphertext version is disallowed by policy (too old)"}`
	)
	for name, test := range map[string]struct {
		responses []string // the last one is repeated; empty: HTTP 403
		lag       time.Duration
		want      error // of the second item
		sizes     []int // of the requests; the last one is repeated
	}{
		"no lag":           {[]string{done + done + done}, time.Minute, nil, []int{3}},
		"one retry":        {[]string{done + late + late, done + done}, time.Minute, nil, []int{3, 2}},
		"one by one":       {[]string{done + late + late, late + done, done}, time.Minute, nil, []int{3, 2, 1}},
		"never":            {[]string{done + late + late, late + late}, 500 * time.Millisecond, ErrTooNew, []int{3, 2, 2}},
		"then retired":     {[]string{done + late + late, retired + done}, time.Minute, ErrTooOld, []int{3, 2}},
		"then no response": {[]string{done + late + late, ""}, time.Minute, ErrTooNew, []int{3, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sizes []int
			s := fakeVault(t, -1, func(w http.ResponseWriter, r *http.Request) {
				results := test.responses[min(len(sizes), len(test.responses)-1)]
				sizes = append(sizes, batchSize(t, r))
				if results == "" {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				fmt.Fprintf(w, `{"data":{"batch_results":[%s]}}`, strings.ReplaceAll(results, "}{", "},{"))
			})
			s.client.decryptLag = test.lag
			items := []Item{{Data: []byte(canaryText)}, {Data: []byte(canaryText)}, {Data: []byte(canaryText)}}
			results, err := s.Decrypt(t.Context(), fakeKey, items)
			if err != nil || len(results) != 3 || string(results[0].Data) != "x" {
				t.Fatal(results, err)
			}
			if got := results[1].Err; !errors.Is(got, test.want) || got != nil && test.want == nil {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if len(sizes) < len(test.sizes) || !slices.Equal(sizes[:len(test.sizes)], test.sizes) {
				t.Errorf("requests of %d items, want %d", sizes, test.sizes)
			}
		})
	}
}

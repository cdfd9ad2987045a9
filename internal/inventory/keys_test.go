package inventory

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/transit"
)

// TestReadLag reads keys from a server that has an older version of one of them for a while.
func TestReadLag(t *testing.T) {
	for name, test := range map[string]struct {
		until    int // number of the request for the key that has the newest version
		lagFor   time.Duration
		latest   int
		requests int // at least
		remains  bool
	}{
		"no lag":        {until: 1, lagFor: time.Minute, latest: 2, requests: 1, remains: true},
		"a lag":         {until: 3, lagFor: time.Minute, latest: 2, requests: 3, remains: true},
		"restored":      {until: 1000, lagFor: 500 * time.Millisecond, latest: 1, requests: 3},
		"waited before": {until: 1000, latest: 1, requests: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requests := map[string]int{}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				key := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
				requests[key]++
				latest := 2
				if key == "late" && requests[key] < test.until {
					latest = 1
				}
				fmt.Fprintf(w, `{"data": {"type": "aes256-gcm96", "latest_version": %d, "min_decryption_version": 1,
					"supports_encryption": true, "supports_decryption": true, "keys": {"1": 1, "2": 2}}}`, latest)
			}))
			t.Cleanup(server.Close)
			client, err := transit.NewClient(transit.Config{Address: server.URL, RetryFor: -1})
			if err != nil {
				t.Fatal(err)
			}
			var notes []string
			r := NewKeyReader(client.Session("", transit.StaticToken("t")), time.Hour,
				func(text string) { notes = append(notes, text) })
			r.lagFor = test.lagFor
			var secrets []*Secret
			for _, key := range []string{"late", "other"} {
				secrets = append(secrets, &Secret{Mount: "transit", Key: key, Oldest: 1, Newest: 2})
			}
			for range 2 {
				r.Read(t.Context(), secrets)
			}
			info, err := r.Info(secrets[0].TransitKey())
			if err != nil || info.Latest != test.latest {
				t.Errorf("%+v, %v", info, err)
			}
			if requests["late"] < test.requests || requests["other"] != 2 || (r.lagFor > 0) != test.remains {
				t.Errorf("requests %v, %s remain", requests, r.lagFor)
			}
			if waited := test.lagFor > 0 && test.until > 1; len(notes) > 1 || (len(notes) == 1) != waited {
				t.Errorf("notes: %q", notes)
			}
		})
	}
}

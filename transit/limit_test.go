package transit

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// With one request in 11 days the second is not sent, and that is known at once.
func TestQPS(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		rw.Write([]byte(`{"data": {"latest_version": 1}}`))
	}))
	t.Cleanup(server.Close)
	for qps, want := range map[float64]int32{1e-6: 1, 0: 2} {
		asked.Store(0)
		client, err := NewClient(Config{Address: server.URL, RetryFor: -1, QPS: qps})
		if err != nil {
			t.Fatal(err)
		}
		session := client.Session("", StaticToken("t"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err1 := session.Key(ctx, ciphertext.Key{Mount: "transit", Name: "app"})
		_, err2 := session.Key(ctx, ciphertext.Key{Mount: "transit", Name: "app"})
		if err1 != nil || (err2 == nil) != (want == 2) || err2 != nil &&
			!strings.Contains(err2.Error(), "would exceed context deadline") {
			t.Errorf("%v a second: %v, %v", qps, err1, err2)
		}
		if got := asked.Load(); got != want {
			t.Errorf("%v a second: %d requests, want %d", qps, got, want)
		}
	}
}

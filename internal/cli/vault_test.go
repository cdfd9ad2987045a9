package cli

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/secretmanager-io/secretmanager/transit"
)

// TestVaultAPIRedirects verifies that the client of vault-setup and doctor follows a redirect
// to plain HTTP outside the loopback interface only if that is allowed. 0.0.0.0 is such an
// address, although it reaches the loopback interface.
func TestVaultAPIRedirects(t *testing.T) {
	var arrived atomic.Int32
	active := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived.Add(1)
		io.WriteString(w, `{"data": {"keys": []}}`)
	}))
	defer active.Close()
	plain := strings.Replace(active.URL, "127.0.0.1", "0.0.0.0", 1)
	standby := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer standby.Close()
	for accepted, want := range map[bool]int32{false: 0, true: 1} {
		arrived.Store(0)
		client, err := newVaultAPI(transit.Config{Address: standby.URL, InsecureHTTP: accepted})
		if err != nil {
			t.Fatal(err)
		}
		client.SetMaxRetries(0)
		client.SetToken("c4nary")
		_, err = client.Logical().Read("sys/policies/acl/x")
		if errors.Is(err, transit.ErrPlainHTTP) == accepted || arrived.Load() != want {
			t.Errorf("accepted %v: %d requests arrived, %v", accepted, arrived.Load(), err)
		}
	}
}

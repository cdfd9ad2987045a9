package testenv

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/relay"
)

// maxJSONStrings is the number of strings, both names and values, that OpenBao accepts in a
// request since 2.4.1.
const maxJSONStrings = 1000

// LimitJSON serves a Vault with the limit of OpenBao 2.4.1: a request with more than
// 1,000 JSON strings is rejected with its message. It returns the address and a
// function that counts the rejected requests.
func LimitJSON(t testing.TB, v *Vault) (address string, refused func() int) {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	vault, err := relay.New(v.Address, transport)
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("reading a request: %v", err)
		}
		if countStrings(body) > maxJSONStrings {
			n.Add(1)
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"errors":["input JSON exceeded number of strings"]}`)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		vault.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, func() int { return int(n.Load()) }
}

func countStrings(text []byte) (n int) {
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		token, err := d.Token()
		if err != nil {
			return n
		}
		if _, ok := token.(string); ok {
			n++
		}
	}
}

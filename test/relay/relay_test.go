package relay_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/relay"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A closing body is one that its server closes.
type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Read(p []byte) (int, error) {
	if c.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	return c.Reader.Read(p)
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

// The request that the server behind the relay gets does not depend on the time at which the server in front closes the
// body.
func TestBodyIsReadBefore(t *testing.T) {
	body := &closing{Reader: strings.NewReader("all of it")}
	var got string
	var failed error
	r, err := relay.New("http://server.invalid/prefix", roundTrip(func(r *http.Request) (*http.Response, error) {
		body.Close()
		text, err := io.ReadAll(r.Body)
		got, failed = r.URL.String()+" "+string(text), err
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("response"))}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	response := httptest.NewRecorder()
	r.ServeHTTP(response, httptest.NewRequest(http.MethodPost, "/v1/x", body))
	if failed != nil || got != "http://server.invalid/prefix/v1/x all of it" || response.Body.String() != "response" {
		t.Errorf("the server got %q (%v), the client %q", got, failed, response.Body)
	}
}

func TestNoAddress(t *testing.T) {
	for _, address := range []string{"", "127.0.0.1:8200", "::"} {
		if _, err := relay.New(address, nil); err == nil {
			t.Errorf("%q is taken for an address", address)
		}
	}
}

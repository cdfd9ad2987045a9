package transit_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

// heard is what the hooks of a client were told.
type heard struct {
	mu     sync.Mutex
	tries  []string // "decrypt 200"
	logins []bool   // whether they failed
}

// observed returns a client that is listened to.
func observed(t *testing.T, address string, retryFor time.Duration) (*transit.Client, *heard) {
	t.Helper()
	h := &heard{}
	c, err := transit.NewClient(transit.Config{
		Address: address, RetryFor: retryFor,
		Observe: func(op transit.Operation, status int, took time.Duration) {
			h.mu.Lock()
			defer h.mu.Unlock()
			if took <= 0 {
				t.Errorf("%s took %s", op, took)
			}
			h.tries = append(h.tries, fmt.Sprint(op, " ", status))
		},
		LoggedIn: func(err error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.logins = append(h.logins, err != nil)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, h
}

// TestObserve: every request that a real Vault gets is told once, with what it
// was and the status of the answer.
func TestObserve(t *testing.T) {
	v := testenv.NewVault(t)
	issuer, err := testenv.NewJWTIssuer()
	if err != nil {
		t.Fatal(err)
	}
	if err := v.TrustIssuer(t.Context(), "jwt", issuer); err != nil {
		t.Fatal(err)
	}
	if err := v.AllowLogin(t.Context(), testenv.Role{Mount: "jwt", Namespace: "demo", ServiceAccount: "app"}); err != nil {
		t.Fatal(err)
	}
	k := newKey(t, v, false)
	c, h := observed(t, v.Address, -1)
	root := c.Session("", transit.StaticToken(v.RootToken))
	good, err := root.Encrypt(t.Context(), k, []transit.Item{{Data: []byte("x")}})
	if err != nil {
		t.Fatal(err)
	}
	bad := []byte("vault:v99:" + string(good[0].Data[len("vault:v1:"):]))
	logIn := func(serviceAccount string) error {
		_, err := c.Login(t.Context(), transit.Login{Mount: "jwt", Role: "app",
			JWT: func() (string, error) { return issuer.Token("demo", serviceAccount, "vault", time.Hour), nil }})
		return err
	}
	for _, test := range []struct {
		name   string
		do     func() error
		fails  bool
		want   []string
		logins []bool
	}{
		{"encrypt", func() error { _, err := root.Encrypt(t.Context(), k, []transit.Item{{}}); return err }, false,
			[]string{"encrypt 200"}, nil},
		{"decrypt", func() error {
			_, err := root.Decrypt(t.Context(), k, []transit.Item{{Data: good[0].Data}})
			return err
		}, false, []string{"decrypt 200"}, nil},
		{"an answer with results that Vault calls bad",
			func() error { _, err := root.Decrypt(t.Context(), k, []transit.Item{{Data: bad}}); return err }, false,
			[]string{"decrypt 400"}, nil},
		{"rewrap", func() error {
			_, err := root.Rewrap(t.Context(), k, []transit.Item{{Data: good[0].Data}})
			return err
		}, false, []string{"rewrap 200"}, nil},
		{"more than one batch", func() error {
			_, err := root.Encrypt(t.Context(), k, make([]transit.Item, 10_001))
			return err
		}, false, []string{"encrypt 200", "encrypt 200"}, nil},
		{"key", func() error { _, err := root.Key(t.Context(), k); return err }, false, []string{"key_read 200"}, nil},
		{"key that is not there", func() error {
			_, err := root.Key(t.Context(), ciphertext.Key{Mount: "transit", Name: "nowhere"})
			return err
		}, true, []string{"key_read 404"}, nil},
		{"rotate", func() error { _, err := root.Rotate(t.Context(), k); return err }, false,
			[]string{"rotate 200", "key_read 200"}, nil},
		{"key config", func() error { return root.SetMinDecryptionVersion(t.Context(), k, transit.KeyInfo{}, 2) },
			false, []string{"key_config 200"}, nil},
		{"login", func() error { return logIn("app") }, false, []string{"login 200"}, []bool{false}},
		{"refused login", func() error { return logIn("intruder") }, true, []string{"login 400"}, []bool{true}},
		{"refused before Vault is asked", func() error {
			_, err := root.Key(t.Context(), ciphertext.Key{Mount: "..", Name: "x"})
			return err
		}, true, nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			h.tries, h.logins = nil, nil
			if err := test.do(); (err != nil) != test.fails {
				t.Error(err)
			}
			if diff := cmp.Diff(test.want, h.tries); diff != "" {
				t.Errorf("tries (-want +told):\n%s", diff)
			}
			if diff := cmp.Diff(test.logins, h.logins); diff != "" {
				t.Errorf("logins (-want +told):\n%s", diff)
			}
		})
	}
}

// TestObserveFaults: each try counts, whatever becomes of it.
func TestObserveFaults(t *testing.T) {
	logIn := func(t *testing.T, c *transit.Client) error {
		_, err := c.Login(t.Context(),
			transit.Login{Mount: "jwt", Role: "app", JWT: func() (string, error) { return "jwt", nil }})
		return err
	}
	t.Run("retried", func(t *testing.T) {
		var n atomic.Int32
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if n.Add(1) < 3 {
				w.WriteHeader(503)
				return
			}
			fmt.Fprint(w, `{"auth":{"client_token":"t","metadata":{"role":"app"}}}`)
		}))
		defer srv.Close()
		c, h := observed(t, srv.URL, 0)
		if err := logIn(t, c); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"login 503", "login 503", "login 200"}, h.tries); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]bool{false}, h.logins); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("half an answer", func(t *testing.T) {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"auth":`)
		}))
		defer srv.Close()
		c, h := observed(t, srv.URL, -1)
		if err := logIn(t, c); err == nil {
			t.Error("no error")
		}
		if diff := cmp.Diff([]string{"login 0"}, h.tries); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("no answer", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		c, h := observed(t, "http://"+l.Addr().String(), -1)
		if err := logIn(t, c); err == nil {
			t.Error("no error")
		}
		if diff := cmp.Diff([]string{"login 0"}, h.tries); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]bool{true}, h.logins); diff != "" {
			t.Error(diff)
		}
	})
}

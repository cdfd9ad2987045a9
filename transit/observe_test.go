package transit_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

// observations are the calls of the hooks of a client.
type observations struct {
	mu       sync.Mutex
	attempts []string // such as "decrypt 200"
	logins   []bool   // whether they failed
}

// observed returns a client with hooks.
func observed(t *testing.T, address string) (*transit.Client, *observations) {
	t.Helper()
	h := &observations{}
	c, err := transit.NewClient(transit.Config{
		Address: address, RetryFor: -1,
		Observe: func(op transit.Operation, status int, took time.Duration) {
			h.mu.Lock()
			defer h.mu.Unlock()
			if took <= 0 {
				t.Errorf("%s took %s", op, took)
			}
			h.attempts = append(h.attempts, fmt.Sprint(op, " ", status))
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

// TestObserve checks that each request to a real Vault is observed once. TestFaults checks
// the same for failures.
func TestObserve(t *testing.T) {
	v := testenv.NewVault(t)
	f := fixture.In(t, v)
	f.TrustIssuer()
	f.AllowLogin(testenv.Role{Mount: "jwt", Namespace: "demo", ServiceAccount: "app"})
	k := newKey(t, v, false)
	c, h := observed(t, v.Address)
	root := c.Session("", transit.StaticToken(v.RootToken))
	good, err := root.Encrypt(t.Context(), k, []transit.Item{{Data: []byte("x")}})
	if err != nil {
		t.Fatal(err)
	}
	bad := []byte("vault:v1:AAAA" + string(good[0].Data[len("vault:v1:AAAA"):]))
	logIn := func(serviceAccount string) error {
		_, err := c.Login(t.Context(), transit.Login{Mount: "jwt", Role: "app",
			JWT: func() (string, error) { return fixture.Issuer().Token("demo", serviceAccount, "vault", time.Hour), nil }})
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
		{"results with an error",
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
		{"missing key", func() error {
			_, err := root.Key(t.Context(), ciphertext.Key{Mount: "transit", Name: "nowhere"})
			return err
		}, true, []string{"key_read 404"}, nil},
		{"rotate", func() error { _, err := root.Rotate(t.Context(), k); return err }, false,
			[]string{"rotate 200", "key_read 200"}, nil},
		{"key config", func() error { return root.SetMinDecryptionVersion(t.Context(), k, transit.KeyInfo{}, 2) },
			false, []string{"key_config 200"}, nil},
		{"login", func() error { return logIn("app") }, false, []string{"login 200"}, []bool{false}},
		{"refused login", func() error { return logIn("intruder") }, true, []string{"login 400"}, []bool{true}},
		{"invalid key", func() error {
			_, err := root.Key(t.Context(), ciphertext.Key{Mount: "..", Name: "x"})
			return err
		}, true, nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			h.attempts, h.logins = nil, nil
			if err := test.do(); (err != nil) != test.fails {
				t.Error(err)
			}
			if diff := cmp.Diff(test.want, h.attempts); diff != "" {
				t.Errorf("attempts (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.logins, h.logins); diff != "" {
				t.Errorf("logins (-want +got):\n%s", diff)
			}
		})
	}
}

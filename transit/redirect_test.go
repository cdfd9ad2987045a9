package transit_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/test/relay"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

// redirecting returns a server that redirects every request to the URL that to returns.
func redirecting(t *testing.T, status int, to func(*http.Request) string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", to(r))
		w.WriteHeader(status)
		io.WriteString(w, `{"data": {"latest_version": 7}}`) // must be ignored
	}))
	t.Cleanup(s.Close)
	return s
}

// standby returns a server that redirects every request to the active node.
func standby(t *testing.T, active string, status int) *httptest.Server {
	t.Helper()
	return redirecting(t, status, func(r *http.Request) string { return active + r.URL.RequestURI() })
}

// asRoot returns a session with the root token and without retries.
func asRoot(t *testing.T, v *testenv.Vault, c transit.Config) *transit.Session {
	t.Helper()
	c.RetryFor = -1
	client, err := transit.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	return client.Session("", transit.StaticToken(v.RootToken))
}

// TestStandby checks that the active node gets the same request as the standby, with body,
// token and namespace, once.
func TestStandby(t *testing.T) {
	v := testenv.SharedVault(t)
	k := newKey(t, v, true)
	for _, status := range []int{301, 302, 307, 308} {
		s := asRoot(t, v, transit.Config{Address: standby(t, v.Address, status).URL})
		item := transit.Item{Data: []byte("value"), Context: []byte("strict:a/b/c")}
		results, err := s.Encrypt(t.Context(), k, []transit.Item{item})
		if err != nil {
			t.Fatalf("%d: %v", status, err)
		}
		item.Data = results[0].Data
		if results, err = s.Decrypt(t.Context(), k, []transit.Item{item}); err != nil || string(results[0].Data) != "value" {
			t.Errorf("%d: %v, %v", status, results, err)
		}
	}
	before, err := asRoot(t, v, transit.Config{Address: v.Address}).Key(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	s := asRoot(t, v, transit.Config{Address: standby(t, v.Address, 307).URL})
	after, err := s.Rotate(t.Context(), k)
	if err != nil || after.Latest != before.Latest+1 {
		t.Errorf("rotated from version %d to %d, %v", before.Latest, after.Latest, err)
	}
	if err := s.SetMinDecryptionVersion(t.Context(), k, after, after.Latest); err != nil {
		t.Error(err)
	}
	if info, err := s.Key(t.Context(), k); err != nil || info.MinDecryptionVersion != after.Latest {
		t.Errorf("min_decryption_version %d, %v", info.MinDecryptionVersion, err)
	}

	var got []*http.Request
	active := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r)
		io.WriteString(w,
			`{"auth": {"client_token": "t", "metadata": {"role": "app"}}, "data": {"batch_results": [{"plaintext": ""}]}}`)
	}))
	t.Cleanup(active.Close)
	client, err := transit.NewClient(transit.Config{Address: standby(t, active.URL, 307).URL, RetryFor: -1})
	if err != nil {
		t.Fatal(err)
	}
	login := client.NewLoginSource(transit.Login{Namespace: "team/sub", Mount: "jwt", Role: "app",
		JWT: func() (string, error) { return "jwt", nil }})
	if _, err := client.Session("team/sub", login).
		Decrypt(t.Context(), k, []transit.Item{{Data: []byte("vault:v1:x")}}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 {
		t.Fatalf("%d requests", len(got))
	}
	for i, token := range []string{"", "t"} {
		h := got[i].Header
		if h.Get("X-Vault-Namespace") != "team/sub" || h.Get("X-Vault-Token") != token ||
			got[i].Host != strings.TrimPrefix(active.URL, "http://") {
			t.Errorf("request %d: %s of %s", i, h, got[i].Host)
		}
	}
	active.Close()
	_, err = client.Login(t.Context(),
		transit.Login{Mount: "jwt", Role: "app", JWT: func() (string, error) { return "jwt", nil }})
	if !errors.Is(err, transit.ErrUnreachable) ||
		!strings.Contains(err.Error(), "redirected to "+active.URL+": cannot reach Vault") {
		t.Errorf("without the active node: %v", err)
	}
}

// TestRefusedRedirects checks that these redirects are not followed and are errors, also
// for requests that ignore the response.
func TestRefusedRedirects(t *testing.T) {
	v := testenv.SharedVault(t)
	k := newKey(t, v, true)
	var reached atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		io.WriteString(w, `{"data": {"latest_version": 7}}`)
	}))
	t.Cleanup(elsewhere.Close)
	fixed := func(location string) func(*http.Request) string {
		return func(*http.Request) string { return location }
	}
	at := func(origin string) func(*http.Request) string {
		return func(r *http.Request) string { return origin + r.URL.Path }
	}
	same := at(elsewhere.URL)
	from := func(status int, to func(*http.Request) string) transit.Config {
		return transit.Config{Address: redirecting(t, status, to).URL}
	}
	ca := testenv.NewCA(t, "vault")
	secured := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", same(r))
		w.WriteHeader(307)
	}))
	secured.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Serving(t, "127.0.0.1").TLS(t)}}
	secured.StartTLS()
	t.Cleanup(secured.Close)
	for name, test := range map[string]struct {
		config   transit.Config
		notVault bool
		text     string
	}{
		"to http": {transit.Config{Address: secured.URL, CACert: write(t, filepath.Join(t.TempDir(), "ca.crt"), ca.PEM())},
			false, "redirected to " + elsewhere.URL + ", which is not followed: the redirect leads from https"},
		"to plain HTTP": {from(307, at("http://192.0.2.1")), false,
			"redirected to http://192.0.2.1, which is not followed: plain HTTP"},
		"disabled": {transit.Config{Address: redirecting(t, 307, same).URL, NoRedirects: true}, false,
			"redirects are not followed (VAULT_DISABLE_REDIRECTS)"},
		"to a login page": {from(302, fixed(elsewhere.URL+"/oauth2/start?rd=/v1/")), true,
			"redirected to " + elsewhere.URL},
		"to another request":  {from(307, fixed(elsewhere.URL+"/v1/sys/health")), true, "redirected to " + elsewhere.URL},
		"with a password":     {from(307, at("http://user:c4nary@h")), true, "redirected to http://h,"},
		"to another protocol": {from(307, at("ftp://h")), true, "redirected to ftp://h,"},
		"without a location":  {from(307, fixed("")), true, ""},
		"with another status": {from(303, same), true, ""},
		"not modified":        {from(304, same), true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := asRoot(t, v, test.config)
			_, read := s.Key(t.Context(), k)
			_, rotated := s.Rotate(t.Context(), k)
			config := s.SetMinDecryptionVersion(t.Context(), k, transit.KeyInfo{}, 1)
			_, batch := s.Decrypt(t.Context(), k, []transit.Item{{Data: []byte("vault:v1:x")}})
			for operation, err := range map[string]error{"read": read, "rotate": rotated, "config": config, "decrypt": batch} {
				var e *transit.Error
				if !errors.As(err, &e) || e.Status < 300 || e.Status > 399 || e.Transient ||
					errors.Is(err, transit.ErrNotVault) != test.notVault ||
					!strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "c4nary") {
					t.Errorf("%s: %v", operation, err)
				}
			}
		})
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

// TestRedirectOverPlainHTTP checks that a redirect to plain HTTP outside the loopback
// interface is followed only with InsecureHTTP. The address 0.0.0.0 counts as outside,
// but reaches the Vault of the test.
func TestRedirectOverPlainHTTP(t *testing.T) {
	v := testenv.SharedVault(t)
	k := newKey(t, v, true)
	plain := strings.Replace(v.Address, "127.0.0.1", "0.0.0.0", 1)
	first := standby(t, plain, 307).URL
	if _, err := asRoot(t, v, transit.Config{Address: first}).Key(t.Context(), k); !errors.Is(err, transit.ErrPlainHTTP) {
		t.Errorf("not accepted: %v", err)
	}
	if _, err := asRoot(t, v, transit.Config{Address: first, InsecureHTTP: true}).Key(t.Context(), k); err != nil {
		t.Errorf("accepted: %v", err)
	}
	if _, err := asRoot(t, v, transit.Config{Address: plain, InsecureHTTP: true}).Key(t.Context(), k); err != nil {
		t.Errorf("without a redirect: %v", err)
	}
}

// TestTwoRedirectsAreFollowed checks that a third redirect is not followed, as
// docs/compatibility.md and the threat model promise.
func TestTwoRedirectsAreFollowed(t *testing.T) {
	v := testenv.SharedVault(t)
	k := newKey(t, v, true)
	address := v.Address
	for redirects := 1; redirects <= 3; redirects++ {
		address = standby(t, address, 307).URL
		_, err := asRoot(t, v, transit.Config{Address: address}).Key(t.Context(), k)
		if followed := err == nil; followed != (redirects <= 2) {
			t.Errorf("%d redirects: %v", redirects, err)
		}
	}
}

// TestRedirectLoop checks that a loop is a transient failure: the standbys may have no
// leader yet.
func TestRedirectLoop(t *testing.T) {
	v := testenv.SharedVault(t)
	k := newKey(t, v, true)
	var other atomic.Value
	var hops atomic.Int32
	one := redirecting(t, 307, func(r *http.Request) string { hops.Add(1); return other.Load().(string) + r.URL.Path })
	two := redirecting(t, 307, func(r *http.Request) string { hops.Add(1); return one.URL + r.URL.Path })
	other.Store(two.URL)
	s := asRoot(t, v, transit.Config{Address: one.URL})
	_, err := s.Rotate(t.Context(), k)
	var e *transit.Error
	if !errors.As(err, &e) || !e.Transient || e.Status != 307 ||
		!strings.Contains(err.Error(), "redirected 3 times, at last to "+two.URL) || hops.Load() != 3 {
		t.Errorf("after %d hops: %v", hops.Load(), err)
	}
	client, err := transit.NewClient(transit.Config{Address: one.URL, RetryFor: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	elected := redirecting(t, 307, func(r *http.Request) string { other.Store(v.Address); return one.URL + r.URL.Path })
	other.Store(elected.URL)
	if _, err := client.Session("", transit.StaticToken(v.RootToken)).Key(t.Context(), k); err != nil {
		t.Errorf("after an election: %v", err)
	}
}

// TestRedirectsAreVerified checks that the active node needs a certificate of the same CA,
// for the host of the redirect.
func TestRedirectsAreVerified(t *testing.T) {
	v := testenv.SharedVault(t)
	k := newKey(t, v, true)
	ca, other := testenv.NewCA(t, "vault"), testenv.NewCA(t, "other")
	file := write(t, filepath.Join(t.TempDir(), "ca.crt"), ca.PEM())
	for name, test := range map[string]struct {
		certificate tls.Certificate
		text        string
	}{
		"right":      {ca.Serving(t, "127.0.0.1").TLS(t), ""},
		"foreign":    {other.Serving(t, "127.0.0.1").TLS(t), "unknown authority"},
		"other name": {ca.Serving(t, "vault.example").TLS(t), "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			active := front(t, v, &tls.Config{Certificates: []tls.Certificate{test.certificate}})
			first := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, active.URL+r.URL.Path, http.StatusTemporaryRedirect)
			}))
			first.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Serving(t, "127.0.0.1").TLS(t)}}
			first.StartTLS()
			t.Cleanup(first.Close)
			_, err := asRoot(t, v, transit.Config{Address: first.URL, CACert: file}).Key(t.Context(), k)
			if test.text == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantTLS(t, err, "redirected to "+active.URL, test.text)
		})
	}
}

// TestPathPrefix uses a Vault at a path of a proxy, also with a standby whose redirects
// have that path.
func TestPathPrefix(t *testing.T) {
	v := testenv.SharedVault(t)
	k := newKey(t, v, true)
	vault, err := relay.New(v.Address, nil)
	if err != nil {
		t.Fatal(err)
	}
	behind := httptest.NewServer(http.StripPrefix("/tools/vault", vault))
	t.Cleanup(behind.Close)
	for _, address := range []string{behind.URL + "/tools/vault", behind.URL + "/tools/vault/",
		standby(t, behind.URL, 307).URL + "/tools/vault"} {
		s := asRoot(t, v, transit.Config{Address: address})
		results, err := s.Encrypt(t.Context(), k, []transit.Item{{Data: []byte("value"), Context: []byte("c")}})
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		results, err = s.Decrypt(t.Context(), k, []transit.Item{{Data: results[0].Data, Context: []byte("c")}})
		if err != nil || string(results[0].Data) != "value" {
			t.Errorf("%s: %v, %v", address, results, err)
		}
	}
	_, err = asRoot(t, v, transit.Config{Address: behind.URL}).Key(t.Context(), k)
	if !errors.Is(err, transit.ErrNotFound) {
		t.Errorf("without the path: %v", err)
	}
	// A standby does not know the path, so it redirects without it.
	_, err = asRoot(t, v, transit.Config{Address: redirecting(t, 307, func(r *http.Request) string {
		return behind.URL + strings.TrimPrefix(r.URL.Path, "/tools/vault")
	}).URL + "/tools/vault"}).Key(t.Context(), k)
	if !errors.Is(err, transit.ErrNotFound) || !strings.Contains(err.Error(), "redirected to "+behind.URL) {
		t.Errorf("redirected without the path: %v", err)
	}
}

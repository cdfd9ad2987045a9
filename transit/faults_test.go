package transit

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/clock"
)

// What a real Vault does not do on demand comes from a fake here. Everything
// else is in transit_test.go, against a real one.

const (
	canaryToken = "hvs.canary-token"
	canaryText  = "vault:v1:Y2FuYXJ5LWNpcGhlcnRleHQtY2FuYXJ5LWNpcGhlcnRleHQtY2FuYXJ5"
	canaryPlain = "Y2FuYXJ5LXBsYWludGV4dA=="
)

func fake(t *testing.T, retryFor time.Duration, h http.HandlerFunc) *Session {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return sessionTo(t, srv.URL, retryFor)
}

func sessionTo(t *testing.T, address string, retryFor time.Duration) *Session {
	t.Helper()
	c, err := NewClient(Config{Address: address, RetryFor: retryFor})
	if err != nil {
		t.Fatal(err)
	}
	return c.Session("", StaticToken(canaryToken))
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// firstError returns the error of a call, or of the first item that failed.
func firstError(results []Result, err error) error {
	for _, r := range results {
		err = cmp.Or(err, r.Err)
	}
	return err
}

func TestOddAnswersAreErrors(t *testing.T) {
	items := []Item{{Data: []byte(canaryText)}, {Data: []byte(canaryText)}}
	for name, c := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"HTML":                      {200, "<html>canary</html>", ErrNotVault},
		"HTML with an error status": {404, "<html>canary</html>", ErrNotFound},
		"HTML with a bad request":   {400, "<html>canary</html>", ErrNotVault},
		"empty":                     {200, "", ErrNotVault},
		"no content":                {204, "", ErrNotVault},
		"null":                      {200, "null", ErrNotVault},
		"null data":                 {200, `{"data":null}`, ErrNotVault},
		"no results":                {200, `{"data":{}}`, ErrNotVault},
		"fewer results":             {200, `{"data":{"batch_results":[{"plaintext":"` + canaryPlain + `"}]}}`, ErrNotVault},
		"fewer results with a 400":  {400, `{"data":{"batch_results":[{"error":"x"}]}}`, ErrNotVault},
		"more results": {200,
			`{"data":{"batch_results":[{"plaintext":""},{"plaintext":""},{"plaintext":""}]}}`, ErrNotVault},
		"results of another type": {200, `{"data":{"batch_results":"` + canaryPlain + `"}}`, ErrNotVault},
		"a number for plaintext": {200, `{"data":{"batch_results":[{"plaintext":314159265},{"plaintext":314159265}]}}`,
			ErrNotVault},
		"half an answer": {200, `{"data":{"batch_results":[{"plaintext":"` + canaryPlain, ErrNotVault},
		"too long": {200, strings.Repeat(" ", 2*maxResponse) +
			`{"data":{"batch_results":[{"plaintext":""},{"plaintext":""}]}}`, ErrNotVault},
		"an error too long": {400, strings.Repeat(" ", 2*maxResponse) +
			`{"data":{"batch_results":[{"error":""},{"error":""}]}}`, ErrNotVault},
		"a policy's refusal": {403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, ErrDenied},
		"an ended token":     {403, `{"errors":["permission denied","invalid token"]}`, ErrInvalidToken},
		"no key":             {400, `{"errors":["encryption key not found"]}`, ErrNotFound},
		"no engine": {404, `{"errors":["no handler for route \"x/decrypt/k\". route entry not found."]}`,
			ErrNotFound},
		"errors of another type": {400, `{"errors":"canary"}`, ErrNotVault},
	} {
		t.Run(name, func(t *testing.T) {
			s := fake(t, -1, answer(c.status, c.body))
			results, err := s.Decrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"}, items)
			err = firstError(results, err)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v; want %v", err, c.want)
			}
			var e *Error
			if !errors.As(err, &e) || e.Transient {
				t.Errorf("%#v is no final *Error", err)
			}
			checkQuiet(t, err)
		})
	}
}

// TestLengthOfAnswers: an answer may be as long as what it answers makes it, and a
// longer one is not read to its end.
func TestLengthOfAnswers(t *testing.T) {
	const results = `{"data":{"batch_results":[{"plaintext":""}]}}`
	for _, c := range []struct {
		items, request, padding int
		long                    bool
	}{
		{1, 100, maxResponse, false},
		{1, 100, maxResponse + 2<<10, true},
		{1, maxResponse, 2 * maxResponse, false},
		{1, maxResponse, 4 * maxResponse, true},
		{100, 0, maxResponse + 90*maxPerItem, false},
		{100, 0, maxResponse + 110*maxPerItem, true},
	} {
		all := strings.Replace(results, `[`, `[`+strings.Repeat(`{"plaintext":""},`, c.items-1), 1)
		items := make([]Item, c.items)
		items[0].Data = bytes.Repeat([]byte("c"), c.request)
		s := fake(t, -1, answer(200, strings.Repeat(" ", c.padding)+all))
		_, err := s.Decrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"}, items)
		switch {
		case !c.long && err != nil:
			t.Errorf("%+v: %v", c, err)
		case c.long && (!errors.Is(err, ErrNotVault) || !strings.Contains(err.Error(), " KiB")):
			t.Errorf("%+v: %v; want that it is too long", c, err)
		}
	}
}

func checkQuiet(t *testing.T, err error) {
	t.Helper()
	for _, secret := range []string{"canary", canaryPlain, canaryText[10:40], "314159265"} {
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the error repeats %q: %v", secret, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is of several lines: %q", err)
	}
}

func TestItemsOfABatchFailOnTheirOwn(t *testing.T) {
	body := `{"data":{"batch_results":[{"error":"cipher: message authentication failed"},{"plaintext":"` +
		canaryPlain + `"},
		{},{"plaintext":"%%"},{"error":"something new\nover two lines"}]}}`
	for _, status := range []int{200, 400} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := fake(t, -1, answer(status, body))
			results, err := s.Decrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"}, make([]Item, 5))
			if err != nil || len(results) != 5 {
				t.Fatalf("%d results, %v", len(results), err)
			}
			if string(results[1].Data) != "canary-plaintext" || results[1].Err != nil {
				t.Errorf("the good item: %v", results[1].Err)
			}
			for i, want := range map[int]error{0: ErrMismatch, 2: ErrNotVault, 3: ErrNotVault} {
				if !errors.Is(results[i].Err, want) {
					t.Errorf("item %d: %v; want %v", i, results[i].Err, want)
				}
			}
			if got := results[4].Err.Error(); got != "something new over two lines" {
				t.Errorf("item 4: %q", got)
			}
		})
	}
}

func TestRewrapRefusesWhatIsNotCiphertext(t *testing.T) {
	s := fake(t, -1, answer(200, `{"data":{"batch_results":[{"ciphertext":"canary"}]}}`))
	results, err := s.Rewrap(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"}, []Item{{Data: []byte(canaryText)}})
	if err != nil || !errors.Is(results[0].Err, ErrNotVault) || !errors.Is(results[0].Err, ciphertext.ErrNotEncrypted) {
		t.Errorf("got %v, %v", results, err)
	}
	checkQuiet(t, results[0].Err)
}

func TestBatchesStayBelowTheLimits(t *testing.T) {
	big := []byte("vault:v1:" + strings.Repeat("A", 400<<10))
	for name, c := range map[string]struct {
		items []Item
		want  []int32
	}{
		"none":           {nil, nil},
		"one":            {make([]Item, 1), []int32{1}},
		"just full":      {make([]Item, 100), []int32{100}},
		"one more":       {make([]Item, 101), []int32{100, 1}},
		"large ones":     {[]Item{{Data: big}, {Data: big}, {Data: big}, {Data: big}, {Data: big}}, []int32{2, 2, 1}},
		"larger than it": {[]Item{{Data: []byte(strings.Repeat("A", maxBatchBytes+1))}, {}}, []int32{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int32
			s := fake(t, -1, func(w http.ResponseWriter, r *http.Request) {
				var in struct {
					Batch []json.RawMessage `json:"batch_input"`
				}
				if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
					t.Error(err)
				}
				got = append(got, int32(len(in.Batch)))
				fmt.Fprintf(w, `{"data":{"batch_results":[%s]}}`,
					strings.TrimSuffix(strings.Repeat(`{"plaintext":""},`, len(in.Batch)), ","))
			})
			results, err := s.Decrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"}, c.items)
			if err != nil || len(results) != len(c.items) || fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%d results in batches %v, %v; want %v", len(results), got, err, c.want)
			}
		})
	}
}

// What is encrypted goes in one request, unless the server does not take so many.
// A server that refuses every item gets a bounded number of requests.
func TestBisectIsBounded(t *testing.T) {
	requests := 0
	s := fake(t, -1, func(w http.ResponseWriter, r *http.Request) {
		requests++
		answer(400, `{"errors":["no"]}`)(w, r)
	})
	results, err := s.Encrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"}, make([]Item, 5000))
	if err != nil || len(results) != 5000 || requests > maxFailures+20 {
		t.Fatalf("%d results after %d requests, %v", len(results), requests, err)
	}
	for i, r := range results {
		if r.Err == nil {
			t.Errorf("item %d succeeded", i)
		}
	}
}

func TestEncryptIsOneRequest(t *testing.T) {
	for name, c := range map[string]struct {
		takes int
		words string
		want  []int
		fails bool
	}{
		"Vault":             {takes: 1000, want: []int{250}},
		"OpenBao":           {takes: 249, words: "JSON exceeds maximum number of strings", want: []int{250, 125, 125}},
		"for other reasons": {takes: 249, words: "no", want: []int{250}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int
			s := fake(t, -1, func(w http.ResponseWriter, r *http.Request) {
				var in struct {
					Batch []json.RawMessage `json:"batch_input"`
				}
				if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
					t.Error(err)
				}
				if got = append(got, len(in.Batch)); len(in.Batch) > c.takes {
					answer(500, `{"errors":["`+c.words+`"]}`)(w, r)
					return
				}
				fmt.Fprintf(w, `{"data":{"batch_results":[%s]}}`,
					strings.TrimSuffix(strings.Repeat(`{"ciphertext":"`+canaryText+`"},`, len(in.Batch)), ","))
			})
			results, err := s.Encrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"}, make([]Item, 250))
			if (err != nil) != c.fails || fmt.Sprint(got) != fmt.Sprint(c.want) || err == nil && len(results) != 250 {
				t.Errorf("%d results in batches %v, %v; want %v", len(results), got, err, c.want)
			}
		})
	}
}

func TestMixedContextsAreRefusedBeforeVault(t *testing.T) {
	s := fake(t, -1, func(http.ResponseWriter, *http.Request) { t.Error("Vault was asked") })
	if _, err := s.Decrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"},
		[]Item{{Context: []byte("a")}, {}}); err == nil {
		t.Error("no error")
	}
	for _, k := range []ciphertext.Key{{Mount: "transit", Name: ""}, {Mount: "", Name: "k"},
		{Mount: "transit", Name: "../../sys/raw"}, {Mount: "a/../b", Name: "k"}, {Mount: "transit", Name: "a/b"},
		{Mount: "transit", Name: "k?x=1"}} {
		if _, err := s.Key(t.Context(), k); err == nil {
			t.Errorf("%v: no error", k)
		}
		if _, err := s.Decrypt(t.Context(), k, []Item{{}}); err == nil {
			t.Errorf("%v: no error", k)
		}
	}
}

func TestTransientFailuresAreRetried(t *testing.T) {
	for name, fails := range map[string]http.HandlerFunc{
		"412":    answer(412, `{"errors":["required index state not present"]}`),
		"429":    answer(429, `{"errors":["request path quota exceeded"]}`),
		"500":    answer(500, `{"errors":["internal error"]}`),
		"502":    answer(502, "<html>bad gateway</html>"),
		"sealed": answer(503, `{"errors":["Vault is sealed"]}`),
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
		},
		"cut in the middle": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, `{"data":`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			s := fake(t, 0, func(w http.ResponseWriter, r *http.Request) {
				if calls.Add(1) < 3 {
					fails(w, r)
					return
				}
				fmt.Fprint(w, `{"data":{"batch_results":[{"plaintext":""}]}}`)
			})
			if _, err := s.Decrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"}, []Item{{}}); err != nil ||
				calls.Load() != 3 {
				t.Errorf("%v after %d calls", err, calls.Load())
			}
		})
	}
}

func TestFinalFailuresAreNotRetried(t *testing.T) {
	for name, c := range map[string]http.HandlerFunc{
		"400":           answer(400, `{"errors":["no"]}`),
		"403":           answer(403, `{"errors":["permission denied"]}`),
		"404":           answer(404, `{"errors":[]}`),
		"a JSON limit":  answer(500, `{"errors":["JSON body exceeds the limit of 1000 strings"]}`),
		"HTML with 200": answer(200, "<html>"),
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			s := fake(t, 0, func(w http.ResponseWriter, r *http.Request) { calls.Add(1); c(w, r) })
			if err := firstError(s.Decrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"}, []Item{{}})); err == nil ||
				calls.Load() != 1 {
				t.Errorf("%v after %d calls", err, calls.Load())
			}
		})
	}
}

func TestTheDeadlineEndsRetriesWithVaultsOwnWords(t *testing.T) {
	s := fake(t, 0, answer(503, `{"errors":["Vault is sealed"]}`))
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	_, err := s.Decrypt(ctx, ciphertext.Key{Mount: "transit", Name: "k"}, []Item{{}})
	if !errors.Is(err, ErrSealed) || !strings.Contains(err.Error(), "tried ") {
		t.Errorf("got %v", err)
	}
}

func TestRetryAfterBeyondTheDeadlineFailsAtOnce(t *testing.T) {
	var calls atomic.Int32
	s := fake(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.Header().Set("Retry-After", "3600")
		answer(429, `{"errors":["quota"]}`)(w, nil)
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := s.Decrypt(ctx, ciphertext.Key{Mount: "transit", Name: "k"}, []Item{{}}); !errors.Is(err, ErrBusy) ||
		calls.Load() != 1 || ctx.Err() != nil {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
}

func TestRotateIsNeverSentTwice(t *testing.T) {
	var calls atomic.Int32
	s := fake(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		answer(502, "")(w, nil)
	})
	if _, err := s.Rotate(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"}); err == nil || calls.Load() != 1 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
}

func TestASlowVaultIsATimeout(t *testing.T) {
	stop := make(chan struct{})
	s := fake(t, 0, func(http.ResponseWriter, *http.Request) { <-stop })
	t.Cleanup(func() { close(stop) }) // runs before the server's Close, which waits
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Decrypt(ctx, ciphertext.Key{Mount: "transit", Name: "k"}, []Item{{}}); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
}

func TestNobodyListening(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s := sessionTo(t, "http://"+address, -1)
	_, err = s.Decrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"}, []Item{{}})
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}

func TestAnEndedTokenIsReplacedOnce(t *testing.T) {
	var logins, calls atomic.Int32
	handler := func(valid string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/login") {
				fmt.Fprintf(w, `{"auth":{"client_token":"t%d","lease_duration":3600,"metadata":{"role":"app"}}}`, logins.Add(1))
				return
			}
			calls.Add(1)
			if r.Header.Get("X-Vault-Token") != valid {
				answer(403, `{"errors":["permission denied","invalid token"]}`)(w, r)
				return
			}
			fmt.Fprint(w, `{"data":{"batch_results":[{"plaintext":""}]}}`)
		}
	}
	login := Login{Mount: "kubernetes", Role: "app", JWT: func() (string, error) { return "jwt", nil }}
	for name, c := range map[string]struct {
		valid         string
		logins, calls int32
		ok            bool
	}{"second is good": {"t2", 2, 2, true}, "none is good": {"never", 2, 2, false}} {
		t.Run(name, func(t *testing.T) {
			logins.Store(0)
			calls.Store(0)
			s := fake(t, -1, handler(c.valid))
			s.tokens = s.client.NewLoginSource(login)
			_, err := s.Decrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"}, []Item{{}})
			if (err == nil) != c.ok || logins.Load() != c.logins || calls.Load() != c.calls {
				t.Errorf("%v after %d logins and %d calls", err, logins.Load(), calls.Load())
			}
		})
	}
}

func TestALoginIsSharedAndRenewed(t *testing.T) {
	var logins atomic.Int32
	ttl := "3600"
	s := fake(t, -1, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"auth":{"client_token":"t%d","lease_duration":%s,"metadata":{"role":"app"}}}`, logins.Add(1), ttl)
	})
	source := s.client.NewLoginSource(Login{Mount: "kubernetes", Role: "app",
		JWT: func() (string, error) { return "jwt", nil }})
	done := make(chan error)
	for range 20 {
		go func() {
			_, err := source.Token(t.Context())
			done <- err
		}()
	}
	for range 20 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if logins.Load() != 1 {
		t.Errorf("%d logins for 20 at a time", logins.Load())
	}
	source.now = func() clock.Reading { return clock.Now().Add(time.Hour) }
	if token, err := source.Token(t.Context()); token != "t2" || err != nil {
		t.Errorf("after its end: %q, %v", token, err)
	}
}

func TestOddLogins(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"no auth":    {200, `{"data":{}}`, ErrNotVault},
		"null auth":  {200, `{"auth":null}`, ErrNotVault},
		"no token":   {200, `{"auth":{"lease_duration":60}}`, ErrNotVault},
		"HTML":       {200, "<html>", ErrNotVault},
		"no content": {204, "", ErrNotVault},
		"refused":    {403, `{"errors":["permission denied"]}`, ErrDenied},
		"jwt's no":   {400, `{"errors":["invalid audience (aud) claim"]}`, ErrDenied},
		"no mount":   {404, `{"errors":["no handler for route"]}`, ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			s := fake(t, -1, answer(c.status, c.body))
			_, err := s.client.Login(t.Context(),
				Login{Mount: "kubernetes", Role: "app", JWT: func() (string, error) { return "canary", nil }})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), `"app"`) {
				t.Errorf("got %v; want %v", err, c.want)
			}
			checkQuiet(t, err)
		})
	}
}

func TestTheEnvironmentOfTheProcessDoesNotAct(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "hvs.foreign\x01") // a token that no request could carry
	t.Setenv("VAULT_NAMESPACE", "foreign")
	t.Setenv("VAULT_WRAP_TTL", "60s")
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:1")
	var got http.Header
	s := fake(t, -1, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		fmt.Fprint(w, `{"auth":{"client_token":"t","metadata":{"role":"app"}}}`)
	})
	if _, err := s.client.Login(t.Context(),
		Login{Mount: "kubernetes", Role: "app", JWT: func() (string, error) { return "jwt", nil }}); err != nil {
		t.Fatal(err)
	}
	for _, header := range []string{"X-Vault-Token", "X-Vault-Namespace", "X-Vault-Wrap-Ttl"} {
		if v := got.Get(header); v != "" {
			t.Errorf("%s: %q was sent", header, v)
		}
	}
	s.client.Login(t.Context(),
		Login{Namespace: "team", Mount: "kubernetes", Role: "app", JWT: func() (string, error) { return "jwt", nil }})
	if got.Get("X-Vault-Namespace") != "team" {
		t.Errorf("namespace %q was sent", got.Get("X-Vault-Namespace"))
	}
}

func TestNewClientRefuses(t *testing.T) {
	for name, c := range map[string]Config{
		"nothing":          {},
		"no scheme":        {Address: "vault:8200"},
		"unix":             {Address: "unix:///run/vault"},
		"half certificate": {Address: "https://vault:8200", ClientCert: "x"},
		"missing CA":       {Address: "https://vault:8200", CACert: "/does/not/exist"},
	} {
		if _, err := NewClient(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzDecodeBatch(f *testing.F) {
	for _, seed := range []string{
		`{"data":{"batch_results":[{"plaintext":"YQ=="}]}}`, `{"data":{"batch_results":[null]}}`, `{"data":[]}`, `null`,
		`[]`, `{"data":{"batch_results":{}}}`,
	} {
		f.Add(200, []byte(seed))
		f.Add(400, []byte(seed))
	}
	var status int
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		w.Write(body)
	}))
	f.Cleanup(srv.Close)
	c, err := NewClient(Config{Address: srv.URL, RetryFor: -1})
	if err != nil {
		f.Fatal(err)
	}
	s := c.Session("", StaticToken("t"))
	f.Fuzz(func(t *testing.T, code int, b []byte) {
		if code != 200 && code != 400 {
			code = 200
		}
		status, body = code, b
		results, err := s.Decrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: "k"}, []Item{{}, {}})
		if err == nil && len(results) != 2 {
			t.Errorf("%d results for two items, and no error", len(results))
		}
	})
}

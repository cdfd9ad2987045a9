package transit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// TestResponseLength checks that the limit of a response grows with the request and the
// number of items.
func TestResponseLength(t *testing.T) {
	for _, c := range []struct {
		items, request, padding int
		tooLong                 bool
	}{
		{1, 100, maxResponse, false},
		{1, 100, maxResponse + 2<<10, true},
		{1, maxResponse, 2 * maxResponse, false},
		{1, maxResponse, 4 * maxResponse, true},
		{100, 0, maxResponse + 90*maxPerItem, false},
		{100, 0, maxResponse + 110*maxPerItem, true},
	} {
		items := make([]Item, c.items)
		items[0].Data = bytes.Repeat([]byte("c"), c.request)
		s := fakeVault(t, -1, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // a server that responds earlier resets the connection
			fmt.Fprint(w, strings.Repeat(" ", c.padding))
			writeResults(w, c.items, `{"plaintext":""}`)
		})
		_, err := s.Decrypt(t.Context(), fakeKey, items)
		switch {
		case !c.tooLong && err != nil:
			t.Errorf("%+v: %v", c, err)
		case c.tooLong && (!errors.Is(err, ErrNotVault) || !strings.Contains(err.Error(), " KiB")):
			t.Errorf("%+v: %v; want that it is too long", c, err)
		}
	}
}

func TestItemErrors(t *testing.T) {
	body := result(`{"error":"cipher: message authentication failed"},{"plaintext":"` + canaryPlain + `"},{},
		{"plaintext":"%%"},{"error":"something new\nover two lines"}`)
	for _, status := range []int{200, 400} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			results, err := fakeVault(t, -1, respond(status, body)).Decrypt(t.Context(), fakeKey, make([]Item, 5))
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

func TestRewrapChecksResult(t *testing.T) {
	s := fakeVault(t, -1, respond(200, result(`{"ciphertext":"canary"}`)))
	results, err := s.Rewrap(t.Context(), fakeKey, []Item{{Data: []byte(canaryText)}})
	if err != nil || !errors.Is(results[0].Err, ErrNotVault) || !errors.Is(results[0].Err, ciphertext.ErrNotEncrypted) {
		t.Errorf("got %v, %v", results, err)
	}
	checkLeak(t, results[0].Err)
}

func TestBatchLimits(t *testing.T) {
	large := Item{Data: []byte("vault:v1:" + strings.Repeat("A", 400<<10))}
	for name, c := range map[string]struct {
		items []Item
		want  []int
	}{
		"no items":         {nil, nil},
		"one item":         {make([]Item, 1), []int{1}},
		"full":             {make([]Item, 100), []int{100}},
		"one more":         {make([]Item, 101), []int{100, 1}},
		"large items":      {[]Item{large, large, large, large, large}, []int{2, 2, 1}},
		"above the limits": {[]Item{{Data: []byte(strings.Repeat("A", maxBatchBytes+1))}, {}}, []int{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int
			s := fakeVault(t, -1, func(w http.ResponseWriter, r *http.Request) {
				n := batchSize(t, r)
				got = append(got, n)
				writeResults(w, n, `{"plaintext":""}`)
			})
			results, err := s.Decrypt(t.Context(), fakeKey, c.items)
			if diff := cmp.Diff(c.want, got); err != nil || len(results) != len(c.items) || diff != "" {
				t.Errorf("%d results, %v, items of each request (-want +got):\n%s", len(results), err, diff)
			}
		})
	}
}

// TestEncryptRequests checks that entries are encrypted in one request if the server
// accepts it, and otherwise in as few as it accepts.
func TestEncryptRequests(t *testing.T) {
	for name, c := range map[string]struct {
		limit   int
		message string
		want    []int
		fails   bool
	}{
		"Vault":         {limit: 1000, want: []int{250}},
		"OpenBao":       {limit: 249, message: "JSON exceeds maximum number of strings", want: []int{250, 125, 125}},
		"another error": {limit: 249, message: "no", want: []int{250}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int
			s := fakeVault(t, -1, func(w http.ResponseWriter, r *http.Request) {
				n := batchSize(t, r)
				if got = append(got, n); n > c.limit {
					respond(500, `{"errors":["`+c.message+`"]}`)(w, r)
					return
				}
				writeResults(w, n, `{"ciphertext":"`+canaryText+`"}`)
			})
			results, err := s.Encrypt(t.Context(), fakeKey, make([]Item, 250))
			diff := cmp.Diff(c.want, got)
			if (err != nil) != c.fails || diff != "" || err == nil && len(results) != 250 {
				t.Errorf("%d results, %v, items of each request (-want +got):\n%s", len(results), err, diff)
			}
		})
	}
}

// TestBisectIsBounded checks the number of requests to a server that rejects every item.
func TestBisectIsBounded(t *testing.T) {
	requests := 0
	s := fakeVault(t, -1, func(w http.ResponseWriter, r *http.Request) {
		requests++
		respond(400, `{"errors":["no"]}`)(w, r)
	})
	results, err := s.Encrypt(t.Context(), fakeKey, make([]Item, 5000))
	if err != nil || len(results) != 5000 || requests > maxFailures+20 {
		t.Fatalf("%d results after %d requests, %v", len(results), requests, err)
	}
	for i, r := range results {
		if r.Err == nil {
			t.Errorf("item %d succeeded", i)
		}
	}
}

func TestInvalidArguments(t *testing.T) {
	s := fakeVault(t, -1, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	if _, err := s.Decrypt(t.Context(), fakeKey, []Item{{Context: []byte("a")}, {}}); err == nil {
		t.Error("an item with and one without a context: no error")
	}
	for _, k := range []ciphertext.Key{
		{Mount: "transit", Name: ""}, {Mount: "", Name: "k"}, {Mount: "transit", Name: "../../sys/raw"},
		{Mount: "a/../b", Name: "k"}, {Mount: "transit", Name: "a/b"}, {Mount: "transit", Name: "k?x=1"},
	} {
		if _, err := s.Key(t.Context(), k); err == nil {
			t.Errorf("Key(%v): no error", k)
		}
		if _, err := s.Decrypt(t.Context(), k, []Item{{}}); err == nil {
			t.Errorf("Decrypt(%v): no error", k)
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
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		w.Write(body)
	}))
	f.Cleanup(server.Close)
	c, err := NewClient(Config{Address: server.URL, RetryFor: -1})
	if err != nil {
		f.Fatal(err)
	}
	s := c.Session("", StaticToken("t"))
	f.Fuzz(func(t *testing.T, code int, b []byte) {
		if code != 200 && code != 400 {
			code = 200
		}
		status, body = code, b
		results, err := s.Decrypt(t.Context(), fakeKey, []Item{{}, {}})
		if err == nil && len(results) != 2 {
			t.Errorf("%d results for two items, and no error", len(results))
		}
	})
}

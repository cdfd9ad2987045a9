package transit

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fault is a response of a server, or its absence, and how the client has to treat it.
type fault struct {
	handler   http.HandlerFunc
	want      error // nil: none of the errors of this package
	statuses  []int // of the observed attempts; 0 is an incomplete response
	transient bool  // the client repeats the request
}

// result returns the body of a response with results of a batch.
func result(items string) string { return `{"data":{"batch_results":[` + items + `]}}` }

var cut http.HandlerFunc = func(w http.ResponseWriter, _ *http.Request) {
	conn, _, _ := w.(http.Hijacker).Hijack()
	conn.Close()
}

var incomplete http.HandlerFunc = func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	fmt.Fprint(w, `{"data":`)
}

// spaces is longer than any response to the requests of TestFaults may be.
var spaces = strings.Repeat(" ", 2*maxResponse)

// faults are those of a request for two results. The client bisects a batch that may
// have failed because of an item.
var faults = map[string]fault{
	"HTML":                     {respond(200, "<html>canary</html>"), ErrNotVault, []int{200}, false},
	"HTML, not found":          {respond(404, "<html>canary</html>"), ErrNotFound, []int{404}, false},
	"HTML, bad request":        {respond(400, "<html>canary</html>"), ErrNotVault, []int{400, 400, 400}, false},
	"HTML, bad gateway":        {respond(502, "<html>canary</html>"), nil, []int{502}, true},
	"empty":                    {respond(200, ""), ErrNotVault, []int{200}, false},
	"no content":               {respond(204, ""), ErrNotVault, []int{204}, false},
	"null":                     {respond(200, "null"), ErrNotVault, []int{200}, false},
	"null data":                {respond(200, `{"data":null}`), ErrNotVault, []int{200}, false},
	"no results":               {respond(200, `{"data":{}}`), ErrNotVault, []int{200}, false},
	"fewer results":            {respond(200, result(`{"plaintext":"`+canaryPlain+`"}`)), ErrNotVault, []int{200}, false},
	"fewer results with a 400": {respond(400, result(`{"error":"x"}`)), ErrNotVault, []int{400}, false},
	"more results": {respond(200, result(`{"plaintext":""},{"plaintext":""},{"plaintext":""}`)), ErrNotVault,
		[]int{200}, false},
	"results of another type": {respond(200, `{"data":{"batch_results":"`+canaryPlain+`"}}`), ErrNotVault,
		[]int{200}, false},
	"plaintext of another type": {respond(200, result(`{"plaintext":314159265},{"plaintext":314159265}`)), ErrNotVault,
		[]int{200}, false},
	"half a body": {respond(200, `{"data":{"batch_results":[{"plaintext":"`+canaryPlain), ErrNotVault,
		[]int{200}, false},
	"too long":          {respond(200, spaces+result(`{"plaintext":""},{"plaintext":""}`)), ErrNotVault, []int{0}, false},
	"too long an error": {respond(400, spaces+result(`{"error":""},{"error":""}`)), ErrNotVault, []int{0}, false},
	"denied by policy": {respond(403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`), ErrDenied,
		[]int{403}, false},
	"expired token": {respond(403, `{"errors":["permission denied","invalid token"]}`), ErrInvalidToken,
		[]int{403}, false},
	"no key": {respond(400, `{"errors":["encryption key not found"]}`), ErrNotFound, []int{400}, false},
	"no engine": {respond(404, `{"errors":["no handler for route \"x/decrypt/k\". route entry not found."]}`),
		ErrNotFound, []int{404}, false},
	"not found without a message": {respond(404, `{"errors":[]}`), ErrNotFound, []int{404}, false},
	"errors of another type":      {respond(400, `{"errors":"canary"}`), ErrNotVault, []int{400, 400, 400}, false},
	"bad request":                 {respond(400, `{"errors":["no"]}`), nil, []int{400, 400, 400}, false},
	"a limit on JSON": {respond(500, `{"errors":["JSON body exceeds the limit of 1000 strings"]}`), nil,
		[]int{500, 500, 500}, false},
	"precondition failed": {respond(412, `{"errors":["required index state not present"]}`), nil, []int{412}, true},
	"quota":               {respond(429, `{"errors":["request path quota exceeded"]}`), ErrBusy, []int{429}, true},
	"internal error":      {respond(500, `{"errors":["internal error"]}`), nil, []int{500}, true},
	"sealed":              {respond(503, `{"errors":["Vault is sealed"]}`), ErrSealed, []int{503}, true},
	"no response":         {cut, ErrUnreachable, []int{0}, true},
	"incomplete response": {incomplete, ErrUnreachable, []int{0}, true},
}

// loginFaults are those of a login.
var loginFaults = map[string]fault{
	"no auth":             {respond(200, `{"data":{}}`), ErrNotVault, []int{200}, false},
	"null auth":           {respond(200, `{"auth":null}`), ErrNotVault, []int{200}, false},
	"no token":            {respond(200, `{"auth":{"lease_duration":60}}`), ErrNotVault, []int{200}, false},
	"HTML":                {respond(200, "<html>"), ErrNotVault, []int{200}, false},
	"no content":          {respond(204, ""), ErrNotVault, []int{204}, false},
	"refused":             {respond(403, `{"errors":["permission denied"]}`), ErrDenied, []int{403}, false},
	"refused by jwt":      {respond(400, `{"errors":["invalid audience (aud) claim"]}`), ErrDenied, []int{400}, false},
	"no mount":            {respond(404, `{"errors":["no handler for route"]}`), ErrNotFound, []int{404}, false},
	"unavailable":         {respond(503, ""), nil, []int{503}, true},
	"no response":         {cut, ErrUnreachable, []int{0}, true},
	"incomplete response": {incomplete, ErrUnreachable, []int{0}, true},
}

// TestFaults checks what a client makes of each fault: the error, without values of
// request and response, the attempts, and what the hooks observe.
func TestFaults(t *testing.T) {
	items := []Item{{Data: []byte(canaryText)}, {Data: []byte(canaryText)}}
	for name, f := range faults {
		t.Run("decrypt, "+name, func(t *testing.T) {
			f.check(t, "decrypting with transit/keys/k", false, func(c *Client) error {
				return firstError(c.Session("", StaticToken(canaryToken)).Decrypt(t.Context(), fakeKey, items))
			})
		})
	}
	for name, f := range loginFaults {
		t.Run("login, "+name, func(t *testing.T) {
			f.check(t, `role "app"`, true, func(c *Client) error {
				_, err := c.Login(t.Context(), fakeLogin("canary"))
				return err
			})
		})
	}
}

func (f fault) check(t *testing.T, doing string, login bool, call func(*Client) error) {
	t.Helper()
	var requests, failures atomic.Int64 // failures: the number of responses before a good one
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) <= failures.Load() {
			f.handler(w, r)
			return
		}
		fmt.Fprint(w, `{"auth":{"client_token":"t","metadata":{"role":"app"}},
			"data":{"batch_results":[{"plaintext":""},{"plaintext":""}]}}`)
	}))
	t.Cleanup(server.Close)
	var statuses []int
	var logins []bool // whether they succeeded
	run := func(retryFor time.Duration, n int64) error {
		requests.Store(0)
		failures.Store(n)
		statuses = nil
		return call(newSession(t, Config{
			Address: server.URL, RetryFor: retryFor,
			Observe:  func(_ Operation, status int, _ time.Duration) { statuses = append(statuses, status) },
			LoggedIn: func(err error) { logins = append(logins, err == nil) },
		}).client)
	}
	retryFor := time.Second
	if f.transient {
		retryFor = -1
	}
	err := run(retryFor, 1000)
	var e *Error
	if !errors.As(err, &e) || e.Transient != f.transient || f.want != nil && !errors.Is(err, f.want) ||
		!strings.Contains(fmt.Sprint(err), doing) {
		t.Errorf("got %v; want %v, transient: %v", err, f.want, f.transient)
	}
	checkLeak(t, err)
	if diff := cmp.Diff(f.statuses, statuses); diff != "" {
		t.Errorf("observed statuses (-want +got):\n%s", diff)
	}
	if login && (len(logins) != 1 || logins[0]) {
		t.Errorf("observed logins: %v", logins)
	}
	if !f.transient {
		return
	}
	if err := run(0, 2); err != nil {
		t.Errorf("after two failures: %v", err)
	}
	if diff := cmp.Diff([]int{f.statuses[0], f.statuses[0], 200}, statuses); diff != "" {
		t.Errorf("observed statuses with retries (-want +got):\n%s", diff)
	}
	if login && (len(logins) != 2 || !logins[1]) {
		t.Errorf("observed logins with retries: %v", logins)
	}
}

func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	_, err = newSession(t, Config{Address: "http://" + address, RetryFor: -1}).Key(t.Context(), fakeKey)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}

package transit

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// fullAudit sets every field.
func fullAudit(id string) Audit {
	return Audit{
		Namespace: "demo", Pod: "app-0", PodUID: "uid-1", ServiceAccount: "app", Secret: "matrix", Class: "matrix-class",
		Node: "node-0.example", RequestID: id, RunID: "run-" + id, Verb: "rewrap",
	}
}

// sentAudit returns the audit headers of a request, by name.
func sentAudit(h http.Header) map[string]string {
	sent := map[string]string{}
	for name, values := range h {
		if strings.HasPrefix(strings.ToLower(name), "x-secretmanager-") {
			sent[strings.ToLower(name)] = strings.Join(values, " and ")
		}
	}
	return sent
}

func wantAudit(a Audit) map[string]string {
	want := map[string]string{}
	for _, h := range a.headers() {
		if h.value != "" {
			want[strings.ToLower(h.name)] = h.value
		}
	}
	return want
}

// anyResponse is a response that every operation of a batch of one accepts.
const anyResponse = `{"auth": {"client_token": "t", "metadata": {"role": "app"}},
	"data": {"latest_version": 7, "batch_results": [{"plaintext": "", "ciphertext": "vault:v1:x"}]}}`

// TestAuditHeaders checks that the requests of every operation carry all headers, also
// after a redirect, and none without an Audit.
func TestAuditHeaders(t *testing.T) {
	var mu sync.Mutex
	got := map[string]map[string]string{} // by path
	record := func(r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		key := r.Host + " " + r.Method + " " + r.URL.Path
		got[key] = sentAudit(r.Header)
	}
	active := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		record(r)
		fmt.Fprint(w, anyResponse)
	}))
	t.Cleanup(active.Close)
	standby := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		record(r)
		http.Redirect(w, r, active.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(standby.Close)
	c, err := NewClient(Config{Address: standby.URL, RetryFor: -1})
	if err != nil {
		t.Fatal(err)
	}
	k := ciphertext.Key{Mount: "transit", Name: "app"}
	all := func(ctx context.Context) (requests int) {
		login := c.NewLoginSource(Login{Namespace: "team", Mount: "jwt", Role: "app",
			JWT: func() (string, error) { return "jwt", nil }})
		s := c.Session("team", login)
		item := []Item{{Data: []byte("vault:v1:x")}}
		for operation, do := range map[string]func() error{
			"encrypt": func() error { _, err := s.Encrypt(ctx, k, item); return err },
			"decrypt": func() error { _, err := s.Decrypt(ctx, k, item); return err },
			"rewrap":  func() error { _, err := s.Rewrap(ctx, k, item); return err },
			"rotate":  func() error { _, err := s.Rotate(ctx, k); return err }, // reads the key too
			"config":  func() error { return s.SetMinDecryptionVersion(ctx, k, KeyInfo{}, 2) },
			"trim":    func() error { return s.Trim(ctx, k, KeyInfo{MinEncryptionVersion: 2}, 2) },
		} {
			if err := do(); err != nil {
				t.Errorf("%s: %v", operation, err)
			}
		}
		return 2 * 8 // with the login and the read of the key, at both servers
	}
	for name, a := range map[string]Audit{"all fields": fullAudit("1"), "some": {Verb: "status"}, "no field": {}} {
		clear(got)
		if n := all(WithAudit(t.Context(), a)); len(got) != n {
			t.Errorf("%s: %d kinds of requests, want %d", name, len(got), n)
		}
		for request, sent := range got {
			if diff := cmp.Diff(wantAudit(a), sent); diff != "" {
				t.Errorf("%s: %s:\n%s", name, request, diff)
			}
		}
	}
	clear(got)
	all(t.Context())
	for request, sent := range got {
		if len(sent) > 0 {
			t.Errorf("without an Audit, %s has %v", request, sent)
		}
	}
	// The names to register with Vault are those that are sent.
	if want := wantAudit(fullAudit("1")); len(AuditHeaders()) != len(want) {
		t.Errorf("AuditHeaders has %d names, and %d are sent", len(AuditHeaders()), len(want))
	}
}

// TestAuditHeadersOfConcurrentRequests checks that each request carries its own headers,
// also when it is retried. The race detector finds a header map that is shared.
func TestAuditHeadersOfConcurrentRequests(t *testing.T) {
	var refused sync.Map
	var wrong atomic.Int32
	s := fakeVault(t, 0, func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Batch []struct{ Ciphertext string } `json:"batch_input"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
			return
		}
		id := strings.TrimPrefix(in.Batch[0].Ciphertext, "vault:v1:")
		if diff := cmp.Diff(wantAudit(fullAudit(id)), sentAudit(r.Header)); diff != "" && wrong.Add(1) == 1 {
			t.Errorf("the request of %s:\n%s", id, diff)
		}
		if _, retried := refused.LoadOrStore(id, true); !retried {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, anyResponse)
	})
	var done sync.WaitGroup
	for i := range 50 {
		done.Go(func() {
			id := fmt.Sprint("request-", i)
			ctx := WithAudit(t.Context(), fullAudit(id))
			if _, err := s.Decrypt(ctx, ciphertext.Key{Mount: "transit", Name: "app"},
				[]Item{{Data: []byte("vault:v1:" + id)}}); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
}

// TestAuditOfSharedLogin checks that a login carries the headers of the caller that
// started it.
func TestAuditOfSharedLogin(t *testing.T) {
	var sent []map[string]string
	proceed := make(chan struct{})
	source := fakeLoginSource(t, func(w http.ResponseWriter, r *http.Request, _ string) {
		sent = append(sent, sentAudit(r.Header))
		<-proceed
		writeToken(w, "t", 3600)
	})
	first, cancel := context.WithCancel(WithAudit(t.Context(), fullAudit("first")))
	a := goToken(first, source)
	awaitCallers(t, source, 1)
	b := goToken(WithAudit(t.Context(), fullAudit("second")), source)
	awaitCallers(t, source, 2)
	cancel() // the login outlives the caller that started it
	<-a
	close(proceed)
	if got := <-b; got.err != nil {
		t.Fatal(got.err)
	}
	if diff := cmp.Diff([]map[string]string{wantAudit(fullAudit("first"))}, sent); diff != "" {
		t.Error(diff)
	}
}

// TestUnsafeAuditValues checks that no request is sent with a value that is ambiguous or
// adds a header.
func TestUnsafeAuditValues(t *testing.T) {
	var requests atomic.Int32
	s := fakeVault(t, -1, func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		fmt.Fprint(w, anyResponse)
	})
	for _, value := range []string{
		"a\r\nX-Vault-Token: b", "a\nb", "a\rb", "a\x00b", "a b", " ", "a,b", "a\tb", "\x7f", "é", "\xff",
		strings.Repeat("a", maxAuditValue+1),
	} {
		for _, a := range []Audit{
			{Namespace: value}, {Pod: value}, {PodUID: value}, {ServiceAccount: value}, {Secret: value}, {Class: value},
			{Node: value}, {RequestID: value}, {RunID: value}, {Verb: value},
		} {
			ctx := WithAudit(t.Context(), a)
			_, err := s.Decrypt(ctx, ciphertext.Key{Mount: "transit", Name: "app"}, []Item{{Data: []byte("vault:v1:x")}})
			if err == nil || !strings.Contains(err.Error(), "audit header X-SecretManager-") {
				t.Errorf("value %q: %v", value, err)
			} else if len(value) > 3 && strings.Contains(err.Error(), value) {
				t.Errorf("error contains the value %q", value)
			}
			_, err = s.client.Login(ctx, Login{Mount: "jwt", Role: "app", JWT: func() (string, error) { return "jwt", nil }})
			if err == nil {
				t.Errorf("value %q: the login succeeded", value)
			}
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	longest := WithAudit(t.Context(), Audit{Secret: strings.Repeat("a", maxAuditValue)})
	if _, err := s.Decrypt(longest, ciphertext.Key{Mount: "transit", Name: "app"},
		[]Item{{Data: []byte("vault:v1:x")}}); err != nil {
		t.Errorf("the longest name: %v", err)
	}
}

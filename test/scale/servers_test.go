package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/internal/podtoken"
)

// clock is the synthetic time of a simulation, for servers outside of it. The client sets
// it before a request, and it does not change until the response.
type clock struct{ at atomic.Int64 }

func (c *clock) set(at time.Duration) { c.at.Store(int64(at)) }
func (c *clock) now() time.Duration   { return time.Duration(c.at.Load()) }

// eventsPerSecond counts events by second.
type eventsPerSecond struct {
	mu     sync.Mutex
	counts []int
}

func (t *eventsPerSecond) add(at time.Duration, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := int(at / time.Second)
	for len(t.counts) <= i {
		t.counts = append(t.counts, 0)
	}
	t.counts[i] += n
}

// between returns the number of events in a time span.
func (t *eventsPerSecond) between(from, to time.Duration) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := int(from / time.Second); i < int(to/time.Second) && i < len(t.counts); i++ {
		n += t.counts[i]
	}
	return n
}

// counts has the requests of a simulation, as a Load has them.
type counts struct {
	times float64 // nodes of the cluster for each simulated node

	login, decrypt                      eventsPerSecond
	readAsPod, review                   eventsPerSecond
	readByKubelet, podTokens, podStatus eventsPerSecond
}

// between returns the load of the whole cluster in a time span.
func (c *counts) between(from, to time.Duration) Load {
	rate := func(t *eventsPerSecond) float64 {
		return c.times * float64(t.between(from, to)) / (to - from).Seconds()
	}
	return Load{
		Login: rate(&c.login), Decrypt: rate(&c.decrypt), ReadAsPod: rate(&c.readAsPod), Review: rate(&c.review),
		ReadByKubelet: rate(&c.readByKubelet), PodTokens: rate(&c.podTokens), PodStatus: rate(&c.podStatus),
	}
}

// fakeVault handles logins and batch decrypts as Vault does, and denies expired tokens. A
// real Vault has no synthetic time, and would be too slow for days of it.
type fakeVault struct {
	*httptest.Server
	clock  *clock
	ttl    time.Duration
	counts *counts
	denied atomic.Int64

	mu     sync.Mutex
	tokens map[string]time.Duration // expiry of each
}

func newFakeVault(t testing.TB, ttl time.Duration, c *clock, n *counts) *fakeVault {
	t.Helper()
	v := &fakeVault{clock: c, ttl: ttl, counts: n, tokens: map[string]time.Duration{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/auth/kubernetes/login", v.login)
	mux.HandleFunc("/v1/transit/decrypt/"+transitKey, v.decrypt)
	v.Server = httptest.NewServer(withoutKeepAlive(mux))
	t.Cleanup(v.Close)
	return v
}

// withoutKeepAlive closes each connection after the response. Synthetic time does not
// advance while a goroutine waits for the network, as that of an idle connection does.
func withoutKeepAlive(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		next.ServeHTTP(w, r)
	})
}

func (v *fakeVault) login(w http.ResponseWriter, r *http.Request) {
	var in struct{ Role, JWT string }
	if json.NewDecoder(r.Body).Decode(&in) != nil || in.Role != role {
		v.deny(w)
		return
	}
	claims, err := podtoken.Parse(in.JWT)
	if err != nil {
		v.deny(w)
		return
	}
	now := v.clock.now()
	v.counts.login.add(now, 1)
	v.counts.review.add(now, 1) // see TestRealParts
	v.mu.Lock()
	token := fmt.Sprint("token-", len(v.tokens))
	v.tokens[token] = now + v.ttl
	v.mu.Unlock()
	respond(w, map[string]any{"auth": map[string]any{
		"client_token": token, "lease_duration": int(v.ttl.Seconds()), "metadata": map[string]string{
			"role": in.Role, "service_account_name": claims.ServiceAccount,
			"service_account_namespace": claims.Namespace, "service_account_uid": claims.ServiceAccountUID,
		},
	}})
}

func (v *fakeVault) decrypt(w http.ResponseWriter, r *http.Request) {
	now := v.clock.now()
	v.counts.decrypt.add(now, 1)
	v.mu.Lock()
	until := v.tokens[r.Header.Get("X-Vault-Token")]
	v.mu.Unlock()
	var in struct {
		Batch []struct{ Ciphertext, Context string } `json:"batch_input"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || now >= until {
		v.deny(w)
		return
	}
	results := []map[string]any{}
	for _, item := range in.Batch {
		results = append(results, map[string]any{"plaintext": base64.StdEncoding.EncodeToString(decode(item.Ciphertext))})
	}
	respond(w, map[string]any{"data": map[string]any{"batch_results": results}})
}

func (v *fakeVault) deny(w http.ResponseWriter) {
	v.denied.Add(1)
	w.WriteHeader(http.StatusForbidden)
	fmt.Fprint(w, `{"errors": ["permission denied", "invalid token"]}`)
}

// overhead is the size of nonce and tag in a ciphertext.
const overhead = 28

// encode returns ciphertext for fakeVault, which is not encrypted.
func encode(version int, plaintext string) []byte {
	text := append(make([]byte, overhead), plaintext...)
	return fmt.Appendf(nil, "vault:v%d:%s", version, base64.StdEncoding.EncodeToString(text))
}

func decode(ciphertext string) []byte {
	text, err := base64.StdEncoding.DecodeString(ciphertext[strings.LastIndexByte(ciphertext, ':')+1:])
	if err != nil || len(text) < overhead {
		return nil
	}
	return text[overhead:]
}

// fakeAPI serves the GET of a Secret with any token.
type fakeAPI struct {
	*httptest.Server
	denied atomic.Int64
}

func newFakeAPI(t testing.TB, c *clock, n *counts,
	secret func(name string, at time.Duration) map[string][]byte) *fakeAPI {
	t.Helper()
	a := &fakeAPI{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/namespaces/"+namespace+"/secrets/{name}", func(w http.ResponseWriter, r *http.Request) {
		n.readAsPod.add(c.now(), 1)
		data := secret(r.PathValue("name"), c.now())
		if data == nil || !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
			a.denied.Add(1)
			w.WriteHeader(http.StatusForbidden)
			return
		}
		respond(w, corev1.Secret{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
			ObjectMeta: metav1.ObjectMeta{Name: r.PathValue("name")}, Data: data,
		})
	})
	a.Server = httptest.NewServer(withoutKeepAlive(mux))
	t.Cleanup(a.Close)
	return a
}

func respond(w http.ResponseWriter, v any) {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b.Bytes())
}

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

// clock is the synthetic time of a simulation, for servers that do not live in
// it: whoever is about to ask them sets it. It stands still until they have
// answered.
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

// between counts those in a part of the time.
func (t *eventsPerSecond) between(from, to time.Duration) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := int(from / time.Second); i < int(to/time.Second) && i < len(t.counts); i++ {
		n += t.counts[i]
	}
	return n
}

// counts are the requests of a simulation: the parts of a Load.
type counts struct {
	times float64 // how many nodes of the cluster each simulated one stands for

	login, decrypt                      eventsPerSecond
	readAsPod, review                   eventsPerSecond
	readByKubelet, podTokens, podStatus eventsPerSecond
}

// between is the load of the whole cluster in a part of the time.
func (c *counts) between(from, to time.Duration) Load {
	rate := func(t *eventsPerSecond) float64 {
		return c.times * float64(t.between(from, to)) / (to - from).Seconds()
	}
	return Load{
		Login: rate(&c.login), Decrypt: rate(&c.decrypt), ReadAsPod: rate(&c.readAsPod), Review: rate(&c.review),
		ReadByKubelet: rate(&c.readByKubelet), PodTokens: rate(&c.podTokens), PodStatus: rate(&c.podStatus),
	}
}

// fakeVault answers logins and batch decrypts as Vault does, and refuses a token
// that has ended. A real Vault knows no time but the machine's, and is too slow for
// days.
type fakeVault struct {
	*httptest.Server
	clock   *clock
	ttl     time.Duration
	counts  *counts
	refused atomic.Int64

	mu     sync.Mutex
	tokens map[string]time.Duration // until when each is good
}

func newFakeVault(t testing.TB, ttl time.Duration, c *clock, n *counts) *fakeVault {
	t.Helper()
	v := &fakeVault{clock: c, ttl: ttl, counts: n, tokens: map[string]time.Duration{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/auth/kubernetes/login", v.login)
	mux.HandleFunc("/v1/transit/decrypt/"+transitKey, v.decrypt)
	v.Server = httptest.NewServer(unkept(mux))
	t.Cleanup(v.Close)
	return v
}

// unkept closes each connection after the answer. Time stands still as long as
// somebody in the simulation waits for the network, and a connection that is
// kept does that for ever.
func unkept(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		next.ServeHTTP(w, r)
	})
}

func (v *fakeVault) login(w http.ResponseWriter, r *http.Request) {
	var in struct{ Role, JWT string }
	if json.NewDecoder(r.Body).Decode(&in) != nil || in.Role != role {
		v.refuse(w)
		return
	}
	claims, err := podtoken.Parse(in.JWT)
	if err != nil {
		v.refuse(w)
		return
	}
	now := v.clock.now()
	v.counts.login.add(now, 1)
	v.counts.review.add(now, 1) // see TestRealParts
	v.mu.Lock()
	token := fmt.Sprint("token-", len(v.tokens))
	v.tokens[token] = now + v.ttl
	v.mu.Unlock()
	answer(w, map[string]any{"auth": map[string]any{
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
		v.refuse(w)
		return
	}
	results := []map[string]any{}
	for _, item := range in.Batch {
		results = append(results, map[string]any{"plaintext": base64.StdEncoding.EncodeToString(unseal(item.Ciphertext))})
	}
	answer(w, map[string]any{"data": map[string]any{"batch_results": results}})
}

func (v *fakeVault) refuse(w http.ResponseWriter) {
	v.refused.Add(1)
	w.WriteHeader(http.StatusForbidden)
	fmt.Fprint(w, `{"errors": ["permission denied", "invalid token"]}`)
}

// overhead is what a ciphertext has beside the plaintext: nonce and tag.
const overhead = 28

// seal makes what fakeVault decrypts: anybody could.
func seal(version int, plaintext string) []byte {
	text := append(make([]byte, overhead), plaintext...)
	return fmt.Appendf(nil, "vault:v%d:%s", version, base64.StdEncoding.EncodeToString(text))
}

func unseal(ciphertext string) []byte {
	text, err := base64.StdEncoding.DecodeString(ciphertext[strings.LastIndexByte(ciphertext, ':')+1:])
	if err != nil || len(text) < overhead {
		return nil
	}
	return text[overhead:]
}

// fakeAPI answers the GET of a Secret to whoever shows a token for it.
type fakeAPI struct {
	*httptest.Server
	refused atomic.Int64
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
			a.refused.Add(1)
			w.WriteHeader(http.StatusForbidden)
			return
		}
		answer(w, corev1.Secret{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
			ObjectMeta: metav1.ObjectMeta{Name: r.PathValue("name")}, Data: data,
		})
	})
	a.Server = httptest.NewServer(unkept(mux))
	t.Cleanup(a.Close)
	return a
}

func answer(w http.ResponseWriter, v any) {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b.Bytes())
}

package rotator_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/test/relay"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// A pair is two real Vaults behind one address: the active server, and one that is like a standby of OpenBao since 2.5
// or of Vault Enterprise. The standby answers reads and does not know yet what the active server did: it has an older
// backup of the key. After a while it gets a new one.
type pair struct {
	active, standby *testenv.Vault
	address         string
	key             string

	relays   map[*testenv.Vault]http.Handler
	restores sync.WaitGroup

	mu      sync.Mutex
	random  *rand.Rand
	lag     time.Duration // the longest
	held    chan struct{} // closed when half of the lags begin
	changes int           // of the key
	known   int           // to the standby, of these
	stale   map[string]int
	errors  []error
}

// newPair returns a pair with a new key.
func newPair(t *testing.T, active *testenv.Vault, key string, random *rand.Rand) *pair {
	t.Helper()
	p := &pair{active: active, standby: testenv.NewVault(t), key: key, random: random,
		relays: map[*testenv.Vault]http.Handler{}}
	transport := &http.Transport{}
	for _, v := range []*testenv.Vault{p.active, p.standby} {
		var err error
		if p.relays[v], err = relay.New(v.Address, transport); err != nil {
			t.Fatal(err)
		}
	}
	_, err := active.Write(t.Context(), "transit/keys/"+key,
		map[string]any{"derived": true, "exportable": true, "allow_plaintext_backup": true})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(p)
	p.address = server.URL
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
		p.restores.Wait()
		for _, err := range p.errors {
			t.Errorf("copying the key: %v", err)
		}
	})
	return p
}

// ServeHTTP passes a request to one of the servers. While the standby lags behind, it gets half of the reads of the
// key. All other requests go to the active server.
func (p *pair) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, _ := strings.CutSuffix(r.URL.Path, "/"+p.key)
	operation := strings.TrimPrefix(path, "/v1/transit/")
	switch {
	case r.Method == http.MethodGet && operation == "keys", operation == "decrypt", operation == "rewrap":
		p.relays[p.reader(operation)].ServeHTTP(w, p.shared(r))
	case strings.HasPrefix(r.URL.Path, "/v1/transit/keys/"+p.key+"/"):
		recorded := httptest.NewRecorder()
		p.relays[p.active].ServeHTTP(recorded, r)
		p.changed() // before anyone knows of the change
		for name, values := range recorded.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(recorded.Code)
		_, _ = recorded.Body.WriteTo(w)
	default:
		p.relays[p.active].ServeHTTP(w, r)
	}
}

// shared returns the request with the root token: a standby knows the tokens of the active server.
func (p *pair) shared(r *http.Request) *http.Request {
	r = r.Clone(r.Context())
	r.Header.Set("X-Vault-Token", p.active.RootToken)
	return r
}

// reader returns the server that answers a read.
func (p *pair) reader(operation string) *testenv.Vault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == p.changes || p.random.IntN(2) == 0 {
		return p.active
	}
	p.stale[operation]++
	return p.standby
}

// begin sets the longest lag, and begins to count stale responses.
func (p *pair) begin(lag time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lag, p.stale = lag, map[string]int{}
}

// hold makes half of the following lags begin when release is called, or a second later, because a busy machine may
// take longer for a rewrap than the lag.
func (p *pair) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = make(chan struct{})
}

func (p *pair) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != nil {
		close(p.held)
		p.held = nil
	}
}

// changed notes a change, which the standby gets to know after a random lag.
func (p *pair) changed() {
	p.mu.Lock()
	p.changes++
	change, lag, held := p.changes, time.Duration(p.random.Int64N(int64(p.lag))), p.held
	if p.random.IntN(2) == 0 {
		held = nil
	}
	p.mu.Unlock()
	p.restores.Go(func() {
		if held != nil {
			select {
			case <-held:
			case <-time.After(time.Second):
			}
		}
		time.Sleep(lag) // the lag itself, which is the input of the test: nothing waits for it
		err := p.restore(context.Background())
		p.mu.Lock()
		defer p.mu.Unlock()
		if err != nil {
			p.errors = append(p.errors, err)
		}
		p.known = max(p.known, change)
	})
}

// restore copies the key to the standby.
func (p *pair) restore(ctx context.Context) error {
	backup, err := p.active.Read(ctx, "transit/backup/"+p.key)
	if err != nil {
		return err
	}
	backup["force"] = true
	_, err = p.standby.Write(ctx, "transit/restore/"+p.key, backup)
	return err
}

// lags reports whether the standby does not have the latest change.
func (p *pair) lags() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known < p.changes
}

// staleResponses returns how many responses the standby gave while it lagged behind, by operation.
func (p *pair) staleResponses() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stale
}

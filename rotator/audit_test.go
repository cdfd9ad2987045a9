package rotator_test

import (
	"bytes"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"testing"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestAuditHeaders verifies that every request of a run to Vault has the verb and the run
// id of the log, that each run has another id, and that the caller's id is kept.
func TestAuditHeaders(t *testing.T) {
	f := newServerFixture(t)
	f.populate(2)
	var mu sync.Mutex
	paths, ids := map[string]bool{}, map[[2]string]bool{}
	address := f.VaultProxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
		mu.Lock()
		paths[r.URL.Path] = true
		ids[[2]string{r.Header.Get("X-SecretManager-Run-Id"), r.Header.Get("X-SecretManager-Verb")}] = true
		mu.Unlock()
		vault.ServeHTTP(rw, r)
	})
	session := f.Session(address, f.token(f.rotatorPaths()...))
	seen := map[string]bool{}
	for range 2 {
		clear(paths)
		clear(ids)
		var log bytes.Buffer
		_, err := rotator.Run(t.Context(), session, f.Kube, f.options(func(o *rotator.Options) {
			o.Rotate, o.Log = rotator.Always, slog.New(slog.NewTextHandler(&log, nil))
		}))
		if err != nil {
			t.Fatal(err)
		}
		if len(paths) != 3 { // the key, its rotation, and rewrap
			t.Errorf("requests to %v", slices.Collect(maps.Keys(paths)))
		}
		m := regexp.MustCompile(`msg=plan run=(\w+) `).FindStringSubmatch(log.String())
		if m == nil || seen[m[1]] {
			t.Fatalf("the log has no new run id:\n%s", &log)
		}
		seen[m[1]] = true
		if !maps.Equal(ids, map[[2]string]bool{{m[1], "rotator"}: true}) {
			t.Errorf("the log has run id %s, and the requests have %v", m[1], ids)
		}
	}
	clear(ids)
	ctx := transit.WithAudit(t.Context(), transit.Audit{RunID: "given", Verb: "rotate"})
	if _, err := rotator.Run(ctx, session, f.Kube, f.options()); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(ids, map[[2]string]bool{{"given", "rotate"}: true}) {
		t.Errorf("the requests have %v", ids)
	}
}

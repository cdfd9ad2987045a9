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

// TestAuditHeadersOfARun: every request of a run to Vault has the run id that the log
// has, and the verb; each run has another id, and one that the caller gives stays.
func TestAuditHeadersOfARun(t *testing.T) {
	w := newWorld(t)
	w.populate(2)
	var mu sync.Mutex
	paths, ids := map[string]bool{}, map[[2]string]bool{}
	address := w.proxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
		mu.Lock()
		paths[r.URL.Path] = true
		ids[[2]string{r.Header.Get("X-SecretManager-Run-Id"), r.Header.Get("X-SecretManager-Verb")}] = true
		mu.Unlock()
		vault.ServeHTTP(rw, r)
	})
	session := w.session(address, w.token(w.rotatorPaths()...))
	seen := map[string]bool{}
	for range 2 {
		clear(paths)
		clear(ids)
		var log bytes.Buffer
		_, err := rotator.Run(t.Context(), session, w.kube, w.options(func(o *rotator.Options) {
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
			t.Fatalf("the log has no run id of its own:\n%s", &log)
		}
		seen[m[1]] = true
		if !maps.Equal(ids, map[[2]string]bool{{m[1], "rotator"}: true}) {
			t.Errorf("the log says run %s, and Vault got %v", m[1], ids)
		}
	}
	clear(ids)
	ctx := transit.WithAudit(t.Context(), transit.Audit{RunID: "mine", Verb: "rotate"})
	if _, err := rotator.Run(ctx, session, w.kube, w.options()); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(ids, map[[2]string]bool{{"mine", "rotate"}: true}) {
		t.Errorf("Vault got %v", ids)
	}
}

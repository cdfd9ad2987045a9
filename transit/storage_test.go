package transit

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestSettle(t *testing.T) {
	for name, c := range map[string]struct {
		status     int
		body       string
		configured time.Duration
		want       time.Duration
	}{
		"in memory":       {200, `{"storage_type":"inmem"}`, 0, 0},
		"in memory, HA":   {200, `{"storage_type":"inmem_ha"}`, 0, 0},
		"on disk":         {200, `{"storage_type":"raft"}`, 0, DefaultSettle},
		"not reported":    {200, `{}`, 0, DefaultSettle},
		"no response":     {503, `{"errors":["sealed"]}`, 0, DefaultSettle},
		"configured":      {200, `{"storage_type":"inmem"}`, time.Hour, time.Hour},
		"configured as 0": {200, `{"storage_type":"raft"}`, -1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := fakeVault(t, -1, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v1/sys/seal-status" || r.Header.Get("X-Vault-Token") != "" ||
					r.Header.Get("X-Vault-Namespace") != "" {
					t.Errorf("request for %s, token %q", r.URL.Path, r.Header.Get("X-Vault-Token"))
				}
				respond(c.status, c.body)(w, r)
			})
			s.namespace = "team"
			if got := s.Settle(t.Context(), c.configured); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// A key that is younger than any backup is unsettled, unless Vault has no backups.
func TestTargetOfNewKey(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	info := KeyInfo{Latest: 1, Created: map[int]time.Time{1: now}, ReadAt: now}
	for _, c := range []struct {
		storage    string
		configured time.Duration
		unsettled  bool
	}{{"inmem", 0, false}, {"raft", 0, true}, {"inmem", time.Hour, true}, {"raft", -1, false}} {
		s := fakeVault(t, -1, respond(200, `{"storage_type":"`+c.storage+`"}`))
		got := s.Target(t.Context(), info, c.configured)
		if got.Version != 1 || got.Unsettled.IsZero() == c.unsettled {
			t.Errorf("storage %s, configured %v: %+v", c.storage, c.configured, got)
		}
	}
}

// An empty list of keys is a 404 without an error, and one of an engine that does not exist
// is a 404 with one.
func TestListKeysEmpty(t *testing.T) {
	s := fakeVault(t, -1, respond(404, `{"errors":[]}`))
	if names, err := s.ListKeys(t.Context(), "transit"); len(names) > 0 || err != nil {
		t.Errorf("got %v, %v", names, err)
	}
	s = fakeVault(t, -1, respond(404, "<html>not Vault</html>"))
	if _, err := s.ListKeys(t.Context(), "transit"); err == nil || strings.Contains(err.Error(), "html") {
		t.Errorf("got %v", err)
	}
}

package main

import (
	"net/http"
	"sync"
	"testing"

	"github.com/secretmanager-io/secretmanager/internal/cli"
)

// TestAuditHeaders checks that every request to Vault has the verb and one run ID.
func TestAuditHeaders(t *testing.T) {
	u := newUser(t)
	var mu sync.Mutex
	got, requests := map[[2]string]bool{}, 0
	u.env["VAULT_ADDR"] = u.VaultProxy(func(w http.ResponseWriter, r *http.Request, vault http.Handler) {
		mu.Lock()
		got[[2]string{r.Header.Get("X-SecretManager-Verb"), r.Header.Get("X-SecretManager-Run-Id")}] = true
		requests++
		mu.Unlock()
		vault.ServeHTTP(w, r)
	})
	runs := map[string]bool{}
	for _, args := range [][]string{
		{"vault-setup", "--apply", "--transit-key", u.Namespace, "--service-account", "app", "--auth-mount", "jwt"},
		{"encrypt", "s", "--transit-key", u.Namespace, "--from-literal", "a=b"},
		{"status"},
		{"verify", "s"},
		{"rotate", "--transit-key", u.Namespace, "--state-namespace", u.Namespace, "--rotate=always"},
		{"doctor", "--class", "none", "--service-account", "app", "--auth-mount", "jwt"},
		{"completion", "__complete", "encrypt", "--kubeconfig", u.API.Kubeconfig, "-n", u.Namespace, "--transit-key", ""},
	} {
		clear(got)
		requests = 0
		run := u.run
		if args[0] == "completion" { // the last argument is the word to complete
			run = func(stdin string, args ...string) (int, string, string) { return u.runExactly(stdin, args[1:]...) }
		}
		if code, _, stderr := run("", args...); code != cli.ExitDone && code != cli.ExitToDo {
			t.Errorf("%s: exit code %d: %s", args[0], code, stderr)
		}
		for key := range got {
			if key[0] != args[0] || key[1] == "" || runs[key[1]] {
				t.Errorf("%s: verb %q, run %q", args[0], key[0], key[1])
			}
			runs[key[1]] = true
		}
		if requests == 0 || len(got) != 1 {
			t.Errorf("%s: %d requests say they are %v", args[0], requests, got)
		}
	}
}

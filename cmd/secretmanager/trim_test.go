package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/internal/cli"
)

// newTrimUser returns a user whose key has two retired versions, which no Secret has.
func newTrimUser(t *testing.T) *user {
	t.Helper()
	u := newUser(t)
	u.RotateKey()
	u.RotateKey()
	u.Write("transit/keys/"+u.Key+"/config", map[string]any{"min_decryption_version": 3})
	return u
}

func (u *user) trim() (code int, stdout, stderr string) {
	u.t.Helper()
	return u.run("", "trim", u.Key, "--yes", u.Key)
}

// An error of a trim that succeeded is no failure, and one of a trim that did not is.
func TestTrimError(t *testing.T) {
	for _, effective := range []bool{true, false} {
		t.Run(fmt.Sprint(effective), func(t *testing.T) {
			u := newTrimUser(t)
			u.env["VAULT_ADDR"] = u.VaultProxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
				if !strings.HasSuffix(r.URL.Path, "/trim") {
					vault.ServeHTTP(rw, r)
					return
				}
				if effective {
					vault.ServeHTTP(httptest.NewRecorder(), r)
				}
				rw.WriteHeader(http.StatusBadRequest)
			})
			code, stdout, stderr := u.trim()
			available := u.KeyInfo().MinAvailableVersion
			deleted := strings.Contains(stdout, "deleted versions 1 to 2")
			if effective && (code != cli.ExitDone || available != 3 || !deleted ||
				!strings.Contains(stderr, "but the versions are deleted")) {
				t.Errorf("exit code %d, min_available_version %d:\n%s%s", code, available, stdout, stderr)
			}
			if !effective && (code != cli.ExitFailed || available != 0 || deleted) {
				t.Errorf("exit code %d, min_available_version %d:\n%s%s", code, available, stdout, stderr)
			}
		})
	}
}

// Ciphertext of a deleted version never decrypts again: Vault does not lower min_decryption_version.
func TestTrimIsPermanent(t *testing.T) {
	u := newTrimUser(t)
	if code, stdout, stderr := u.trim(); code != cli.ExitDone {
		t.Fatalf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	_, err := u.Vault.Write(t.Context(), "transit/keys/"+u.Key+"/config", map[string]any{"min_decryption_version": 1})
	if info := u.KeyInfo(); err == nil || info.MinDecryptionVersion != 3 {
		t.Errorf("%v, %+v", err, info)
	}
}

// Vault confirms, and the key has not changed.
func TestTrimWithoutEffect(t *testing.T) {
	u := newTrimUser(t)
	u.env["VAULT_ADDR"] = u.VaultProxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/trim") {
			rw.WriteHeader(http.StatusNoContent)
			return
		}
		vault.ServeHTTP(rw, r)
	})
	code, stdout, stderr := u.trim()
	if code != cli.ExitFailed || strings.Contains(stdout, "deleted versions 1") ||
		!strings.Contains(stderr, "min_available_version of transit/keys/"+u.Key+" is 0 and not 3") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
}

// The key changes between what is shown and the deletion.
func TestTrimChangedKey(t *testing.T) {
	u := newTrimUser(t)
	reads := 0
	u.env["VAULT_ADDR"] = u.VaultProxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/keys/"+u.Key) {
			if reads++; reads == 2 {
				u.Write("transit/keys/"+u.Key+"/config", map[string]any{"min_decryption_version": 2})
			}
		}
		vault.ServeHTTP(rw, r)
	})
	code, _, stderr := u.trim()
	want := fmt.Sprintf("transit/keys/%s has changed meanwhile (min_decryption_version was 3 and is 2", u.Key)
	if info := u.KeyInfo(); code != cli.ExitFailed || info.MinAvailableVersion != 0 || info.MinEncryptionVersion != 0 ||
		!strings.Contains(stderr, want) {
		t.Errorf("exit code %d, %+v:\n%s", code, info, stderr)
	}
}

package testenv_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// write calls Write, which must succeed.
func write(t *testing.T, v *testenv.Vault, path string, data map[string]any) map[string]any {
	t.Helper()
	response, err := v.Write(t.Context(), path, data)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

func text(t *testing.T, data map[string]any, name string) string {
	t.Helper()
	value, ok := data[name].(string)
	if !ok {
		t.Fatalf("%s in the response is %v, want a string", name, data[name])
	}
	return value
}

func decrypt(t *testing.T, v *testenv.Vault, key, ciphertext string) string {
	t.Helper()
	response := write(t, v, "transit/decrypt/"+key, map[string]any{"ciphertext": ciphertext})
	plaintext, err := base64.StdEncoding.DecodeString(text(t, response, "plaintext"))
	if err != nil {
		t.Fatal(err)
	}
	return string(plaintext)
}

func encrypt(t *testing.T, v *testenv.Vault, key, plaintext string) string {
	t.Helper()
	response := write(t, v, "transit/encrypt/"+key,
		map[string]any{"plaintext": base64.StdEncoding.EncodeToString([]byte(plaintext))})
	return text(t, response, "ciphertext")
}

func TestTransitRoundTrip(t *testing.T) {
	v := testenv.SharedVault(t)
	write(t, v, "transit/keys/round-trip", nil)
	old := encrypt(t, v, "round-trip", "attack at dawn")

	write(t, v, "transit/keys/round-trip/rotate", nil)
	rewrapped := text(t, write(t, v, "transit/rewrap/round-trip", map[string]any{"ciphertext": old}), "ciphertext")
	if !strings.HasPrefix(old, "vault:v1:") || !strings.HasPrefix(rewrapped, "vault:v2:") {
		t.Errorf("rewrap made %.12q of %.12q, want vault:v2: of vault:v1:", rewrapped, old)
	}
	if got := decrypt(t, v, "round-trip", rewrapped); got != "attack at dawn" {
		t.Errorf("decrypting what was rewrapped gave %q", got)
	}
}

func TestSealedVaultAnswers503(t *testing.T) {
	v := testenv.NewVault(t)
	write(t, v, "transit/keys/k", nil)
	ciphertext := encrypt(t, v, "k", "still there")

	if err := v.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := v.Read(t.Context(), "transit/keys/k")
	var refused *testenv.VaultError
	if !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable {
		t.Errorf("a sealed Vault gave %v, want a VaultError of status 503", err)
	}
	if err := v.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := decrypt(t, v, "k", ciphertext); got != "still there" {
		t.Errorf("after unsealing, decrypting gave %q", got)
	}
}

func TestRestartKeepsDataAndAddress(t *testing.T) {
	v := testenv.NewVault(t)
	write(t, v, "transit/keys/k", nil)
	ciphertext := encrypt(t, v, "k", "still there")

	address := v.Address
	if err := v.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v.Address != address {
		t.Errorf("after the restart it is at %s, before at %s", v.Address, address)
	}
	if got := decrypt(t, v, "k", ciphertext); got != "still there" {
		t.Errorf("after the restart, decrypting gave %q", got)
	}
}

func TestRead(t *testing.T) {
	v := testenv.SharedVault(t)
	t.Run("nothing there", func(t *testing.T) {
		_, err := v.Read(t.Context(), "transit/keys/no-such-key")
		var refused *testenv.VaultError
		if !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
			t.Errorf("got %v, want a VaultError of status 404", err)
		}
	})
	t.Run("list", func(t *testing.T) {
		write(t, v, "transit/keys/listed", nil)
		data, err := v.Read(t.Context(), "transit/keys?list=true")
		if err != nil {
			t.Fatal(err)
		}
		if keys, _ := data["keys"].([]any); len(keys) == 0 {
			t.Errorf("listing gave %v, want keys", data)
		}
	})
	t.Run("deleted", func(t *testing.T) {
		write(t, v, "sys/policy/deleted", map[string]any{"policy": `path "secret" { capabilities = ["read"] }`})
		if err := v.Delete(t.Context(), "sys/policy/deleted"); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Read(t.Context(), "sys/policy/deleted"); err == nil {
			t.Error("a deleted policy can be read")
		}
	})
}

func TestVaultTLS(t *testing.T) {
	v := testenv.NewVaultWith(t, testenv.VaultOptions{TLS: true, Mounts: []string{"mounts/team-a=transit"}})
	write(t, v, "team-a/keys/k", nil)

	ca, err := os.ReadFile(v.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("CAFile holds no certificate")
	}
	for _, test := range []struct {
		name  string
		roots *x509.CertPool
		want  bool
	}{
		{"with its CA", roots, true},
		{"with the system's", nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: test.roots}}}
			response, err := client.Get(v.Address + "/v1/sys/health")
			if err == nil {
				response.Body.Close()
			}
			if (err == nil) != test.want {
				t.Errorf("got error %v, want success: %v", err, test.want)
			}
		})
	}
}

package transit_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"strings"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

var exampleKey = ciphertext.Key{Mount: "transit", Name: "matrix"}

// exampleVault returns a server that responds as Vault does, with one key and without
// encryption. Programs use the address of their Vault.
func exampleVault() *httptest.Server {
	latest, minimum := 1, 1
	results := func(r *http.Request) []any {
		var in struct {
			Items []struct{ Plaintext, Ciphertext, Context string } `json:"batch_input"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			panic(err)
		}
		var results []any
		for _, item := range in.Items {
			_, text, _ := strings.Cut(strings.TrimPrefix(item.Ciphertext, "vault:v"), ":")
			content, _ := base64.StdEncoding.DecodeString(text)
			padding, plaintext, _ := strings.Cut(string(content), "|")
			switch fresh := fmt.Sprintf("%-28s", item.Context); {
			case path.Base(path.Dir(r.URL.Path)) == "encrypt":
				content = []byte(fresh + "|" + item.Plaintext)
			case padding != fresh:
				results = append(results, map[string]string{"error": "cipher: message authentication failed"})
				continue
			case path.Base(path.Dir(r.URL.Path)) == "decrypt":
				results = append(results, map[string]string{"plaintext": plaintext})
				continue
			}
			text = base64.StdEncoding.EncodeToString(content)
			results = append(results, map[string]string{"ciphertext": fmt.Sprintf("vault:v%d:%s", latest, text)})
		}
		return results
	}
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var response any
		switch r.Method + " " + strings.TrimPrefix(r.URL.Path, "/v1/") {
		case "POST auth/kubernetes/login":
			response = map[string]any{"auth": map[string]any{
				"client_token": "hvs.example", "lease_duration": 900, "metadata": map[string]string{"role": "matrix"},
			}}
		case "GET transit/keys/matrix":
			response = map[string]any{"data": map[string]any{
				"type": "aes256-gcm96", "derived": true, "latest_version": latest, "min_decryption_version": minimum,
			}}
		case "LIST transit/keys":
			response = map[string]any{"data": map[string]any{"keys": []string{"matrix"}}}
		case "GET sys/seal-status":
			response = map[string]string{"storage_type": "inmem"}
		case "POST transit/keys/matrix/rotate":
			latest++
		case "POST transit/keys/matrix/config":
			minimum = latest
		case "POST transit/keys/matrix/trim":
		case "POST transit/encrypt/matrix", "POST transit/decrypt/matrix", "POST transit/rewrap/matrix":
			response = map[string]any{"data": map[string]any{"batch_results": results(r)}}
		default:
			w.WriteHeader(http.StatusNotFound)
			response = map[string]any{"errors": []string{}}
		}
		if err := json.NewEncoder(w).Encode(response); err != nil {
			panic(err)
		}
	}))
}

// exampleSession returns a session at the server.
func exampleSession(server *httptest.Server) *transit.Session {
	client, err := transit.NewClient(transit.Config{Address: server.URL})
	if err != nil {
		panic(err)
	}
	return client.Session("", transit.StaticToken("hvs.example"))
}

func ExampleNewClient() {
	config := transit.FromEnvironment(os.Getenv) // VAULT_ADDR and so on
	config.Address = "https://vault.example:8200"
	config.RetryFor = 30 * time.Second
	client, err := transit.NewClient(config)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(client.Address())
	// Output:
	// https://vault.example:8200
}

func ExampleFromEnvironment() {
	environment := map[string]string{"VAULT_ADDR": "https://vault.example:8200", "VAULT_CACERT": "/etc/vault/ca.crt"}
	config := transit.FromEnvironment(func(name string) string { return environment[name] })
	fmt.Println(config.Address, config.CACert)
	// Output:
	// https://vault.example:8200 /etc/vault/ca.crt
}

// A program in a pod logs in with the token of its service account.
func ExampleClient_NewLoginSource() {
	vault := exampleVault()
	defer vault.Close()
	client, err := transit.NewClient(transit.Config{Address: vault.URL})
	if err != nil {
		fmt.Println(err)
		return
	}
	session := client.Session("", client.NewLoginSource(transit.Login{
		Mount: "kubernetes", Role: "matrix",
		JWT: func() (string, error) {
			// A program returns the content of the projected token file.
			return "service-account-token", nil
		},
	}))
	info, err := session.Key(context.Background(), exampleKey)
	fmt.Println(info.Latest, err)
	// Output:
	// 1 <nil>
}

func ExampleClient_Login() {
	vault := exampleVault()
	defer vault.Close()
	client, err := transit.NewClient(transit.Config{Address: vault.URL})
	if err != nil {
		fmt.Println(err)
		return
	}
	token, err := client.Login(context.Background(), transit.Login{
		Mount: "kubernetes", Role: "matrix", JWT: func() (string, error) { return "service-account-token", nil },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(time.Until(token.Expires).Round(time.Minute))
	// Output:
	// 15m0s
}

// Several pods of one service account share a Vault token.
func ExampleLoginSource_With() {
	vault := exampleVault()
	defer vault.Close()
	client, err := transit.NewClient(transit.Config{Address: vault.URL})
	if err != nil {
		fmt.Println(err)
		return
	}
	source := client.NewLoginSource(transit.Login{Mount: "kubernetes", Role: "matrix"})
	for _, jwt := range []string{"token-of-pod-1", "token-of-pod-2"} {
		session := client.Session("", source.With(func() (string, error) { return jwt, nil }))
		_, err := session.Key(context.Background(), exampleKey)
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// <nil>
}

func ExampleSession_Encrypt() {
	vault := exampleVault()
	defer vault.Close()
	location := ciphertext.Strict.Context("demo", "matrix", "password")
	items := []transit.Item{{Data: []byte("hunter2"), Context: location}}
	results, err := exampleSession(vault).Encrypt(context.Background(), exampleKey, items)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range results {
		fmt.Printf("%.9s… %v\n", r.Data, r.Err)
	}
	// Output:
	// vault:v1:… <nil>
}

func ExampleSession_Decrypt() {
	ctx, vault := context.Background(), exampleVault()
	defer vault.Close()
	session := exampleSession(vault)
	location := ciphertext.Strict.Context("demo", "matrix", "password")
	encrypted, err := session.Encrypt(ctx, exampleKey, []transit.Item{{Data: []byte("hunter2"), Context: location}})
	if err != nil {
		fmt.Println(err)
		return
	}
	// A ciphertext that was copied to another entry does not decrypt there.
	copied := ciphertext.Strict.Context("demo", "matrix", "copy")
	results, err := session.Decrypt(ctx, exampleKey, []transit.Item{
		{Data: encrypted[0].Data, Context: location}, {Data: encrypted[0].Data, Context: copied},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", results[0].Data)
	fmt.Println(errors.Is(results[1].Err, transit.ErrMismatch))
	// Output:
	// hunter2
	// true
}

func ExampleSession_Rewrap() {
	ctx, vault := context.Background(), exampleVault()
	defer vault.Close()
	session := exampleSession(vault)
	location := ciphertext.Strict.Context("demo", "matrix", "password")
	encrypted, err := session.Encrypt(ctx, exampleKey, []transit.Item{{Data: []byte("hunter2"), Context: location}})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := session.Rotate(ctx, exampleKey); err != nil {
		fmt.Println(err)
		return
	}
	rewrapped, err := session.Rewrap(ctx, exampleKey, []transit.Item{{Data: encrypted[0].Data, Context: location}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ciphertext.Version(rewrapped[0].Data))
	// Output:
	// 2 <nil>
}

func ExampleSession_Key() {
	vault := exampleVault()
	defer vault.Close()
	session := exampleSession(vault)
	info, err := session.Key(context.Background(), exampleKey)
	fmt.Println(info.Type, info.Derived, info.Latest, err)
	_, err = session.Key(context.Background(), ciphertext.Key{Mount: "transit", Name: "missing"})
	fmt.Println(errors.Is(err, transit.ErrNotFound))
	// Output:
	// aes256-gcm96 true 1 <nil>
	// true
}

// After a rotation and a rewrap of all ciphertext, the old versions are retired and
// deleted.
func ExampleSession_Rotate() {
	ctx, vault := context.Background(), exampleVault()
	defer vault.Close()
	session := exampleSession(vault)
	info, err := session.Rotate(ctx, exampleKey)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(info.Latest)
	fmt.Println(session.SetMinDecryptionVersion(ctx, exampleKey, info, info.Latest))
	fmt.Println(session.Trim(ctx, exampleKey, info, info.Latest))
	// Output:
	// 2
	// <nil>
	// <nil>
}

func ExampleKeyInfo_Age() {
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	info := transit.KeyInfo{Latest: 3, Created: map[int]time.Time{3: created}}
	fmt.Println(info.Age(created.Add(48 * time.Hour)))
	// Output:
	// 48h0m0s
}

func ExampleWithAudit() {
	ctx := transit.WithAudit(context.Background(), transit.Audit{Namespace: "demo", Secret: "matrix", Verb: "backup"})
	fmt.Println(transit.AuditFrom(ctx).Verb) // requests with ctx have the headers
	// Output:
	// backup
}

func ExampleAudit_SetHeaders() {
	header := http.Header{}
	transit.Audit{RunID: "42", Verb: "backup"}.SetHeaders(header)
	fmt.Println(header.Get("X-SecretManager-Run-Id"), header.Get("X-SecretManager-Verb"))
	// Output:
	// 42 backup
}

func ExampleAuditHeaders() {
	for _, name := range transit.AuditHeaders()[:2] {
		fmt.Printf("vault write sys/config/auditing/request-headers/%s hmac=false\n", name)
	}
	// Output:
	// vault write sys/config/auditing/request-headers/X-SecretManager-Namespace hmac=false
	// vault write sys/config/auditing/request-headers/X-SecretManager-Pod hmac=false
}

func ExamplePlainHTTP() {
	fmt.Println(transit.PlainHTTP("http://vault.example:8200"), transit.PlainHTTP("http://127.0.0.1:8200"))
	// Output:
	// true false
}

func ExampleCheckTransport() {
	err := transit.CheckTransport("http://vault.example:8200", false)
	fmt.Println(errors.Is(err, transit.ErrPlainHTTP))
	fmt.Println(transit.CheckTransport("http://vault.example:8200", true))
	// Output:
	// true
	// <nil>
}

func ExampleRefusePlainHTTP() {
	client := http.Client{Transport: transit.RefusePlainHTTP(http.DefaultTransport)}
	response, err := client.Get("http://vault.example:8200/v1/sys/health")
	if err == nil {
		response.Body.Close()
	}
	fmt.Println(errors.Is(err, transit.ErrPlainHTTP))
	// Output:
	// true
}

func ExampleWithUpdateHint() {
	err := transit.WithUpdateHint(transit.ErrDenied, exampleKey, transit.OpDecrypt)
	fmt.Println(err)
	// Output:
	// permission denied: check that the policy has update on transit/decrypt/matrix
}

func ExampleWithHint() {
	fmt.Println(transit.WithHint(transit.ErrNotFound, "check the name of the key"))
	fmt.Println(transit.WithHint(transit.ErrSealed, "check the name of the key"))
	// Output:
	// not found: check the name of the key
	// the Vault server is sealed
}

func ExampleExplainItem() {
	settings := ciphertext.Settings{Key: exampleKey, Scope: ciphertext.Strict}
	location := settings.Scope.Describe("demo", "matrix", "password")
	err := transit.ExplainItem(transit.ErrTooNew, settings, location)
	fmt.Println(strings.ReplaceAll(err.Error(), ": ", ":\n"))
	// Output:
	// the key has no such version:
	// key transit/keys/matrix does not have its version:
	// check that this is the right Vault, and that it was not restored from an older backup
}

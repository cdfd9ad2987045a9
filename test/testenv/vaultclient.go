package testenv

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// A VaultResponse is a response of Vault.
type VaultResponse struct {
	// Data is the "data" of the response, or nil. Numbers are [json.Number].
	Data map[string]any
	// Auth is set after a login.
	Auth *VaultAuth
}

// VaultAuth is the result of a login.
type VaultAuth struct {
	ClientToken   string            `json:"client_token"`
	TokenType     string            `json:"token_type"`
	Policies      []string          `json:"policies"`
	Metadata      map[string]string `json:"metadata"`
	LeaseDuration int               `json:"lease_duration"` // in seconds
	EntityID      string            `json:"entity_id"`
}

// A VaultError is a response of Vault with a status of 400 or above.
type VaultError struct {
	Method, Path string
	Status       int
	// Messages are Vault's error messages, or the body if it has none.
	Messages []string
}

func (e *VaultError) Error() string {
	return fmt.Sprintf("vault: %s %s: %d %s: %s", e.Method, e.Path, e.Status, http.StatusText(e.Status),
		strings.Join(e.Messages, "; "))
}

// Read reads a path with the root token and returns the response's data. A path that ends
// in "?list=true" lists. A missing path is a [VaultError] with status 404.
func (v *Vault) Read(ctx context.Context, path string) (map[string]any, error) {
	response, err := v.Do(ctx, http.MethodGet, path, v.RootToken, nil)
	if err != nil {
		return nil, err
	}
	return response.Data, nil
}

// Write writes to a path with the root token and returns the response's data, which is nil
// if the response has none. A nil data sends no body.
func (v *Vault) Write(ctx context.Context, path string, data map[string]any) (map[string]any, error) {
	var body any
	if data != nil {
		body = data
	}
	response, err := v.Do(ctx, http.MethodPut, path, v.RootToken, body)
	if err != nil {
		return nil, err
	}
	return response.Data, nil
}

// Delete deletes a path with the root token.
func (v *Vault) Delete(ctx context.Context, path string) error {
	_, err := v.Do(ctx, http.MethodDelete, path, v.RootToken, nil)
	return err
}

// Login logs in at the auth method mounted at mount ("kubernetes", "jwt") with a
// service account's token, as a pod does.
func (v *Vault) Login(ctx context.Context, mount, role, jwt string) (*VaultAuth, error) {
	path := "auth/" + mount + "/login"
	response, err := v.Do(ctx, http.MethodPut, path, "", map[string]any{"role": role, "jwt": jwt})
	if err != nil {
		return nil, err
	}
	if response.Auth == nil {
		return nil, fmt.Errorf("vault: %s: the response has no auth", path)
	}
	return response.Auth, nil
}

// Do sends a request to the path below /v1/. An empty token or a nil body is not sent.
// A response with a status of 400 or above is returned as a [VaultError].
func (v *Vault) Do(ctx context.Context, method, path, token string, body any) (*VaultResponse, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("vault: %s %s: %w", method, path, err)
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, v.Address+"/v1/"+strings.TrimPrefix(path, "/"), content)
	if err != nil {
		return nil, fmt.Errorf("vault: %s %s: %w", method, path, err)
	}
	if token != "" {
		request.Header.Set("X-Vault-Token", token)
	}
	response, err := v.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("vault: %s %s: reading the response: %w", method, path, err)
	}
	if response.StatusCode >= http.StatusBadRequest {
		return nil, &VaultError{Method: method, Path: path, Status: response.StatusCode, Messages: messages(text)}
	}
	decoded := new(VaultResponse)
	if len(text) == 0 {
		return decoded, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(decoded); err != nil {
		return nil, fmt.Errorf("vault: %s %s: reading the response: %w", method, path, err)
	}
	return decoded, nil
}

// status returns what an unauthenticated path of sys responds, in whatever state the server is; nil if it does not.
func (v *Vault) status(ctx context.Context, path string) map[string]any {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, v.Address+"/v1/"+path, nil)
	if err != nil {
		return nil
	}
	response, err := v.client.Do(request)
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	var status map[string]any
	if json.NewDecoder(response.Body).Decode(&status) != nil {
		return nil
	}
	return status
}

// messages returns the errors in the body of a failed request.
func messages(body []byte) []string {
	var decoded struct{ Errors []string }
	if json.Unmarshal(body, &decoded) == nil && len(decoded.Errors) > 0 {
		return decoded.Errors
	}
	return []string{strings.TrimSpace(string(body))}
}

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

// A VaultResponse is what Vault answered.
type VaultResponse struct {
	// Data is the "data" of the answer; nil where there is none. Numbers are
	// [json.Number].
	Data map[string]any
	// Auth is there after a login.
	Auth *VaultAuth
}

// VaultAuth is what a login gives.
type VaultAuth struct {
	ClientToken   string            `json:"client_token"`
	TokenType     string            `json:"token_type"`
	Policies      []string          `json:"policies"`
	Metadata      map[string]string `json:"metadata"`
	LeaseDuration int               `json:"lease_duration"` // in seconds
	EntityID      string            `json:"entity_id"`
}

// A VaultError is an answer of Vault's with a status of 400 or above.
type VaultError struct {
	Method, Path string
	Status       int
	// Messages are Vault's own words, or the body where it has none.
	Messages []string
}

func (e *VaultError) Error() string {
	return fmt.Sprintf("vault: %s %s: %d %s: %s", e.Method, e.Path, e.Status, http.StatusText(e.Status),
		strings.Join(e.Messages, "; "))
}

// Read reads a path with the root token and returns the answer's data. A path
// that ends in "?list=true" lists. What is not there is a [VaultError] of status 404.
func (v *Vault) Read(ctx context.Context, path string) (map[string]any, error) {
	response, err := v.Do(ctx, http.MethodGet, path, v.RootToken, nil)
	if err != nil {
		return nil, err
	}
	return response.Data, nil
}

// Write writes to a path with the root token and returns the answer's data, which
// is nil for paths that answer nothing. A nil data sends no body.
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
		return nil, fmt.Errorf("vault: %s: the answer has no auth", path)
	}
	return response.Auth, nil
}

// Do sends any request: path is what follows /v1/, an empty token sends none, and
// a nil body sends none. Answers of 400 and above are returned as a [VaultError].
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
		return nil, fmt.Errorf("vault: %s %s: reading the answer: %w", method, path, err)
	}
	if response.StatusCode >= http.StatusBadRequest {
		return nil, &VaultError{Method: method, Path: path, Status: response.StatusCode, Messages: messages(text)}
	}
	answer := new(VaultResponse)
	if len(text) == 0 {
		return answer, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(answer); err != nil {
		return nil, fmt.Errorf("vault: %s %s: reading the answer: %w", method, path, err)
	}
	return answer, nil
}

// messages returns the errors in the body of a failed request.
func messages(body []byte) []string {
	var answer struct{ Errors []string }
	if json.Unmarshal(body, &answer) == nil && len(answer.Errors) > 0 {
		return answer.Errors
	}
	return []string{strings.TrimSpace(string(body))}
}

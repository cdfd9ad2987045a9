package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// floor sends the requests of a mount and does nothing else.
type floor struct {
	env    *environment
	client *http.Client
	inline bool // one request that contains the login
}

func newFloor(e *environment) (*floor, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(e.api.CA) {
		return nil, errors.New("the API server's CA is not a certificate")
	}
	return &floor{env: e, client: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 64,
		ForceAttemptHTTP2:   true, // to the API server; Vault is plain HTTP here
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}}}, nil
}

func (f *floor) close() { f.client.CloseIdleConnections() }

// requests returns a call that sends the requests of a mount.
func (f *floor) requests(v *volume, p pod) call {
	return func(ctx context.Context) error {
		entries, err := f.entries(ctx, v, p)
		if err != nil {
			return err
		}
		header, err := f.login(ctx, p)
		if err != nil {
			return err
		}
		type item struct {
			Ciphertext string `json:"ciphertext"`
			Context    []byte `json:"context"`
		}
		batch := make([]item, len(v.entries))
		for i, entry := range v.entries {
			batch[i] = item{entries[entry], ciphertext.Strict.Context(namespace, v.secret, entry)}
		}
		var response struct {
			Data struct {
				Results []struct {
					Plaintext []byte `json:"plaintext"`
				} `json:"batch_results"`
			} `json:"data"`
		}
		if err := f.postVault(ctx, "transit/decrypt/"+namespace, header, map[string]any{"batch_input": batch},
			&response); err != nil {
			return err
		}
		if len(response.Data.Results) != len(batch) {
			return fmt.Errorf("vault returned %d results for %d entries", len(response.Data.Results), len(batch))
		}
		got := make(map[string]string, len(batch))
		for i, entry := range v.entries {
			got[entry] = string(response.Data.Results[i].Plaintext)
		}
		return v.check(got)
	}
}

// login returns the header of a decrypt: a Vault token, or the login itself.
func (f *floor) login(ctx context.Context, p pod) (http.Header, error) {
	if f.inline {
		header := http.Header{"X-Vault-Inline-Auth-Path": {"auth/jwt/login"}}
		for name, value := range map[string]string{"role": namespace, "jwt": p.vault} {
			text := fmt.Appendf(nil, `{"key":%q,"value":%q}`, name, value)
			header.Set("X-Vault-Inline-Auth-Parameter-"+name, base64.RawURLEncoding.EncodeToString(text))
		}
		return header, nil
	}
	var login struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	err := f.postVault(ctx, "auth/jwt/login", nil, map[string]string{"role": namespace, "jwt": p.vault}, &login)
	return http.Header{"X-Vault-Token": {login.Auth.Token}}, err
}

// entries returns the ciphertext, and reads it as the pod if the pod has a token for it.
func (f *floor) entries(ctx context.Context, v *volume, p pod) (map[string]string, error) {
	if p.api == "" {
		return v.ciphertext, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		f.env.api.Address+"/api/v1/namespaces/"+namespace+"/secrets/"+v.secret, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+p.api)
	var secret struct{ Data map[string][]byte }
	if err := send(f.client, req, &secret); err != nil {
		return nil, err
	}
	entries := make(map[string]string, len(secret.Data))
	for entry, text := range secret.Data {
		entries[entry] = string(text)
	}
	return entries, nil
}

func (f *floor) postVault(ctx context.Context, path string, header http.Header, in, out any) error {
	text, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.env.vault.Address+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	maps.Copy(req.Header, header)
	return send(f.client, req, out)
}

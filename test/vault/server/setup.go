package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
)

// setup sends the requests that prepare a core.
type setup struct {
	handler http.Handler
	token   string // the root token of the initialization
}

// prepare initializes the core unless its storage is that of an earlier start,
// unseals it, and creates the root token and the mounts of the flags. A member of a
// cluster does all that when it starts for the first time and does not join another.
func (s *setup) prepare(ctx context.Context, storage *storage, o options) (*keys, error) {
	keys, err := storage.keys()
	if err != nil {
		return nil, err
	}
	known, join := keys != nil, o.raft.join != ""
	if !known {
		begin, doing := s.initialize, "initializing"
		if join {
			begin, doing = s.joinCluster, "joining the cluster"
		}
		if keys, err = begin(ctx, o); err != nil {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
		if err := storage.keep(keys); err != nil {
			return nil, err
		}
	}
	s.token = keys.RootToken
	if err := s.request(ctx, http.MethodPut, "sys/unseal", map[string]any{"key": keys.UnsealKey}, nil); err != nil {
		return nil, fmt.Errorf("unsealing: %w", err)
	}
	if o.raft.node != "" {
		if err := s.awaitMember(ctx, known || join); err != nil {
			return nil, fmt.Errorf("waiting for the cluster: %w", err)
		}
		if known || join {
			return keys, nil
		}
	}
	if err := s.ensureToken(ctx, o.rootToken); err != nil {
		return nil, fmt.Errorf("creating the root token: %w", err)
	}
	for _, mount := range o.mounts {
		if err := s.ensureMount(ctx, mount); err != nil {
			return nil, fmt.Errorf("mounting %s: %w", mount, err)
		}
	}
	return keys, nil
}

// initialize initializes the core with one unseal key.
func (s *setup) initialize(ctx context.Context, _ options) (*keys, error) {
	var result struct {
		Keys      []string `json:"keys_base64"`
		RootToken string   `json:"root_token"`
	}
	request := map[string]any{"secret_shares": 1, "secret_threshold": 1}
	if err := s.request(ctx, http.MethodPut, "sys/init", request, &result); err != nil {
		return nil, err
	}
	if len(result.Keys) != 1 {
		return nil, fmt.Errorf("got %d unseal keys, want one", len(result.Keys))
	}
	return &keys{UnsealKey: result.Keys[0], RootToken: result.RootToken}, nil
}

// ensureToken creates a root token with the id, unless an earlier start did.
func (s *setup) ensureToken(ctx context.Context, id string) error {
	if id == "" {
		return errors.New("its id is empty")
	}
	if s.request(ctx, http.MethodPut, "auth/token/lookup", map[string]any{"token": id}, nil) == nil {
		return nil
	}
	token := map[string]any{"id": id, "policies": []string{"root"}, "no_parent": true}
	return s.request(ctx, http.MethodPut, "auth/token/create", token, nil)
}

// ensureMount enables the mount of a --mount flag, unless an earlier start did.
func (s *setup) ensureMount(ctx context.Context, flag string) error {
	mount, kind, hasKind := strings.Cut(flag, "=")
	mount = strings.Trim(mount, "/")
	if !hasKind {
		kind = path.Base(mount)
	}
	table, name, found := strings.Cut(mount, "/")
	if !found || (table != "mounts" && table != "auth") {
		return errors.New(`the path must begin with "mounts/" or "auth/"`)
	}
	var existing struct{ Data map[string]any }
	if err := s.request(ctx, http.MethodGet, "sys/"+table, nil, &existing); err != nil {
		return err
	}
	if existing.Data[name+"/"] != nil {
		return nil
	}
	return s.request(ctx, http.MethodPut, "sys/"+mount, map[string]any{"type": kind}, nil)
}

// request passes a request to the handler and decodes its response into out.
func (s *setup) request(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	w := s.send(ctx, method, path, body)
	if w.Code >= http.StatusBadRequest {
		return fmt.Errorf("%s %s: %d: %s", method, path, w.Code, bytes.TrimSpace(w.Body.Bytes()))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(w.Body.Bytes(), out)
}

// send passes a request to the handler.
func (s *setup) send(ctx context.Context, method, path string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, method, "/v1/"+path, bytes.NewReader(body))
	r.Header.Set("X-Vault-Token", s.token)
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

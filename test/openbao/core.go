package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/openbao/openbao/audit"
	"github.com/openbao/openbao/builtin/audit/file"
	"github.com/openbao/openbao/helper/namespace"
	"github.com/openbao/openbao/sdk/v2/logical"
	"github.com/openbao/openbao/vault"
)

// A server is an unsealed core with what its users need to know.
type server struct {
	core      *vault.Core
	token     string // the root token of the initialisation
	unsealKey string // in base64
}

// start makes the core, initialises it unless its storage already holds one,
// unseals it, and sees to the root token and the mounts that o asks for.
func start(ctx context.Context, o options, address string, logger hclog.Logger) (*server, error) {
	storage, err := openStorage(o.storage, logger)
	if err != nil {
		return nil, err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           storage.backend,
		StorageType:        storage.kind,
		Logger:             logger,
		RedirectAddr:       address,
		BuiltinRegistry:    catalogue{},
		LogicalBackends:    engines,
		CredentialBackends: methods,
		AuditBackends:      map[string]audit.Factory{"file": file.Factory},
	})
	if err != nil {
		return nil, fmt.Errorf("making the core: %w", err)
	}
	s := &server{core: core}
	if err := s.prepare(namespace.RootContext(ctx), storage, o); err != nil {
		core.Shutdown()
		return nil, err
	}
	return s, nil
}

func (s *server) prepare(ctx context.Context, storage *storage, o options) error {
	keys, err := storage.keys()
	if err != nil {
		return err
	}
	if keys == nil {
		if keys, err = s.initialise(ctx); err != nil {
			return err
		}
		if err := storage.keep(keys); err != nil {
			return err
		}
	}
	s.token = keys.RootToken
	s.unsealKey = base64.StdEncoding.EncodeToString(keys.UnsealKey)
	if _, err := s.core.Unseal(keys.UnsealKey); err != nil {
		return fmt.Errorf("unsealing: %w", err)
	}
	if err := s.ensureToken(ctx, o.rootToken); err != nil {
		return fmt.Errorf("making the root token: %w", err)
	}
	for _, mount := range o.mounts {
		if err := s.ensureMount(ctx, mount); err != nil {
			return fmt.Errorf("mounting %s: %w", mount, err)
		}
	}
	return nil
}

// initialise makes a new Vault whose key is in one piece.
func (s *server) initialise(ctx context.Context) (*keys, error) {
	result, err := s.core.Initialize(ctx, &vault.InitParams{
		BarrierConfig:  &vault.SealConfig{SecretShares: 1, SecretThreshold: 1, StoredShares: 1},
		RecoveryConfig: &vault.SealConfig{},
	})
	if err != nil {
		return nil, fmt.Errorf("initialising: %w", err)
	}
	if len(result.SecretShares) != 1 {
		return nil, fmt.Errorf("initialising: asked for one unseal key and got %d", len(result.SecretShares))
	}
	return &keys{UnsealKey: result.SecretShares[0], RootToken: result.RootToken}, nil
}

// ensureToken makes a root token of the given id, unless a former start has.
func (s *server) ensureToken(ctx context.Context, id string) error {
	if id == "" {
		return errors.New("its id is empty")
	}
	found, err := s.request(ctx, logical.UpdateOperation, "auth/token/lookup", map[string]any{"token": id})
	if err == nil && found != nil {
		return nil
	}
	_, err = s.request(ctx, logical.UpdateOperation, "auth/token/create", map[string]any{
		"id": id, "policies": []string{"root"}, "no_parent": true,
	})
	return err
}

// ensureMount enables what a --mount flag says, unless a former start has.
func (s *server) ensureMount(ctx context.Context, flag string) error {
	at, kind, given := strings.Cut(flag, "=")
	at = strings.Trim(at, "/")
	if !given {
		kind = path.Base(at)
	}
	table, name, found := strings.Cut(at, "/")
	if !found || (table != "mounts" && table != "auth") {
		return errors.New(`the path must begin with "mounts/" or "auth/"`)
	}
	existing, err := s.request(ctx, logical.ReadOperation, "sys/"+table, nil)
	if err != nil {
		return err
	}
	if existing != nil && existing.Data[name+"/"] != nil {
		return nil
	}
	_, err = s.request(ctx, logical.UpdateOperation, "sys/"+at, map[string]any{"type": kind})
	return err
}

// request asks the core directly, with the root token of the initialisation.
func (s *server) request(ctx context.Context, operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	response, err := s.core.HandleRequest(ctx, &logical.Request{
		Operation: operation, ClientToken: s.token, Path: path, Data: data,
	})
	if err == nil && response.IsError() {
		err = response.Error()
	}
	return response, err
}

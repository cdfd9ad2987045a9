package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/openbao/openbao/sdk/v2/physical"
	"github.com/openbao/openbao/sdk/v2/physical/file"
	"github.com/openbao/openbao/sdk/v2/physical/inmem"
)

// storage is where the core's (encrypted) data lives, and beside it the keys that
// open it. That makes the encryption worthless, which is fine for tests and is
// what lets the next start unseal by itself.
type storage struct {
	dir     string // empty: in memory
	kind    string
	backend physical.Backend
}

// keys is what an initialisation gave.
type keys struct {
	UnsealKey []byte `json:"unsealKey"`
	RootToken string `json:"rootToken"`
}

func openStorage(dir string, logger hclog.Logger) (*storage, error) {
	if dir == "" {
		backend, err := inmem.NewInmem(nil, logger)
		if err != nil {
			return nil, fmt.Errorf("making storage in memory: %w", err)
		}
		return &storage{kind: "inmem", backend: backend}, nil
	}
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("making the storage folder: %w", err)
	}
	backend, err := file.NewFileBackend(map[string]string{"path": data}, logger)
	if err != nil {
		return nil, fmt.Errorf("opening the storage folder: %w", err)
	}
	return &storage{dir: dir, kind: "file", backend: backend}, nil
}

func (s *storage) keysFile() string { return filepath.Join(s.dir, "keys.json") }

// keys returns the kept keys, or nil where none has been initialised yet.
func (s *storage) keys() (*keys, error) {
	if s.dir == "" {
		return nil, nil
	}
	text, err := os.ReadFile(s.keysFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the kept keys: %w", err)
	}
	kept := new(keys)
	if err := json.Unmarshal(text, kept); err != nil {
		return nil, fmt.Errorf("reading the kept keys in %s: %w", s.keysFile(), err)
	}
	return kept, nil
}

// keep writes the keys for the next start.
func (s *storage) keep(k *keys) error {
	if s.dir == "" {
		return nil
	}
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.keysFile(), text, 0o600); err != nil {
		return fmt.Errorf("keeping the keys: %w", err)
	}
	return nil
}

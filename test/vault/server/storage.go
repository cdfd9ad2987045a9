package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// storage is the directory with the core's data and the keys that unseal it. Keeping both in one place makes the
// encryption worthless, which is acceptable for tests, and allows the next start to unseal automatically.
type storage struct{ dir string } // empty: in memory

// keys is the result of the initialization.
type keys struct {
	UnsealKey string `json:"unsealKey"` // in base64
	RootToken string `json:"rootToken"`
}

func openStorage(dir string) (*storage, error) {
	s := &storage{dir: dir}
	if dir == "" {
		return s, nil
	}
	if err := os.MkdirAll(s.dataDir(), 0o700); err != nil {
		return nil, fmt.Errorf("creating the storage directory: %w", err)
	}
	return s, nil
}

func (s *storage) dataDir() string {
	if s.dir == "" {
		return ""
	}
	return filepath.Join(s.dir, "data")
}

func (s *storage) keysFile() string { return filepath.Join(s.dir, "keys.json") }

// keys returns the stored keys, or nil before the initialization.
func (s *storage) keys() (*keys, error) {
	if s.dir == "" {
		return nil, nil
	}
	text, err := os.ReadFile(s.keysFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the unseal key: %w", err)
	}
	stored := new(keys)
	if err := json.Unmarshal(text, stored); err != nil {
		return nil, fmt.Errorf("reading the unseal key in %s: %w", s.keysFile(), err)
	}
	return stored, nil
}

// keep stores the keys for the next start.
func (s *storage) keep(k *keys) error {
	if s.dir == "" {
		return nil
	}
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.keysFile(), text, 0o600); err != nil {
		return fmt.Errorf("writing the unseal key: %w", err)
	}
	return nil
}

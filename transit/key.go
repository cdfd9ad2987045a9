package transit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// KeyInfo is the state of a transit key.
type KeyInfo struct {
	Type                 string // such as aes256-gcm96
	Derived              bool   // whether the key has a context; Vault silently ignores contexts for others
	SupportsEncryption   bool   // whether keys of the type encrypt
	SupportsDerivation   bool   // whether keys of the type can have a context
	Latest               int    // newest version, which encrypts
	MinDecryptionVersion int    // versions below it do not decrypt
	MinEncryptionVersion int    // 0: the newest
	MinAvailableVersion  int    // versions below it are deleted
	AutoRotatePeriod     time.Duration
	Created              map[int]time.Time // of each version from MinDecryptionVersion on
	// ReadAt is the time of Vault when it sent this state, from the Date header of the
	// response, in whole seconds. It is zero if the response has none. Compare ages with
	// it, and not with the clock of this machine.
	ReadAt time.Time
}

// Age returns the age of the newest version at the given time, or 0 if Vault did not
// return its creation time.
func (i KeyInfo) Age(now time.Time) time.Duration {
	created, ok := i.Created[i.Latest]
	if !ok {
		return 0
	}
	return max(now.Sub(created), 0)
}

// keyResponse is the response to the read of a key.
type keyResponse struct {
	Data *struct {
		Type      string                     `json:"type"`
		Derived   bool                       `json:"derived"`
		Encrypts  bool                       `json:"supports_encryption"`
		Derives   bool                       `json:"supports_derivation"`
		Latest    int                        `json:"latest_version"`
		MinDec    int                        `json:"min_decryption_version"`
		MinEnc    int                        `json:"min_encryption_version"`
		MinAvail  int                        `json:"min_available_version"`
		AutoEvery int64                      `json:"auto_rotate_period"`
		Keys      map[string]json.RawMessage `json:"keys"`
	} `json:"data"`
}

// Key reads the state of a key. The error wraps [ErrNotFound] if the key does not exist.
func (s *Session) Key(ctx context.Context, k ciphertext.Key) (KeyInfo, error) {
	var out keyResponse
	var header http.Header
	doing := "reading " + k.String()
	if err := s.manage(ctx, k, request{
		op: OpKeyRead, doing: doing, method: http.MethodGet, out: &out, header: &header,
	}, ""); err != nil {
		return KeyInfo{}, err
	}
	info, err := s.info(doing, out)
	if at, dateErr := http.ParseTime(header.Get("Date")); dateErr == nil {
		info.ReadAt = at
	}
	return info, err
}

// ListKeys returns the names of the keys of a transit engine, sorted. There may be none. It
// needs list on MOUNT/keys.
func (s *Session) ListKeys(ctx context.Context, mount string) ([]string, error) {
	doing := "listing the keys of " + mount
	if err := ciphertext.CheckPath(mount); err != nil {
		return nil, &Error{Doing: doing, Address: s.client.address, Err: err}
	}
	var out struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	err := s.do(ctx, request{op: OpKeyList, doing: doing, method: "LIST", path: mount + "/keys", out: &out})
	if failed := (*Error)(nil); errors.As(err, &failed) && failed.Status == http.StatusNotFound && failed.empty {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(out.Data.Keys)
	return out.Data.Keys, nil
}

// Rotate adds a version to the key and returns its new state. Rotate never sends the
// request twice, as that could add two versions: after an error, read the key to find
// out whether it was rotated.
func (s *Session) Rotate(ctx context.Context, k ciphertext.Key) (KeyInfo, error) {
	// Vault returns the key since 1.13, OpenBao does not: read it.
	if err := s.manage(ctx, k, request{op: OpRotate, doing: "rotating " + k.String(), method: http.MethodPost,
		in: struct{}{}, once: true}, "/rotate"); err != nil {
		return KeyInfo{}, err
	}
	return s.Key(ctx, k)
}

// SetMinDecryptionVersion retires all versions below the given one: their ciphertext
// does not decrypt until min_decryption_version is lowered again. It raises the key's
// min_encryption_version if needed, since Vault rejects a lower one unless it is 0.
func (s *Session) SetMinDecryptionVersion(ctx context.Context, k ciphertext.Key, current KeyInfo, version int) error {
	config := map[string]int{"min_decryption_version": version}
	if e := current.MinEncryptionVersion; e > 0 && e < version {
		config["min_encryption_version"] = version
	}
	return s.manage(ctx, k, request{
		op: OpKeyConfig, doing: fmt.Sprintf("setting min_decryption_version of %s to %d", k, version),
		method: http.MethodPost, in: config,
	}, "/config")
}

// Trim deletes all versions below the given one, which cannot be undone. Vault requires
// that min_decryption_version is not lower. It requires the same of
// min_encryption_version, which Trim raises if needed (Vault encrypts with the newest
// version anyway).
func (s *Session) Trim(ctx context.Context, k ciphertext.Key, current KeyInfo, version int) error {
	if current.MinEncryptionVersion < version {
		lowest := max(version, current.MinDecryptionVersion) // Vault accepts no lower one
		if err := s.manage(ctx, k, request{
			op:     OpKeyConfig,
			doing:  fmt.Sprintf("setting min_encryption_version of %s to %d, which trimming requires", k, lowest),
			method: http.MethodPost,
			in:     map[string]int{"min_encryption_version": lowest},
		}, "/config"); err != nil {
			return err
		}
	}
	return s.manage(ctx, k, request{
		op: OpTrim, doing: fmt.Sprintf("trimming the versions of %s below %d", k, version), method: http.MethodPost,
		in: map[string]int{"min_available_version": version},
	}, "/trim")
}

func (s *Session) manage(ctx context.Context, k ciphertext.Key, r request, suffix string) error {
	if err := k.Check(); err != nil {
		return &Error{Doing: r.doing, Address: s.client.address, Err: err}
	}
	r.path = k.String() + suffix
	err := s.do(ctx, r)
	if failed := (*Error)(nil); errors.As(err, &failed) {
		failed.Key = k
	}
	return err
}

func (s *Session) info(doing string, out keyResponse) (KeyInfo, error) {
	d := out.Data
	if d == nil || d.Latest < 1 {
		return KeyInfo{}, &Error{Doing: doing, Address: s.client.address, Status: http.StatusOK,
			Err: fmt.Errorf("%w: it has no key", ErrNotVault)}
	}
	info := KeyInfo{
		Type: d.Type, Derived: d.Derived, SupportsEncryption: d.Encrypts, SupportsDerivation: d.Derives,
		Latest: d.Latest, MinDecryptionVersion: d.MinDec,
		MinEncryptionVersion: d.MinEnc, MinAvailableVersion: d.MinAvail,
		AutoRotatePeriod: time.Duration(d.AutoEvery) * time.Second, Created: map[int]time.Time{},
	}
	for text, raw := range d.Keys {
		version, err := strconv.Atoi(text)
		if err != nil {
			continue
		}
		// Symmetric keys have the Unix time in seconds, asymmetric ones an object with a
		// creation_time.
		var seconds int64
		if json.Unmarshal(raw, &seconds) == nil {
			info.Created[version] = time.Unix(seconds, 0)
			continue
		}
		var asymmetric struct {
			Created time.Time `json:"creation_time"`
		}
		if json.Unmarshal(raw, &asymmetric) == nil && !asymmetric.Created.IsZero() {
			info.Created[version] = asymmetric.Created
		}
	}
	return info, nil
}

package transit

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// KeyInfo is the state of a transit key.
type KeyInfo struct {
	Type                 string // such as aes256-gcm96
	Derived              bool   // whether a context is part of the key; without, Vault silently ignores contexts
	Latest               int    // newest version, the one that encrypts
	MinDecryptionVersion int    // versions below it no longer decrypt
	MinEncryptionVersion int    // 0: the newest
	MinAvailableVersion  int    // versions below it were trimmed, for good
	AutoRotatePeriod     time.Duration
	Created              map[int]time.Time // of each version from MinDecryptionVersion on
}

// Age returns how long ago the newest version was made, as of now; 0 when Vault
// did not say.
func (i KeyInfo) Age(now time.Time) time.Duration {
	made, ok := i.Created[i.Latest]
	if !ok {
		return 0
	}
	return max(now.Sub(made), 0)
}

// keyAnswer is a key as Vault describes it; rotate answers the same.
type keyAnswer struct {
	Data *struct {
		Type      string                     `json:"type"`
		Derived   bool                       `json:"derived"`
		Latest    int                        `json:"latest_version"`
		MinDec    int                        `json:"min_decryption_version"`
		MinEnc    int                        `json:"min_encryption_version"`
		MinAvail  int                        `json:"min_available_version"`
		AutoEvery int64                      `json:"auto_rotate_period"`
		Keys      map[string]json.RawMessage `json:"keys"`
	} `json:"data"`
}

// Key reads the state of a key. A key that is not there wraps [ErrNotFound].
func (s *Session) Key(ctx context.Context, k ciphertext.Key) (KeyInfo, error) {
	var out keyAnswer
	doing := "reading " + k.String()
	if err := s.manage(ctx, k, request{op: OpKeyRead, doing: doing, method: http.MethodGet, out: &out}, ""); err != nil {
		return KeyInfo{}, err
	}
	return s.info(doing, out)
}

// Rotate makes a new version of the key and returns the state after it. It is
// never sent twice, because twice is one version more: after an error read the
// key to find out whether it took.
func (s *Session) Rotate(ctx context.Context, k ciphertext.Key) (KeyInfo, error) {
	// Vault answers with the key since 1.13, OpenBao with nothing: read it.
	if err := s.manage(ctx, k, request{op: OpRotate, doing: "rotating " + k.String(), method: http.MethodPost,
		in: struct{}{}, once: true}, "/rotate"); err != nil {
		return KeyInfo{}, err
	}
	return s.Key(ctx, k)
}

// SetMinDecryptionVersion retires all versions below min. Ciphertext of theirs
// no longer opens until it is lowered again. The state of the key says whether
// its min_encryption_version has to rise too, which Vault wants to be no lower
// unless it is 0.
func (s *Session) SetMinDecryptionVersion(ctx context.Context, k ciphertext.Key, now KeyInfo, min int) error {
	config := map[string]int{"min_decryption_version": min}
	if e := now.MinEncryptionVersion; e > 0 && e < min {
		config["min_encryption_version"] = min
	}
	return s.manage(ctx, k, request{
		op: OpKeyConfig, doing: fmt.Sprintf("setting min_decryption_version of %s to %d", k, min), method: http.MethodPost,
		in: config,
	}, "/config")
}

// Trim deletes all versions below min, for good. Vault wants min_decryption_version
// to be at least min already, and min_encryption_version as well, which is set if
// it is not (Vault encrypts with the newest version all the same).
func (s *Session) Trim(ctx context.Context, k ciphertext.Key, now KeyInfo, min int) error {
	if now.MinEncryptionVersion < min {
		if err := s.manage(ctx, k, request{
			op:     OpKeyConfig,
			doing:  fmt.Sprintf("setting min_encryption_version of %s to %d, without which Vault does not trim", k, min),
			method: http.MethodPost,
			in:     map[string]int{"min_encryption_version": min},
		}, "/config"); err != nil {
			return err
		}
	}
	return s.manage(ctx, k, request{
		op: OpTrim, doing: fmt.Sprintf("trimming the versions of %s below %d", k, min), method: http.MethodPost,
		in: map[string]int{"min_available_version": min},
	}, "/trim")
}

func (s *Session) manage(ctx context.Context, k ciphertext.Key, r request, suffix string) error {
	if err := k.Check(); err != nil {
		return &Error{Doing: r.doing, Address: s.client.address, Err: err}
	}
	r.path = k.String() + suffix
	return s.do(ctx, r)
}

func (s *Session) info(doing string, out keyAnswer) (KeyInfo, error) {
	d := out.Data
	if d == nil || d.Latest < 1 {
		return KeyInfo{}, &Error{Doing: doing, Address: s.client.address, Status: http.StatusOK,
			Err: fmt.Errorf("%w: it has no key in it", ErrNotVault)}
	}
	info := KeyInfo{
		Type: d.Type, Derived: d.Derived, Latest: d.Latest, MinDecryptionVersion: d.MinDec,
		MinEncryptionVersion: d.MinEnc, MinAvailableVersion: d.MinAvail,
		AutoRotatePeriod: time.Duration(d.AutoEvery) * time.Second, Created: map[int]time.Time{},
	}
	for text, raw := range d.Keys {
		version, err := strconv.Atoi(text)
		if err != nil {
			continue
		}
		// Symmetric keys have unix seconds; asymmetric ones, which nobody here can
		// encrypt with in a derived way, an object with a creation_time.
		var seconds int64
		if json.Unmarshal(raw, &seconds) == nil {
			info.Created[version] = time.Unix(seconds, 0)
			continue
		}
		var long struct {
			Made time.Time `json:"creation_time"`
		}
		if json.Unmarshal(raw, &long) == nil && !long.Made.IsZero() {
			info.Created[version] = long.Made
		}
	}
	return info, nil
}

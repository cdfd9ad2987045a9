package ciphertext

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
)

// Errors of [Version]. None of them contains the text.
var (
	// ErrEmpty means that the text is empty.
	ErrEmpty = errors.New("is empty")
	// ErrNotEncrypted means that the text is not ciphertext, and may be plaintext.
	ErrNotEncrypted = errors.New(
		`is not ciphertext: it does not begin with "vault:v" and a key version, so it may be plaintext`)
	// ErrMalformed means that the text begins as ciphertext does and is not.
	ErrMalformed = errors.New("is damaged ciphertext")
)

// tag begins every ciphertext of Vault and OpenBao.
var tag = []byte("vault:v")

// overhead is the length of the nonce and the authentication tag, which every transit
// ciphertext has.
const overhead = 12 + 16

// Version returns the key version of a transit ciphertext: 3 for "vault:v3:uK4s…". It
// checks the whole text: the prefix, a decimal version of at least 1, and standard
// base64 of at least a nonce and an authentication tag. The error wraps [ErrEmpty],
// [ErrNotEncrypted] or [ErrMalformed].
func Version(text []byte) (int, error) {
	if len(text) == 0 {
		return 0, ErrEmpty
	}
	rest, ok := bytes.CutPrefix(text, tag)
	if !ok {
		return 0, ErrNotEncrypted
	}
	number, payload, ok := bytes.Cut(rest, []byte(":"))
	if !ok {
		return 0, ErrNotEncrypted
	}
	version, err := strconv.Atoi(string(number))
	if err != nil || version < 1 || number[0] == '+' || number[0] == '0' {
		return 0, fmt.Errorf("%w: its key version is not a positive number", ErrMalformed)
	}
	n, err := base64.StdEncoding.Strict().Decode(make([]byte, base64.StdEncoding.DecodedLen(len(payload))), payload)
	if err != nil || bytes.ContainsAny(payload, "\r\n") {
		return 0, fmt.Errorf("%w: what follows %q is not base64", ErrMalformed, fmt.Sprintf("vault:v%d:", version))
	}
	if n < overhead {
		return 0, fmt.Errorf("%w: it is truncated", ErrMalformed)
	}
	return version, nil
}

// Size returns an upper bound for the length of the ciphertext of n bytes of plaintext,
// for a key of type aes256-gcm96, transit's default, with fewer than a million versions.
func Size(n int) int {
	return len(tag) + len("999999:") + base64.StdEncoding.EncodedLen(n+overhead)
}

package ciphertext

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
)

// What can be wrong with the text of an entry. None of them repeats the text.
var (
	ErrEmpty        = errors.New("is empty")
	ErrNotEncrypted = errors.New(
		`is not ciphertext: it does not begin with "vault:v" and a key version, so it may be plaintext`)
	ErrMalformed = errors.New("is damaged ciphertext")
)

// tag is how every transit ciphertext begins; OpenBao kept it.
var tag = []byte("vault:v")

// Nonce and authentication tag: no transit ciphertext is shorter.
const overhead = 12 + 16

// Version returns the key version in a transit ciphertext: 3 for
// "vault:v3:uK4s…". It checks the whole text: the tag, a version of at least 1
// in plain decimal, and standard base64 of at least the length of a nonce and
// an authentication tag. The error is one of [ErrEmpty], [ErrNotEncrypted] and
// [ErrMalformed], with the reason.
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
		return 0, fmt.Errorf("%w: its key version is not a number from 1", ErrMalformed)
	}
	// Decoded in place of a copy: a Secret may hold a megabyte.
	n, err := base64.StdEncoding.Strict().Decode(make([]byte, base64.StdEncoding.DecodedLen(len(payload))), payload)
	if err != nil || bytes.ContainsAny(payload, "\r\n") {
		return 0, fmt.Errorf("%w: what follows %q is not base64", ErrMalformed, fmt.Sprintf("vault:v%d:", version))
	}
	if n < overhead {
		return 0, fmt.Errorf("%w: it is cut short", ErrMalformed)
	}
	return version, nil
}

// Size returns how long the ciphertext of n bytes of plaintext is, under a key
// version of at most six digits (AES-256-GCM96, transit's default).
func Size(n int) int {
	return len(tag) + len("999999:") + base64.StdEncoding.EncodedLen(n+overhead)
}

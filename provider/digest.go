package provider

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
)

// digest is a keyed digest of what the caches know a mount by. It can be kept
// where the input, such as a token, must not be.
type digest [sha256.Size]byte

// digester makes digests under a key that never leaves the process: a digest that
// somebody gets hold of cannot be compared with guesses.
type digester [sha256.Size]byte

func newDigester() (d digester) {
	rand.Read(d[:]) // never fails
	return d
}

// keyed hashes lists of texts so that no two lists are the same bytes.
type keyed struct{ hash.Hash }

func (d *digester) hash(purpose string) keyed {
	h := keyed{hmac.New(sha256.New, d[:])}
	h.add(purpose)
	return h
}

func (h keyed) count(n int) {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(n))
	h.Write(length[:])
}

func (h keyed) add(texts ...string) {
	for _, text := range texts {
		h.count(len(text))
		io.WriteString(h.Hash, text) // never fails
	}
}

func (h keyed) addBytes(text []byte) {
	h.count(len(text))
	h.Write(text)
}

func (h keyed) sum(d *digest) { h.Sum(d[:0]) }

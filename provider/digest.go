package provider

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
)

// digest is a keyed digest that identifies a mount in the caches. It may be stored where its input, such as a token,
// must not.
type digest [sha256.Size]byte

// digester computes digests with a key that never leaves the process, so that a leaked digest cannot be compared with
// guesses.
type digester [sha256.Size]byte

func newDigester() (d digester) {
	rand.Read(d[:]) // never fails
	return d
}

// keyed hashes lists of texts. It hashes lengths too, so that different lists are different bytes.
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

package provider

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const versionKeySize = 32

// objectVersion is what the driver, and tools that restart pods, compare to see
// whether a file has changed. It is a hash of path and content under a key that
// does not leave the node: a hash without one could be guessed, and one of the
// ciphertext would change with every rewrap. Namespace and Secret are part of it, so
// that the same content elsewhere on the node has another version: people may read
// versions of their own pods, and could try values until two are equal. Lengths
// come first, so that no two lists of parts are the same bytes.
func objectVersion(key []byte, namespace, secret, path string, content []byte) string {
	mac := hmac.New(sha256.New, key)
	var n [8]byte
	for _, part := range [][]byte{[]byte(namespace), []byte(secret), []byte(path), content} {
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		mac.Write(n[:])
		mac.Write(part)
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// VersionKey returns the key in the file, which it makes, of random bytes and
// readable by its owner only, where there is none. Processes that do so at the
// same time get the same key. A file of another length, or that others may
// read, is an error and is left as it is: with another key every object version
// of the node's pods would change.
func VersionKey(file string) ([]byte, error) {
	key, err := readVersionKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := makeVersionKey(file); err != nil {
		return nil, fmt.Errorf("making the version key: %w", err)
	}
	return readVersionKey(file)
}

func readVersionKey(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("reading the version key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil,
			fmt.Errorf("version key %s may be read by others (mode %#o): chmod 0600, or delete it to have a new one",
				file, info.Mode().Perm())
	}
	if info.Size() != versionKeySize {
		return nil, fmt.Errorf("version key %s has %d bytes, not %d: delete it to have a new one", file, info.Size(),
			versionKeySize)
	}
	key, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the version key: %w", err)
	}
	return key, nil
}

// makeVersionKey puts a whole file in place or, if another process has been
// quicker, leaves that one's. Unlike a rename, a link never replaces.
func makeVersionKey(file string) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(dir, ".version-key-") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	key := make([]byte, versionKeySize)
	rand.Read(key) // never fails
	_, err = temporary.Write(key)
	if err := errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return err
	}
	if err := os.Link(temporary.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

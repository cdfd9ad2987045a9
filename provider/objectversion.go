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

// objectVersion returns the version of a file. The driver, and tools that restart pods, compare versions to see whether
// the file has changed. It is a hash of path and content with a key that does not leave the node: without a key, the
// content could be guessed, and a hash of the ciphertext would change with every rewrap. Namespace and Secret are
// included, so that equal content elsewhere on the node has another version: otherwise a user could guess a value until
// the version equals that of another pod's file. The length of each part is hashed too, so that different lists of
// parts are different bytes.
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

// VersionKey returns the key in the file. If the file does not exist, it creates it with random bytes, readable only by
// its owner; concurrent processes get the same key. It returns an error for a file of another length, or one that
// others may read, and does not change it: with another key, every object version on the node would change.
func VersionKey(file string) ([]byte, error) {
	key, err := readVersionKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createVersionKey(file); err != nil {
		return nil, fmt.Errorf("creating the version key: %w", err)
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
			fmt.Errorf("version key %s can be read by others (mode %#o): run chmod 0600, or delete it to get a new one",
				file, info.Mode().Perm())
	}
	if info.Size() != versionKeySize {
		return nil, fmt.Errorf("version key %s has %d bytes, not %d: delete it to get a new one", file, info.Size(),
			versionKeySize)
	}
	key, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the version key: %w", err)
	}
	return key, nil
}

// createVersionKey creates the complete file at once, unless another process has created it. Unlike a rename, a link
// never replaces a file.
func createVersionKey(file string) error {
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

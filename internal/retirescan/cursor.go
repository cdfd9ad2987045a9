package retirescan

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// Cursor is where the budget of a namespace was exhausted. It takes at most 150 bytes as JSON.
type Cursor struct {
	ResourceVersion uint64 `json:"rv"`     // of the cluster when the scan began
	Secret          string `json:"secret"` // all Secrets before it have been tried
	Offset          int    `json:"offset"` // texts of the Secret that have been tried
	// Keys is a digest of the keys and versions with which the texts were tried.
	Keys string `json:"keys"`
	// Found are the keys that decrypt texts before the cursor, or about which Vault gave no evidence.
	Found uint64 `json:"found,omitempty"`
}

// maxCursorName bounds the name in a Cursor. The Secrets that share the beginning of a longer one are tried
// again.
const maxCursorName = 48

func newCursor(resourceVersion, secret string, offset int, keys string) Cursor {
	version, _ := parseVersion(resourceVersion) // 0 is not valid
	if len(secret) > maxCursorName {
		secret, offset = secret[:maxCursorName], 0
	}
	return Cursor{ResourceVersion: version, Secret: secret, Offset: offset, Keys: keys}
}

// valid reports whether a scan can continue from the cursor. It cannot if the cluster was restored from a
// backup, or if the texts were tried with other keys.
func (c Cursor) valid(resourceVersion, keys string) bool {
	version, ok := parseVersion(resourceVersion)
	return ok && c.ResourceVersion > 0 && version >= c.ResourceVersion && c.Keys == keys && c.Secret != ""
}

// parseVersion parses a resource version, which is a number since Kubernetes 1.35, and was before.
func parseVersion(s string) (uint64, bool) {
	version, err := strconv.ParseUint(s, 10, 64)
	return version, err == nil && version > 0
}

// digestKeys returns a digest of sorted keys.
func digestKeys(keys []Key) string {
	h := sha256.New()
	for _, k := range keys {
		fmt.Fprintf(h, "%q %q %d %d %t %q\n", k.Mount, k.Name, k.From, k.To, k.Derived, k.Namespaces)
	}
	return hex.EncodeToString(h.Sum(nil)[:4])
}

func compareKeys(a, b ciphertext.Key) int {
	return cmp.Or(cmp.Compare(a.Mount, b.Mount), cmp.Compare(a.Name, b.Name))
}

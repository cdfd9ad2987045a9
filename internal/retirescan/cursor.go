package retirescan

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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

// maxCursor bounds a Cursor in JSON, which is stored in a ConfigMap for each namespace.
const maxCursor = 150

// fit returns a cursor that is short enough. If the name is too long, the Secrets that share its beginning
// are tried again.
func (c Cursor) fit() Cursor {
	text, err := json.Marshal(c)
	if tooLong := len(text) - maxCursor; err == nil && tooLong > 0 {
		c.Secret, c.Offset = c.Secret[:max(len(c.Secret)-tooLong, 0)], 0
	}
	return c
}

// valid reports whether a scan can continue from the cursor. It cannot if the cluster was restored from a
// backup, or if the texts were tried with other keys.
func (c Cursor) valid(resourceVersion, keys string) bool {
	version, ok := parseVersion(resourceVersion)
	return ok && version >= c.ResourceVersion && c.Keys == keys
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

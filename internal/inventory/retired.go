package inventory

import (
	"cmp"
	"slices"
)

// Retirement is what status --if-retired shows. Its JSON is a promise, as that
// of statusRow is.
type Retirement struct {
	Keys []*RetiredKey `json:"keys"`
	// Broken are Secrets of which something does not open as it is, or that do not
	// say what their key is: what would become of them cannot be told.
	Broken []*Secret `json:"broken"`
}

// RetiredKey is a key as it would be if its versions but the newest were retired.
type RetiredKey struct {
	Mount         string         `json:"mount"`
	Name          string         `json:"name"`
	MinDecryption int            `json:"minDecryptionVersion,omitempty"`
	Latest        int            `json:"latestVersion,omitempty"` // left out if Vault did not tell
	Secrets       int            `json:"secrets"`
	Entries       int            `json:"entries"`
	WouldBreak    []RetiredEntry `json:"wouldBreak"`
}

type RetiredEntry struct {
	Namespace string `json:"namespace"`
	Secret    string `json:"secret"`
	Entry     string `json:"entry"`
	Version   int    `json:"version"`
	ManagedBy string `json:"managedBy,omitempty"`
}

// Retire finds what would break if a version and all older ones were retired; 0
// stands for the one before the newest of each key.
func Retire(rows []*Secret, version int) Retirement {
	r := Retirement{Keys: []*RetiredKey{}, Broken: []*Secret{}}
	keys := map[[2]string]*RetiredKey{}
	for _, row := range rows {
		if row.State == Broken {
			r.Broken = append(r.Broken, row)
		}
		if row.Key == "" {
			continue
		}
		id := [2]string{row.Mount, row.Key}
		k := keys[id]
		if k == nil {
			k = &RetiredKey{Mount: row.Mount, Name: row.Key, MinDecryption: row.MinDecryption, Latest: row.Latest, WouldBreak: []RetiredEntry{}}
			keys[id] = k
			r.Keys = append(r.Keys, k)
		}
		k.Secrets, k.Entries = k.Secrets+1, k.Entries+len(row.Entries)
		for _, e := range row.Entries {
			// What is retired already, or no ciphertext, is broken as it is.
			if e.Problem == "" && e.Version < row.Latest && (version == 0 || e.Version <= version) {
				k.WouldBreak = append(k.WouldBreak, RetiredEntry{row.Namespace, row.Name, e.Name, e.Version, row.ManagedBy})
			}
		}
	}
	slices.SortFunc(r.Keys, func(a, b *RetiredKey) int {
		return cmp.Or(cmp.Compare(a.Mount, b.Mount), cmp.Compare(a.Name, b.Name))
	})
	return r
}

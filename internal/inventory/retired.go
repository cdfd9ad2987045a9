package inventory

import (
	"cmp"
	"slices"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// Retirement is what would break if key versions were retired. Its JSON is stable, as that of
// Secret.
type Retirement struct {
	Keys []*RetiredKey `json:"keys"`
	// Broken are Secrets that are broken already, or whose key is unknown: the effect on them is
	// unknown.
	Broken []*Secret `json:"broken"`
}

// RetiredKey is a key whose versions would be retired.
type RetiredKey struct {
	Mount         string         `json:"mount"`
	Name          string         `json:"name"`
	MinDecryption int            `json:"minDecryptionVersion,omitempty"`
	Latest        int            `json:"latestVersion,omitempty"` // omitted if unknown
	Target        int            `json:"targetVersion,omitempty"`
	Secrets       int            `json:"secrets"`
	Entries       int            `json:"entries"`
	WouldBreak    []RetiredEntry `json:"wouldBreak"`
}

// RetiredEntry is an entry that would break.
type RetiredEntry struct {
	Namespace string `json:"namespace"`
	Secret    string `json:"secret"`
	Entry     string `json:"entry"`
	Version   int    `json:"version"`
	ManagedBy string `json:"managedBy,omitempty"`
}

// Retire returns what would break if a version and all older ones were retired. 0 is the version
// before the target of each key. The newest version of a key cannot be retired.
func Retire(secrets []*Secret, version int) (Retirement, error) {
	r := Retirement{Keys: []*RetiredKey{}, Broken: []*Secret{}}
	keys := map[ciphertext.Key]*RetiredKey{}
	for _, s := range secrets {
		if s.Latest > 0 && version >= s.Latest {
			return r, display.Errorf("version %d of %s/%s cannot be retired: the newest version is %d, which is always kept",
				version, s.Mount, s.Key, s.Latest)
		}
		if s.State == Broken {
			r.Broken = append(r.Broken, s)
		}
		if s.Key == "" {
			continue
		}
		k := keys[s.TransitKey()]
		if k == nil {
			k = &RetiredKey{
				Mount: s.Mount, Name: s.Key, MinDecryption: s.MinDecryption, Latest: s.Latest, Target: s.Target,
				WouldBreak: []RetiredEntry{},
			}
			keys[s.TransitKey()] = k
			r.Keys = append(r.Keys, k)
		}
		k.Secrets, k.Entries = k.Secrets+1, k.Entries+len(s.Entries)
		for _, e := range s.Entries {
			// An entry with a problem is broken already.
			if e.Problem == "" && (e.Version <= version || version == 0 && e.Version < s.Target) {
				k.WouldBreak = append(k.WouldBreak, RetiredEntry{s.Namespace, s.Name, e.Name, e.Version, s.ManagedBy})
			}
		}
	}
	slices.SortFunc(r.Keys, func(a, b *RetiredKey) int {
		return cmp.Or(cmp.Compare(a.Mount, b.Mount), cmp.Compare(a.Name, b.Name))
	})
	return r, nil
}

// Count returns how many entries would break, and how many keys are unknown.
func (r *Retirement) Count() (entries, unknownKeys int) {
	for _, k := range r.Keys {
		entries += len(k.WouldBreak)
		if k.Latest == 0 {
			unknownKeys++
		}
	}
	return entries, unknownKeys
}

package inventory

import (
	"cmp"
	"slices"
)

// KeyTotal is what the Secrets of a key are together. Its JSON is a promise, as
// that of statusRow is.
type KeyTotal struct {
	Mount         string      `json:"mount"`
	Name          string      `json:"name"`
	Latest        int         `json:"latestVersion,omitempty"`
	MinDecryption int         `json:"minDecryptionVersion,omitempty"`
	Secrets       int         `json:"secrets"`
	Entries       int         `json:"entries"`
	Current       int         `json:"current"` // Secrets in that state, here and below
	Behind        int         `json:"behind"`
	Broken        int         `json:"broken"`
	Unknown       int         `json:"unknown"`
	Versions      map[int]int `json:"versions"` // entries by the version that they are of
}

// Totals are by mount and name. A Secret that names no key is in none of them.
func Totals(rows []*Secret) []*KeyTotal {
	all := []*KeyTotal{}
	for _, key := range KeysOf(rows) {
		all = append(all, &KeyTotal{Mount: key.Mount, Name: key.Name, Versions: map[int]int{}})
	}
	slices.SortFunc(all, func(a, b *KeyTotal) int {
		return cmp.Or(cmp.Compare(a.Mount, b.Mount), cmp.Compare(a.Name, b.Name))
	})
	byKey := map[[2]string]*KeyTotal{}
	for _, t := range all {
		byKey[[2]string{t.Mount, t.Name}] = t
	}
	for _, r := range rows {
		t := byKey[[2]string{r.Mount, r.Key}]
		if t == nil {
			continue
		}
		t.Latest, t.MinDecryption = r.Latest, r.MinDecryption
		t.Secrets, t.Entries = t.Secrets+1, t.Entries+len(r.Entries)
		*map[State]*int{Current: &t.Current, Behind: &t.Behind, Broken: &t.Broken, Unknown: &t.Unknown}[r.State]++
		for _, e := range r.Entries {
			if e.Version > 0 {
				t.Versions[e.Version]++
			}
		}
	}
	return all
}

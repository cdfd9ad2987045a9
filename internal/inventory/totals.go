package inventory

import (
	"cmp"
	"slices"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// KeyTotal sums up the Secrets of a key. Its JSON is stable, as that of Secret.
type KeyTotal struct {
	Mount         string      `json:"mount"`
	Name          string      `json:"name"`
	Latest        int         `json:"latestVersion,omitempty"`
	Target        int         `json:"targetVersion,omitempty"`
	MinDecryption int         `json:"minDecryptionVersion,omitempty"`
	Unsettled     *time.Time  `json:"unsettled,omitempty"` // until then, backups of Vault may lack the target version
	Secrets       int         `json:"secrets"`
	Entries       int         `json:"entries"`
	Current       int         `json:"current"` // Secrets in that state, here and below
	Behind        int         `json:"behind"`
	Broken        int         `json:"broken"`
	Unknown       int         `json:"unknown"`
	Versions      map[int]int `json:"versions"` // number of entries by version
	// LastRun is nil if it is not known. Totals does not set it.
	LastRun *LastRun `json:"lastRun,omitempty"`
}

// LastRun is what the rotator's last run that processed a key reported. Its JSON is stable.
type LastRun struct {
	Finished   time.Time  `json:"finished"`
	Error      string     `json:"error,omitempty"`      // why the run did not complete the key
	Unresolved int        `json:"unresolved"`           // entries that the run could not bring to the target
	NotCovered int        `json:"notCovered,omitempty"` // entries above the target, which older backups do not have
	CleanSince *time.Time `json:"cleanSince,omitempty"` // since then, no entry has needed the oldest version that decrypts
	RetiredTo  int        `json:"retiredTo,omitempty"`  // the oldest version that decrypts, if the run retired others
	Retirement string     `json:"retirement,omitempty"` // why the run did or did not retire a version
}

// Totals returns the totals by mount and name. They leave out Secrets without a valid key.
func Totals(secrets []*Secret) []*KeyTotal {
	all := []*KeyTotal{}
	for _, key := range KeysOf(secrets) {
		all = append(all, &KeyTotal{Mount: key.Mount, Name: key.Name, Versions: map[int]int{}})
	}
	slices.SortFunc(all, func(a, b *KeyTotal) int {
		return cmp.Or(cmp.Compare(a.Mount, b.Mount), cmp.Compare(a.Name, b.Name))
	})
	byKey := map[ciphertext.Key]*KeyTotal{}
	for _, t := range all {
		byKey[ciphertext.Key{Mount: t.Mount, Name: t.Name}] = t
	}
	for _, s := range secrets {
		t := byKey[s.TransitKey()]
		if t == nil {
			continue
		}
		t.Latest, t.Target, t.MinDecryption, t.Unsettled = s.Latest, s.Target, s.MinDecryption, s.Unsettled
		t.Secrets, t.Entries = t.Secrets+1, t.Entries+len(s.Entries)
		*map[State]*int{Current: &t.Current, Behind: &t.Behind, Broken: &t.Broken, Unknown: &t.Unknown}[s.State]++
		for _, e := range s.Entries {
			if e.Version > 0 {
				t.Versions[e.Version]++
			}
		}
	}
	return all
}

// State returns the worst state of the Secrets of the key.
func (t *KeyTotal) State() State {
	switch {
	case t.Broken > 0:
		return Broken
	case t.Unknown > 0:
		return Unknown
	case t.Behind > 0:
		return Behind
	}
	return Current
}

// Package retirescan finds the texts in Secrets that still decrypt with key versions that are to be
// retired. It trusts no label: Vault decides, by rewrapping each text at each location that it may belong
// to.
//
// A version may be retired only if [Result.MayRetire] says so after a scan of all Secrets of the cluster.
// A text that decrypts blocks its key, whatever the metadata of its Secret says. A text that does not
// decrypt blocks nothing, so nobody who can create Secrets can delay a retirement with garbage.
//
// Each request has a text that decrypted before, if there is one: without it, a server with other keys of
// the same names would seem to prove that nothing decrypts.
//
// An attempt at a text costs little, and the attempts in each namespace are bounded. A namespace that has
// more texts delays only the keys that are usable in it, and the next run continues there.
package retirescan

import (
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/ciphertextscan"
	"github.com/secretmanager-io/secretmanager/transit"
)

// DefaultBudget is how many attempts a run makes for the texts of one namespace.
const DefaultBudget = 100_000

// maxItems bounds the locations that a Result names. Everything is counted.
const maxItems = 1000

// Key is a key whose versions in [From, To) are to be retired.
type Key struct {
	ciphertext.Key
	From, To   int
	Latest     int // newest version; 0 if it is not known
	Derived    bool
	Namespaces []string // in which the key is usable; empty: in all
}

// usable reports whether the key is usable in a namespace.
func (k Key) usable(namespace string) bool {
	return len(k.Namespaces) == 0 || slices.Contains(k.Namespaces, namespace)
}

// bound reports whether the key is usable in the namespace and not in all.
func (k Key) bound(namespace string) bool { return len(k.Namespaces) > 0 && k.usable(namespace) }

// eligible reports whether the version is to be retired.
func (k Key) eligible(version int) bool { return k.From <= version && version < k.To }

// Found is a text of a version that is to be retired. It does not have the text itself.
type Found struct {
	Key        ciphertext.Key // that decrypts the text; zero if none does
	Version    int
	Namespace  string
	Secret     string
	Entry      string // or
	Annotation string
	InRelease  bool // in the manifests of a Helm release
	Labeled    bool // a whole entry of a Secret whose label and mount name the Key
}

// Finding counts texts and has the first 1,000 of them.
type Finding struct {
	Count int
	Items []Found
}

func (f *Finding) add(x Found) {
	f.Count++
	if len(f.Items) < maxItems {
		f.Items = append(f.Items, x)
	}
}

// Unsearched is a Secret that could not be searched completely.
type Unsearched struct {
	Namespace, Secret string
	Reason            string // without any value of the Secret
}

// Result is the outcome of a scan. After a scan that was resumed, counts are those of this run.
type Result struct {
	// InUse has the texts that decrypt.
	InUse map[ciphertext.Key]Finding
	// Undecryptable has the texts that decrypt with none of the keys. They block nothing.
	Undecryptable Finding
	// OlderReleases has the texts that decrypt in Helm revisions to which no rollback goes by default: older
	// than the deployed one and the one before. They block nothing.
	OlderReleases Finding
	// Released has the texts that decrypt in Secrets that the operator releases. They block nothing.
	Released Finding
	// NotSearched has the first 1,000 Secrets that could not be searched completely.
	NotSearched []Unsearched
	// Unfinished has the namespaces with more attempts than the budget, for Scanner.Resume of the next run.
	Unfinished map[string]Cursor
	// Delayed has the keys that must wait for a later run, and the first 1,000 namespaces for which: those
	// that are unfinished, those with Secrets that could not be searched, and those of which an earlier run
	// searched a part and found the key in use.
	Delayed map[ciphertext.Key][]string
	// Errors has the keys about which Vault gave no evidence.
	Errors map[ciphertext.Key]error
	// Verified counts the entries of Secrets labeled with a key that decrypt at their location, at any
	// version.
	Verified map[ciphertext.Key]int
	Attempts int // without those for Verified

	tried []ciphertext.Key // all keys, if the scan is complete
}

// MayRetire reports whether the scan has shown that no text needs the versions of the key.
func (r Result) MayRetire(k ciphertext.Key) bool {
	return slices.Contains(r.tried, k) && r.InUse[k].Count == 0 && len(r.Delayed[k]) == 0 && r.Errors[k] == nil
}

// Scanner scans Secrets. Set its exported fields before the first call. It is not safe for concurrent use.
type Scanner struct {
	Vault  transit.Rewrapper
	Keys   []Key
	Budget int // attempts in each namespace; 0: DefaultBudget
	// ResourceVersion is the resourceVersion of a list of Secrets, requested before the scan. The limit of
	// that list may be 1. Without it, the next run cannot resume.
	ResourceVersion string
	Resume          map[string]Cursor // Result.Unfinished of the last run
	// LagFor bounds how long the scan waits, in all, for servers that lack a version that the key has, to count
	// the entries that decrypt; 0: not at all.
	LagFor time.Duration
	// Released reports whether the operator accepts that the texts of a Secret do not decrypt any more. If it
	// is nil, no Secret is released.
	Released func(namespace, name string) bool

	ready      bool
	index      map[ciphertext.Key]int // of Keys
	keysDigest string
	result     Result
	current    *namespace
	open       []*namespace // with texts or findings that are not settled
	wave       []*text
	verify     map[int][]transit.Item // by key
	known      map[int]transit.Item   // a text of each key that decrypts: a wrong server does not decrypt it
	waiting    int                    // bytes in wave and verify
	tried      map[digest]bool        // whether a text decrypted
	err        error
}

// prepare runs once, before the first Secret.
func (s *Scanner) prepare() {
	if s.ready {
		return
	}
	s.ready = true
	if s.Budget == 0 {
		s.Budget = DefaultBudget
	}
	s.Keys = slices.Clone(s.Keys)
	slices.SortFunc(s.Keys, func(a, b Key) int { return compareKeys(a.Key, b.Key) })
	s.index = map[ciphertext.Key]int{}
	for i, k := range s.Keys {
		s.index[k.Key] = i
	}
	s.keysDigest = digestKeys(s.Keys)
	s.tried, s.verify, s.known = map[digest]bool{}, map[int][]transit.Item{}, map[int]transit.Item{}
	s.result = Result{InUse: map[ciphertext.Key]Finding{}, Unfinished: map[string]Cursor{},
		Delayed: map[ciphertext.Key][]string{}, Errors: map[ciphertext.Key]error{}, Verified: map[ciphertext.Key]int{}}
}

// Add searches a Secret. Call it for every Secret of the cluster, in the order of a list: by namespace and
// name. It does not keep the Secret.
func (s *Scanner) Add(ctx context.Context, secret *corev1.Secret) error {
	s.prepare()
	if s.err != nil {
		return s.err
	}
	s.enter(secret.Namespace)
	set, err := ciphertext.SettingsOf(secret)
	labeled, ok := s.index[set.Key]
	if !ok {
		labeled = -1
	}
	if err == nil && labeled >= 0 {
		s.addLabeled(ctx, secret, set, labeled)
	}
	revision := s.current.addRelease(secret)
	n := 0
	search := ciphertextscan.Search{Wanted: s.wanted, Locations: true, Releases: &s.current.releaseBytes}
	err = search.Secret(secret, func(t ciphertextscan.Text) {
		if s.err == nil {
			s.addText(ctx, s.newText(secret, labeled, revision, t), secret, n)
		}
		n++
	})
	if err != nil {
		s.notSearched(secret, err)
	}
	return s.err
}

// wanted reports whether a version of any key is to be retired.
func (s *Scanner) wanted(version int) bool {
	return slices.ContainsFunc(s.Keys, func(k Key) bool { return k.eligible(version) })
}

// addText adds a text, the n-th of its Secret, unless the budget of the namespace is exhausted.
func (s *Scanner) addText(ctx context.Context, t *text, secret *corev1.Secret, n int) {
	ns := s.current
	if ns.exhausted || ns.isTried(secret, n) {
		return
	}
	if len(t.data) > ciphertext.MaxSecretSize { // Vault refuses such a text, and no Secret can hold it
		s.result.Undecryptable.add(t.found)
		return
	}
	cost := s.cost(t)
	if ns.used+ns.reserved+cost > s.Budget && ns.reserved > 0 {
		s.flush(ctx) // often fewer attempts were made than were reserved
	}
	if ns.used+cost > s.Budget && ns.used > 0 {
		ns.exhausted = true
		ns.cursor = Cursor{Secret: secret.Name, Offset: n, Keys: s.keysDigest}
		ns.cursor.ResourceVersion, _ = parseVersion(s.ResourceVersion) // with 0, nothing is skipped
		return
	}
	ns.reserved += cost
	s.wave = append(s.wave, t)
	s.wait(ctx, t.size())
}

// addLabeled adds the entries of a Secret that is labeled with a key, to count those that decrypt.
func (s *Scanner) addLabeled(ctx context.Context, secret *corev1.Secret, set ciphertext.Settings, key int) {
	derived := s.Keys[key].Derived
	if derived && set.Scope == ciphertext.None {
		return // no such text decrypts
	}
	for _, entry := range ciphertext.Entries(secret.Data) {
		value := secret.Data[entry]
		if _, err := ciphertext.Version(value); err != nil || s.err != nil {
			continue
		}
		item := transit.Item{Data: slices.Clone(value)}
		if derived {
			item.Context = set.Scope.Context(secret.Namespace, secret.Name, entry)
		}
		s.verify[key] = append(s.verify[key], item)
		s.wait(ctx, len(item.Data)+len(item.Context)+overhead)
	}
}

func (s *Scanner) notSearched(secret *corev1.Secret, err error) {
	if len(s.result.NotSearched) < maxItems {
		s.result.NotSearched = append(s.result.NotSearched,
			Unsearched{Namespace: secret.Namespace, Secret: secret.Name, Reason: err.Error()})
	}
	s.current.damaged = true
}

// Finish ends the scan.
func (s *Scanner) Finish(ctx context.Context) (Result, error) {
	s.prepare()
	if s.err == nil {
		s.current = nil
		s.flush(ctx)
	}
	for name, cursor := range s.result.Unfinished {
		for k := range s.result.Errors {
			cursor.Found |= s.bit(s.index[k]) // what was skipped was not tried with this key
		}
		s.result.Unfinished[name] = cursor.fit()
	}
	for _, k := range slices.Collect(maps.Keys(s.result.Delayed)) {
		slices.Sort(s.result.Delayed[k])
	}
	if s.err == nil {
		for _, k := range s.Keys {
			s.result.tried = append(s.result.tried, k.Key)
		}
	}
	return s.result, s.err
}

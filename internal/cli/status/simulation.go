package status

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/schollz/progressbar/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/inventory"
	"github.com/secretmanager-io/secretmanager/internal/retirescan"
	"github.com/secretmanager-io/secretmanager/internal/secretlist"
)

// progressAfter is how long a search takes before it shows its progress.
const progressAfter = 2 * time.Second

// Simulation is what would break if key versions were retired. Its JSON is stable, as that of
// [inventory.Secret].
type Simulation struct {
	Keys    []*SimulatedKey `json:"keys"`
	Secrets int             `json:"secrets"` // that were searched, of any type
	// Undecryptable has the texts of the versions that decrypt with none of the keys. Retiring
	// changes nothing for them.
	Undecryptable Texts `json:"undecryptable"`
	// OlderReleases has the texts in Helm revisions to which no rollback goes by default. They prevent
	// no retirement.
	OlderReleases Texts         `json:"olderReleases"`
	NotSearched   []NotSearched `json:"notSearched"`
	Unfinished    []string      `json:"unfinished"` // namespaces with more texts than a run tries
}

// SimulatedKey is a key whose versions would be retired.
type SimulatedKey struct {
	Mount         string `json:"mount"`
	Name          string `json:"name"`
	MinDecryption int    `json:"minDecryptionVersion,omitempty"`
	Latest        int    `json:"latestVersion,omitempty"` // omitted if unknown
	Target        int    `json:"targetVersion,omitempty"`
	RetiredBelow  int    `json:"retiredBelow,omitempty"` // the oldest version that would stay
	Secrets       int    `json:"secrets"`
	Entries       int    `json:"entries"`
	Verified      int    `json:"verified"` // entries labeled with the key that decrypt, at any version
	WouldBreak    Texts  `json:"wouldBreak"`
	// Incomplete has the namespaces in which not every text was tried with the key.
	Incomplete []string `json:"incomplete,omitempty"`
	Error      string   `json:"error,omitempty"` // why the effect is unknown
}

// Texts counts texts and has the first 1,000 of them.
type Texts struct {
	Count int    `json:"count"`
	Items []Text `json:"items"`
}

// Text is a text of a version that would be retired, without the text itself.
type Text struct {
	Mount      string `json:"mount,omitempty"` // of the key that decrypts it
	Key        string `json:"key,omitempty"`
	Namespace  string `json:"namespace"`
	Secret     string `json:"secret"`
	Entry      string `json:"entry,omitempty"` // or
	Annotation string `json:"annotation,omitempty"`
	InRelease  bool   `json:"inHelmRelease,omitempty"`
	Labeled    bool   `json:"labeled"` // a whole entry of a Secret that names the key
	Version    int    `json:"version"`
	ManagedBy  string `json:"managedBy,omitempty"`
}

// NotSearched is a Secret that could not be searched completely.
type NotSearched struct {
	Namespace string `json:"namespace"`
	Secret    string `json:"secret"`
	Reason    string `json:"reason"`
}

func (k *SimulatedKey) key() ciphertext.Key { return ciphertext.Key{Mount: k.Mount, Name: k.Name} }

// unknown reports whether more may break than was found.
func (k *SimulatedKey) unknown() bool { return k.Error != "" || len(k.Incomplete) > 0 }

// simulate searches the Secrets of namespaces, or of all if there are none, for what would break. The keys are
// those that rows name.
func (o *Options) simulate(ctx context.Context, kube kubernetes.Interface, namespaces []string,
	rows []*inventory.Secret) error {
	vault, err := o.VaultSession()
	if err != nil {
		return err
	}
	keys := inventory.NewKeyReader(vault, o.settle.Duration, func(string) {}) // each key has its error
	keys.Read(ctx, rows)
	for _, r := range rows {
		keys.SetState(r)
	}
	s, scan, err := planSimulation(rows, keys, o.simulatedVersion())
	if err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if len(scan) > 0 {
		scanner := &retirescan.Scanner{Vault: vault, Keys: scan}
		if err := o.search(ctx, kube, namespaces, scanner, s, managersOf(rows)); err != nil {
			return err
		}
	}
	return o.showSimulation(s)
}

// planSimulation returns the keys that rows name, and those with versions to search for. 0 is the version
// before the target of each key. The newest version of a key cannot be retired.
func planSimulation(rows []*inventory.Secret, keys *inventory.KeyReader,
	version int) (*Simulation, []retirescan.Key, error) {
	s := &Simulation{Keys: []*SimulatedKey{}, NotSearched: []NotSearched{}, Unfinished: []string{},
		Undecryptable: Texts{Items: []Text{}}, OlderReleases: Texts{Items: []Text{}}}
	var scan []retirescan.Key
	for _, t := range inventory.Totals(rows) {
		k := &SimulatedKey{Mount: t.Mount, Name: t.Name, MinDecryption: t.MinDecryption, Latest: t.Latest, Target: t.Target,
			Secrets: t.Secrets, Entries: t.Entries, WouldBreak: Texts{Items: []Text{}}}
		s.Keys = append(s.Keys, k)
		info, err := keys.Info(k.key())
		switch {
		case err != nil:
			k.fail(err)
			continue
		case version >= k.Latest:
			return nil, nil, display.Errorf("version %d of %s cannot be retired: the newest version is %d, which is always kept",
				version, k.key(), k.Latest)
		}
		k.RetiredBelow = max(k.Target, k.MinDecryption)
		if version > 0 {
			k.RetiredBelow = max(version+1, k.MinDecryption)
		}
		if k.RetiredBelow > k.MinDecryption {
			scan = append(scan, retirescan.Key{Key: k.key(), From: k.MinDecryption, To: k.RetiredBelow, Latest: info.Latest,
				Derived: info.Derived})
		}
	}
	return s, scan, nil
}

// managersOf returns who else writes the Secrets.
func managersOf(rows []*inventory.Secret) map[types.NamespacedName]string {
	managers := map[types.NamespacedName]string{}
	for _, r := range rows {
		if r.ManagedBy != "" {
			managers[r.NamespacedName()] = r.ManagedBy
		}
	}
	return managers
}

// search tries every text in any Secret that has one of the versions, as the rotator does before it retires.
func (o *Options) search(ctx context.Context, kube kubernetes.Interface, namespaces []string,
	scanner *retirescan.Scanner, s *Simulation, managers map[types.NamespacedName]string) error {
	show, done := o.newProgress()
	defer done()
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	for _, namespace := range namespaces {
		err := secretlist.Lister{Kube: kube}.Each(ctx, namespace, secretlist.Selection{}, func(secret *corev1.Secret) error {
			s.Secrets++
			show(s.Secrets)
			return scanner.Add(ctx, secret)
		})
		if err != nil {
			return display.Errorf("%w", err)
		}
	}
	result, err := scanner.Finish(ctx)
	if err != nil {
		return display.Errorf("searching for old ciphertext: %w", err)
	}
	for _, k := range scanner.Keys {
		s.key(k.Key).add(result, managers)
	}
	s.add(result, managers)
	return nil
}

// newProgress returns a function that shows on a terminal how many Secrets were searched, if that takes long,
// and one that removes it.
func (o *Options) newProgress() (show func(searched int), done func()) {
	var bar *progressbar.ProgressBar
	begin := time.Now()
	show = func(searched int) {
		if bar == nil && time.Since(begin) > progressAfter {
			bar = o.NewBar("Secrets")
		}
		if bar != nil {
			bar.Set(searched)
		}
	}
	return show, func() {
		if bar != nil {
			bar.Finish()
		}
	}
}

func (s *Simulation) key(key ciphertext.Key) *SimulatedKey {
	return s.Keys[slices.IndexFunc(s.Keys, func(k *SimulatedKey) bool { return k.key() == key })]
}

func (k *SimulatedKey) fail(err error) { k.Error = display.Sprintf("%v", display.Error(err)) }

// add adds what was found of the key.
func (k *SimulatedKey) add(found retirescan.Result, managers map[types.NamespacedName]string) {
	k.WouldBreak = newTexts(found.InUse[k.key()], managers)
	k.Incomplete, k.Verified = found.Delayed[k.key()], found.Verified[k.key()]
	switch err := found.Errors[k.key()]; {
	case err != nil:
		k.fail(err)
	case k.Entries > 0 && k.Verified == 0 && k.WouldBreak.Count == 0:
		// A Vault with another key of the same name would seem to prove that nothing breaks.
		k.Error = "none of its entries decrypts: check that this is the right Vault"
	}
}

// add adds what was found that is of no key that may be retired.
func (s *Simulation) add(found retirescan.Result, managers map[types.NamespacedName]string) {
	s.Undecryptable = newTexts(found.Undecryptable, managers)
	s.OlderReleases = newTexts(found.OlderReleases, managers)
	for _, n := range found.NotSearched {
		s.NotSearched = append(s.NotSearched, NotSearched{n.Namespace, n.Secret, display.Line(n.Reason)})
	}
	s.Unfinished = append(s.Unfinished, slices.Sorted(maps.Keys(found.Unfinished))...)
}

func newTexts(f retirescan.Finding, managers map[types.NamespacedName]string) Texts {
	t := Texts{Count: f.Count, Items: []Text{}}
	for _, x := range f.Items {
		t.Items = append(t.Items, Text{Mount: x.Key.Mount, Key: x.Key.Name, Namespace: x.Namespace, Secret: x.Secret,
			Entry: x.Entry, Annotation: x.Annotation, InRelease: x.InRelease, Labeled: x.Labeled, Version: x.Version,
			ManagedBy: managers[types.NamespacedName{Namespace: x.Namespace, Name: x.Secret}]})
	}
	return t
}

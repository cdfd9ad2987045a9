package retirescan

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// round is a cluster with texts whose outcome is known from how they were placed.
type round struct {
	*rand.Rand
	encrypt    func(key ciphertext.Key, version int, context []byte) string
	keys       []Key
	foreign    ciphertext.Key // not among keys
	namespaces []string
	secrets    []*corev1.Secret
	want       expected
}

// expected is what a scan should find.
type expected struct {
	InUse         map[ciphertext.Key][]Found
	Undecryptable []Found
	OlderReleases []Found
	Verified      map[ciphertext.Key]int
}

func (g *round) pick(names ...string) string { return names[g.IntN(len(names))] }

// otherNamespace returns another namespace than the one.
func (g *round) otherNamespace(namespace string) string {
	i := slices.Index(g.namespaces, namespace)
	return g.namespaces[(i+1+g.IntN(len(g.namespaces)-1))%len(g.namespaces)]
}

// newSecret returns a Secret with a new name, which is in the round. It has the label of some key, or none.
func (g *round) newSecret(namespace string) *corev1.Secret {
	s := newSecret(namespace, fmt.Sprintf("s%d-%d", g.IntN(1000), len(g.secrets)), map[string]string{"other": "x"})
	g.secrets = append(g.secrets, s)
	switch g.IntN(6) {
	case 0:
		s.Immutable = new(true)
	case 1:
		s.DeletionTimestamp, s.Finalizers = &metav1.Time{Time: time.Unix(1e9, 0)}, []string{"example.com/wait"}
	}
	return s
}

// label gives a Secret metadata that name the key, nothing, or something wrong.
func (g *round) label(s *corev1.Secret, key ciphertext.Key, scope ciphertext.Scope) (right bool) {
	s.Type = corev1.SecretType(g.pick(string(ciphertext.Type), "Opaque"))
	s.Labels[ciphertext.LabelTransitKey] = key.Name
	s.Annotations[ciphertext.AnnotationTransitMount] = key.Mount
	s.Annotations[ciphertext.AnnotationScope] = string(scope)
	switch g.IntN(8) {
	case 0:
		delete(s.Labels, ciphertext.LabelTransitKey)
	case 1:
		s.Labels[ciphertext.LabelTransitKey] = "none"
	case 2:
		other := g.keys[g.IntN(len(g.keys))].Key
		s.Labels[ciphertext.LabelTransitKey], s.Annotations[ciphertext.AnnotationTransitMount] = other.Name, other.Mount
		return other == key
	case 3:
		s.Annotations[ciphertext.AnnotationTransitMount] = g.pick("none", "/bad/", "")
	case 4:
		s.Annotations[ciphertext.AnnotationScope] = "bad" // Labeled needs the key alone, Verified the scope
		return true
	case 5:
		s.Annotations[ciphertext.AnnotationRewrapped] = "999999"
		return true
	default:
		return true
	}
	return false
}

// inUse expects a text that decrypts.
func (g *round) inUse(key Key, f Found) {
	f.Key = key.Key
	g.want.InUse[key.Key] = append(g.want.InUse[key.Key], f)
}

// place places a text of a key at random.
func (g *round) place() {
	key := g.keys[g.IntN(len(g.keys))]
	version := key.From + g.IntN(key.To-key.From)
	namespace := g.pick(g.namespaces...)
	scope := []ciphertext.Scope{ciphertext.Strict, ciphertext.Namespace, ciphertext.Cluster}[g.IntN(3)]
	entry := g.pick("password", "tls.key", "a", "Z_9")
	kind := g.IntN(9)
	if kind == 8 {
		g.helm(key, version, scope, namespace, entry)
		return
	}
	s := g.newSecret(namespace)
	text := g.encrypt(key.Key, version, scope.Context(namespace, s.Name, entry))
	found := Found{Version: version, Namespace: namespace, Secret: s.Name, Entry: entry}
	switch kind {
	case 0, 1: // the entry itself
		s.Data[entry] = []byte(text)
		found.Labeled = g.label(s, key.Key, scope)
		if _, err := ciphertext.SettingsOf(s); err == nil && found.Labeled {
			g.want.Verified[key.Key]++
		}
	case 2:
		s.Data[entry] = []byte(g.form(text))
	case 3: // in an annotation
		s.Data[entry] = []byte("x")
		s.Annotations["example.com/copy"] = g.form(text)
		found.Entry, found.Annotation = "", "example.com/copy"
	case 4:
		s.Annotations[ciphertext.AnnotationLastApplied] = lastApplied(namespace, s.Name, entry, text)
		found.Entry, found.Annotation = "", ciphertext.AnnotationLastApplied
	case 5: // a manifest stored anywhere
		stored := g.newSecret(g.pick(g.namespaces...))
		stored.Data["backup"] = []byte(g.manifestForm(manifestOf(namespace, s.Name, entry, text)))
		found.Namespace, found.Secret, found.Entry = stored.Namespace, stored.Name, "backup"
	case 6: // a copy in another Secret of the namespace
		copied := g.newSecret(namespace)
		copied.Data[entry] = []byte(text)
		found.Secret = copied.Name
		if scope == ciphertext.Strict && key.Derived {
			g.want.Undecryptable = append(g.want.Undecryptable, found)
			return
		}
	case 7: // a copy in another namespace
		copied := g.newSecret(g.otherNamespace(namespace))
		copied.Data[entry] = []byte(text)
		found.Namespace, found.Secret = copied.Namespace, copied.Name
		if scope != ciphertext.Cluster && key.Derived {
			g.want.Undecryptable = append(g.want.Undecryptable, found)
			return
		}
	}
	g.inUse(key, found)
}

// form returns a text as a program may store it.
func (g *round) form(text string) string {
	switch g.IntN(5) {
	case 0:
		return encode(text)
	case 1:
		return "password: " + text + "\n"
	case 2:
		return encode(encode(text))
	case 3:
		return fmt.Sprintf(`{"a":%q}`, strings.ReplaceAll(text, "+", `\u002b`))
	}
	return text
}

// manifestForm returns a manifest as a program may store it.
func (g *round) manifestForm(manifest string) string {
	switch g.IntN(4) {
	case 0:
		return encode(manifest)
	case 1:
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n---\n" + manifest + "---\n"
	case 2:
		return "apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(manifest), "\n", "\n  ")
	}
	return manifest
}

// helm places a text in a revision of a release.
func (g *round) helm(key Key, version int, scope ciphertext.Scope, namespace, entry string) {
	release := fmt.Sprintf("web-%d", len(g.secrets))
	described := g.pick("", namespace)
	text := g.encrypt(key.Key, version, scope.Context(namespace, "db", entry))
	last := 1 + g.IntN(12)
	deployed := max(last-g.IntN(2), 1)
	in := 1 + g.IntN(last)
	for revision := 1; revision <= last; revision++ {
		status, content := "superseded", "kind: ConfigMap\n"
		switch {
		case revision == deployed:
			status = "deployed"
		case revision > deployed:
			status = "failed"
		}
		if revision == in {
			content += "---\n# Source: web/templates/db.yaml\n" + manifestOf(described, "db", entry, text)
		}
		g.secrets = append(g.secrets, helmSecret(namespace, release, revision, status, content))
	}
	found := Found{Key: key.Key, Version: version, Namespace: namespace, Entry: "release", InRelease: true,
		Secret: fmt.Sprintf("sh.helm.release.v1.%s.v%d", release, in)}
	if in < deployed-1 {
		g.want.OlderReleases = append(g.want.OlderReleases, found)
	} else {
		g.inUse(key, found)
	}
}

// garbage places something that decrypts with no old version.
func (g *round) garbage() {
	key := g.keys[g.IntN(len(g.keys))]
	s := g.newSecret(g.pick(g.namespaces...))
	random := make([]byte, 28+g.IntN(40))
	for i := range random {
		random[i] = byte(g.Uint32())
	}
	version := key.From + g.IntN(key.To-key.From)
	found := Found{Version: version, Namespace: s.Namespace, Secret: s.Name, Entry: "e"}
	strict := ciphertext.Strict.Context(s.Namespace, s.Name, "e")
	ignored := false
	var text string
	switch g.IntN(6) {
	case 0:
		text = fmt.Sprintf("vault:v%d:%s", version, base64.StdEncoding.EncodeToString(random))
	case 1:
		text, ignored = "vault:v999999:"+base64.StdEncoding.EncodeToString(random), true
	case 2: // too short for any text
		text, ignored = fmt.Sprintf("vault:v%d:%s", version, base64.StdEncoding.EncodeToString(random[:27])), true
	case 3:
		text = g.encrypt(key.Key, version, strict)
		text = text[:len(text)-8]
		_, err := ciphertext.Version([]byte(text))
		ignored = err != nil // too short now
	case 4:
		text = g.encrypt(g.foreign, 1, strict)
		found.Version = 1
	case 5: // a version that stays
		text, ignored = g.encrypt(key.Key, key.To, strict), true
		if found.Version = key.To; !g.label(s, key.Key, ciphertext.Strict) {
			// Whose it is, nothing says, and another key may retire its version.
			ignored = !slices.ContainsFunc(g.keys, func(k Key) bool { return k.eligible(key.To) })
		} else if _, err := ciphertext.SettingsOf(s); err == nil {
			g.want.Verified[key.Key]++
		}
	}
	s.Data["e"] = []byte(text)
	if !ignored {
		g.want.Undecryptable = append(g.want.Undecryptable, found)
	}
}

// newRound returns a round with texts and garbage. Its Secrets are in the order of a list.
func newRound(r *rand.Rand, keys []Key, namespaces []string,
	encrypt func(key ciphertext.Key, version int, context []byte) string) *round {
	g := &round{Rand: r, keys: keys, foreign: ciphertext.Key{Mount: "transit", Name: "foreign"},
		namespaces: namespaces, encrypt: encrypt,
		want: expected{InUse: map[ciphertext.Key][]Found{}, Verified: map[ciphertext.Key]int{}}}
	for range r.IntN(6) {
		g.place()
	}
	for range r.IntN(6) {
		g.garbage()
	}
	slices.SortFunc(g.secrets, func(a, b *corev1.Secret) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return g
}

// check compares a result with what was placed.
func (g *round) check(t *testing.T, r Result) {
	t.Helper()
	got := expected{InUse: map[ciphertext.Key][]Found{}, Undecryptable: r.Undecryptable.Items,
		OlderReleases: r.OlderReleases.Items, Verified: r.Verified}
	for k, f := range r.InUse {
		got.InUse[k] = f.Items
	}
	sorted := cmpopts.SortSlices(func(a, b Found) bool { return fmt.Sprint(a) < fmt.Sprint(b) })
	if diff := gocmp.Diff(g.want, got, sorted, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, k := range g.keys {
		if got, want := r.MayRetire(k.Key), len(g.want.InUse[k.Key]) == 0; got != want {
			t.Errorf("%s may be retired: %t", k.Key, got)
		}
	}
}

// generatorKeys are the keys of the rounds with a fakeVault: derived or not, bound or not, with different
// versions.
func generatorKeys() (*fakeVault, []Key) {
	v := newVault("a", "b", "foreign")
	other := ciphertext.Key{Mount: "team/transit", Name: "a"}
	v.setKey(other, 10, 3, true)
	v.setKey(transitKey("plain"), 6, 1, false)
	return v, []Key{
		{Key: transitKey("a"), From: 1, To: 4, Derived: true},
		{Key: transitKey("b"), From: 1, To: 9, Derived: true, Namespaces: []string{"ops"}},
		{Key: other, From: 3, To: 5, Derived: true, Namespaces: []string{"shop", "x-1"}},
		{Key: transitKey("plain"), From: 1, To: 5},
	}
}

var generatorNamespaces = []string{"default", "ops", "shop", "x-1"}

// TestGenerated places texts and garbage at random, and compares what the scan finds with what was placed.
func TestGenerated(t *testing.T) {
	rounds := 2_000
	if testing.Short() {
		rounds = 100
	}
	seed := rand.Uint64()
	for i := range rounds {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		v, keys := generatorKeys()
		g := newRound(r, keys, generatorNamespaces, func(k ciphertext.Key, version int, context []byte) string {
			return v.encrypt(k, version, context, []byte(strings.Repeat("x", r.IntN(30))))
		})
		g.check(t, scan(t, &Scanner{Vault: v, Keys: keys}, g.secrets...))
		if t.Failed() {
			t.Fatalf("seed %d, round %d: %s", seed, i, g.names())
		}
	}
}

// names returns the Secrets of the round, for messages.
func (g *round) names() string {
	var b bytes.Buffer
	for _, s := range g.secrets {
		fmt.Fprintf(&b, "\n%s/%s %v %v %v", s.Namespace, s.Name, s.Labels, slices.Sorted(maps.Keys(s.Data)),
			slices.Sorted(maps.Keys(s.Annotations)))
	}
	return b.String()
}

package retirescan

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/memoryvault"
	"github.com/secretmanager-io/secretmanager/transit"
)

// fakeVault is a Vault in memory: thousands of rounds need no network. The same rounds run against a real Vault
// in TestGeneratedOnServers.
type fakeVault struct {
	*memoryvault.Vault
	keys     []ciphertext.Key
	requests int
	items    int
	// change may replace the results of a request.
	change func(key ciphertext.Key, results []transit.Result) ([]transit.Result, error)
}

// setKey sets the state of a key.
func (v *fakeVault) setKey(key ciphertext.Key, latest, minDecryption int, derived bool) {
	if !slices.Contains(v.keys, key) {
		v.keys = append(v.keys, key)
	}
	v.SetKey(key, transit.KeyInfo{Latest: latest, MinDecryptionVersion: minDecryption, Derived: derived,
		Created: map[int]time.Time{}})
}

func (v *fakeVault) encrypt(key ciphertext.Key, version int, context, plaintext []byte) string {
	results, err := v.Encrypt(nowhere, key, []transit.Item{{Data: plaintext, Context: context, KeyVersion: version}})
	if err = errors.Join(err, results[0].Err); err != nil {
		panic(err)
	}
	return string(results[0].Data)
}

var nowhere = context.Background()

// Rewrap implements transit.Rewrapper.
func (v *fakeVault) Rewrap(ctx context.Context, key ciphertext.Key, items []transit.Item) ([]transit.Result, error) {
	v.requests++
	v.items += len(items)
	for _, item := range items {
		if len(item.Data) > 1<<20 {
			return nil, errors.New("the text is too long for a request")
		}
	}
	results, err := v.Vault.Rewrap(ctx, key, items)
	if err == nil && v.change != nil {
		return v.change(key, results)
	}
	return results, err
}

// encryptText returns a text with a plaintext that does not matter.
func (v *fakeVault) encryptText(key ciphertext.Key, version int, context []byte) string {
	return v.encrypt(key, version, context, []byte("plain"))
}

// newVault returns a Vault with derived keys of ten versions.
func newVault(names ...string) *fakeVault {
	v := &fakeVault{Vault: memoryvault.New()}
	for _, name := range names {
		v.setKey(transitKey(name), 10, 1, true)
	}
	return v
}

func transitKey(name string) ciphertext.Key { return ciphertext.Key{Mount: "transit", Name: name} }

// retiring returns the keys of the Vault, whose versions from 1 to 4 are to be retired.
func (v *fakeVault) retiring(namespaces map[string][]string) (keys []Key) {
	for _, k := range v.keys {
		info, _ := v.Key(nowhere, k)
		keys = append(keys, Key{Key: k, From: info.MinDecryptionVersion, To: 5, Derived: info.Derived,
			Namespaces: namespaces[k.Name]})
	}
	return keys
}

// strict returns a text of a key for an entry.
func (v *fakeVault) strict(key string, version int, namespace, name, entry string) string {
	return v.encrypt(transitKey(key), version, ciphertext.Strict.Context(namespace, name, entry), []byte("plain"))
}

// scan adds the Secrets and returns the result.
func scan(t testing.TB, s *Scanner, secrets ...*corev1.Secret) Result {
	t.Helper()
	for _, secret := range secrets {
		if err := s.Add(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
	r, err := s.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newSecret(namespace, name string, data map[string]string) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, ResourceVersion: "1",
		Labels: map[string]string{}, Annotations: map[string]string{}}, Data: map[string][]byte{}}
	for entry, value := range data {
		s.Data[entry] = []byte(value)
	}
	return s
}

func labeled(s *corev1.Secret, key string) *corev1.Secret {
	s.Type = ciphertext.Type
	s.Labels[ciphertext.LabelTransitKey] = key
	return s
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func quote(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// helmSecret returns a Secret in which Helm stores a revision.
func helmSecret(namespace, release string, revision int, status, manifest string) *corev1.Secret {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	fmt.Fprintf(w, `{"name":%q,"info":{"status":%q},"manifest":%s,"version":%d,"namespace":%q}`, release, status,
		quote(manifest), revision, namespace)
	w.Close()
	s := newSecret(namespace, fmt.Sprintf("sh.helm.release.v1.%s.v%d", release, revision),
		map[string]string{"release": encode(b.String())})
	s.Type = "helm.sh/release.v1"
	s.Labels = map[string]string{"owner": "helm", "name": release, "status": status, "version": fmt.Sprint(revision)}
	return s
}

// manifestOf returns the manifest of a Secret with one entry.
func manifestOf(namespace, name, entry, text string) string {
	at := "  name: " + name + "\n"
	if namespace != "" {
		at += "  namespace: " + namespace + "\n"
	}
	return strings.Join([]string{"apiVersion: v1", "kind: Secret", "metadata:\n" + at + "data:",
		"  " + entry + ": " + encode(text), ""}, "\n")
}

// lastApplied returns the copy of kubectl apply.
func lastApplied(namespace, name, entry, text string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","data":{%q:%q},"kind":"Secret","metadata":{"name":%q,"namespace":%q}}`,
		entry, encode(text), name, namespace)
}

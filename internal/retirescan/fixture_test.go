package retirescan

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// fakeVault encrypts and rewraps as Vault does, without a server: thousands of rounds need no network. The
// same rounds run against a real Vault in TestRealServers.
type fakeVault struct {
	keys     map[ciphertext.Key]*fakeKey
	requests int
	items    int
	// change may replace the results of a request.
	change func(key ciphertext.Key, results []transit.Result) ([]transit.Result, error)
}

type fakeKey struct {
	latest, minDecryption int
	derived               bool
}

func (v *fakeVault) aead(key ciphertext.Key, version int, context []byte) cipher.AEAD {
	h := hmac.New(sha256.New, fmt.Appendf(nil, "%s %d", key, version))
	h.Write(context)
	block, err := aes.NewCipher(h.Sum(nil))
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (v *fakeVault) encrypt(key ciphertext.Key, version int, context, plaintext []byte) string {
	if !v.keys[key].derived {
		context = nil
	}
	aead := v.aead(key, version, context)
	nonce := make([]byte, aead.NonceSize())
	_, _ = crand.Read(nonce)
	return fmt.Sprintf("vault:v%d:%s", version,
		base64.StdEncoding.EncodeToString(aead.Seal(nonce, nonce, plaintext, nil)))
}

// Rewrap implements transit.Rewrapper.
func (v *fakeVault) Rewrap(ctx context.Context, key ciphertext.Key, items []transit.Item) ([]transit.Result, error) {
	v.requests++
	v.items += len(items)
	k := v.keys[key]
	if k == nil {
		return nil, fmt.Errorf("rewrapping with %s: %w", key, transit.ErrNotFound)
	}
	results := make([]transit.Result, len(items))
	for i, item := range items {
		if (item.Context == nil) != (items[0].Context == nil) {
			return nil, errors.New("some items have a context and some have none")
		}
		results[i] = v.rewrap(key, k, item)
	}
	if v.change != nil {
		return v.change(key, results)
	}
	return results, ctx.Err()
}

func (v *fakeVault) rewrap(key ciphertext.Key, k *fakeKey, item transit.Item) transit.Result {
	fail := func(err error) transit.Result { return transit.Result{Err: fmt.Errorf("item: %w", err)} }
	version, err := ciphertext.Version(item.Data)
	switch {
	case err != nil:
		return fail(err)
	case len(item.Data) > 1<<20:
		return fail(errors.New("the text is too long for a request"))
	case version > k.latest:
		return fail(transit.ErrTooNew)
	case version < k.minDecryption:
		return fail(transit.ErrTooOld)
	case k.derived && len(item.Context) == 0:
		return fail(errors.New("missing 'context' for key derivation"))
	}
	content, err := base64.StdEncoding.DecodeString(string(item.Data[bytes.LastIndexByte(item.Data, ':')+1:]))
	if err != nil {
		return fail(err)
	}
	itemContext := item.Context
	if !k.derived {
		itemContext = nil
	}
	plain, err := v.aead(key, version, itemContext).Open(nil, content[:12], content[12:], nil)
	if err != nil {
		return fail(transit.ErrMismatch)
	}
	return transit.Result{Data: []byte(v.encrypt(key, k.latest, item.Context, plain))}
}

// encryptText returns a text with a plaintext that does not matter.
func (v *fakeVault) encryptText(key ciphertext.Key, version int, context []byte) string {
	return v.encrypt(key, version, context, []byte("plain"))
}

// newVault returns a Vault with derived keys of ten versions.
func newVault(names ...string) *fakeVault {
	v := &fakeVault{keys: map[ciphertext.Key]*fakeKey{}}
	for _, name := range names {
		v.keys[transitKey(name)] = &fakeKey{latest: 10, minDecryption: 1, derived: true}
	}
	return v
}

func transitKey(name string) ciphertext.Key { return ciphertext.Key{Mount: "transit", Name: name} }

// retiring returns the keys of the Vault, whose versions from 1 to 4 are to be retired.
func (v *fakeVault) retiring(namespaces map[string][]string) (keys []Key) {
	for k, info := range v.keys {
		keys = append(keys, Key{Key: k, From: info.minDecryption, To: 5, Derived: info.derived,
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

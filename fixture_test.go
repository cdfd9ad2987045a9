package secretmanager_test

import (
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// env is a fixture with a client of this package.
type env struct {
	*fixture.Fixture
	lib *secretmanager.Client // with all rights
}

func newEnv(t *testing.T) *env {
	t.Helper()
	f := fixture.New(t)
	return &env{f, secretmanager.New(f.Root, f.Kube)}
}

// author is the policy that the package documentation requires of an author.
const author = `
	path "transit/keys/KEY"    { capabilities = ["read"] }
	path "transit/encrypt/KEY" { capabilities = ["update"] }
	path "transit/rewrap/KEY"  { capabilities = ["update"] }`

// clientBefore returns a clientset that calls before with the number of earlier writes,
// before each request that writes.
func (e *env) clientBefore(before func(n int)) kubernetes.Interface {
	e.T.Helper()
	n := 0
	return e.Client(func(next http.RoundTripper) http.RoundTripper {
		return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodGet {
				before(n)
				n++
			}
			return next.RoundTrip(r)
		})
	})
}

func (e *env) settings() ciphertext.Settings {
	return ciphertext.Settings{Key: ciphertext.Key{Name: e.Key}}
}

// spec returns a valid Spec.
func (e *env) spec(name string, entries map[string]string) secretmanager.Spec {
	return secretmanager.Spec{Namespace: e.Namespace, Name: name, Settings: e.settings(),
		Entries: bytesOf(entries), Settle: -1}
}

func bytesOf(texts map[string]string) map[string][]byte {
	data := map[string][]byte{}
	for name, text := range texts {
		data[name] = []byte(text)
	}
	return data
}

// encrypt returns the encrypted Secret of a spec.
func (e *env) encrypt(spec secretmanager.Spec) *corev1.Secret {
	e.T.Helper()
	s, err := secretmanager.Encrypt(e.T.Context(), e.Root, spec)
	if err != nil {
		e.T.Fatal(err)
	}
	return s
}

// get reads a Secret of the namespace.
func (e *env) get(name string) *corev1.Secret {
	e.T.Helper()
	return e.GetSecret(e.Namespace, name)
}

// read decrypts a Secret of the namespace.
func (e *env) read(name string, entries ...string) map[string]string {
	e.T.Helper()
	data, err := e.lib.Read(e.T.Context(), e.Namespace, name, entries...)
	if err != nil {
		e.T.Fatal(err)
	}
	texts := map[string]string{}
	for entry, text := range data {
		texts[entry] = string(text)
	}
	return texts
}

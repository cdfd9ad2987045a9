package secretmanager_test

import (
	"crypto/rand"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// world is a namespace and transit keys of a test's own in a real cluster and a
// real Vault.
type world struct {
	t     *testing.T
	vault *testenv.Vault
	api   *testenv.APIServer
	root  *transit.Session // may do everything
	kube  kubernetes.Interface
	lib   *secretmanager.Client
	ns    string
	key   string // derived
}

func newWorld(t *testing.T) *world {
	t.Helper()
	id := strings.ToLower(rand.Text()[:10])
	w := &world{t: t, vault: testenv.SharedVault(t), api: testenv.SharedAPIServer(t), ns: "ns-" + id, key: "key-" + id}
	w.root = session(t, w.vault.Address, w.vault.RootToken)
	w.kube = w.client(nil)
	w.lib = secretmanager.New(w.root, w.kube)
	w.api.CreateNamespace(t, w.ns)
	if err := w.api.CreateRotatorState(t.Context(), w.ns); err != nil {
		t.Fatal(err)
	}
	w.write("transit/keys/"+w.key, map[string]any{"derived": true})
	return w
}

func session(t *testing.T, address, token string) *transit.Session {
	t.Helper()
	client, err := transit.NewClient(transit.Config{Address: address, RetryFor: -1})
	if err != nil {
		t.Fatal(err)
	}
	return client.Session("", transit.StaticToken(token))
}

// as is a session whose token has just this policy.
func (w *world) as(hcl string) *transit.Session {
	w.t.Helper()
	return session(w.t, w.vault.Address, w.token(hcl))
}

func (w *world) token(hcl string) string {
	w.t.Helper()
	name := "test-" + strings.ToLower(rand.Text())
	w.write("sys/policies/acl/"+name, map[string]any{"policy": strings.ReplaceAll(hcl, "KEY", w.key)})
	answer, err := w.vault.Do(w.t.Context(), http.MethodPost, "auth/token/create", w.vault.RootToken,
		map[string]any{"policies": []string{name}, "no_default_policy": true})
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.Auth.ClientToken
}

// What the package documentation says that an author needs.
const author = `
	path "transit/keys/KEY"    { capabilities = ["read"] }
	path "transit/encrypt/KEY" { capabilities = ["update"] }
	path "transit/rewrap/KEY"  { capabilities = ["update"] }`

// client returns an administrator's clientset. Before each request that writes,
// before is called with how many there were already.
func (w *world) client(before func(n int)) kubernetes.Interface {
	w.t.Helper()
	config := rest.CopyConfig(w.api.Config)
	if n := 0; before != nil {
		config.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTrip(func(r *http.Request) (*http.Response, error) {
				if r.Method != http.MethodGet {
					before(n)
					n++
				}
				return next.RoundTrip(r)
			})
		})
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		w.t.Fatal(err)
	}
	return kube
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (w *world) write(path string, data map[string]any) {
	w.t.Helper()
	if _, err := w.vault.Write(w.t.Context(), path, data); err != nil {
		w.t.Fatal(err)
	}
}

// spec is a Spec that is fine.
func (w *world) spec(name string, entries map[string]string) secretmanager.Spec {
	s := secretmanager.Spec{Namespace: w.ns, Name: name,
		Settings: ciphertext.Settings{Key: ciphertext.Key{Name: w.key}}, Entries: map[string][]byte{}}
	for entry, text := range entries {
		s.Entries[entry] = []byte(text)
	}
	return s
}

func (w *world) seal(spec secretmanager.Spec) *corev1.Secret {
	w.t.Helper()
	s, err := secretmanager.Encrypt(w.t.Context(), w.root, spec)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) store(s *corev1.Secret) *corev1.Secret {
	w.t.Helper()
	s, err := w.kube.CoreV1().Secrets(s.Namespace).Create(w.t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) get(name string) *corev1.Secret {
	w.t.Helper()
	s, err := w.kube.CoreV1().Secrets(w.ns).Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) read(name string, entries ...string) map[string]string {
	w.t.Helper()
	data, err := w.lib.Read(w.t.Context(), w.ns, name, entries...)
	if err != nil {
		w.t.Fatal(err)
	}
	texts := map[string]string{}
	for entry, text := range data {
		texts[entry] = string(text)
	}
	return texts
}

// says reports every text that is not in the error.
func says(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in: %v", text, err)
		}
	}
}

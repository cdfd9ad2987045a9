package rotator_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/relay"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(victimVariable); text != "" {
		runVictim(text)
		return
	}
	testenv.Main(m)
}

// world is a namespace and a transit key of a test's own in a real cluster and
// a real Vault.
type world struct {
	t     *testing.T
	vault *testenv.Vault
	api   *testenv.APIServer
	root  *transit.Session // may do everything
	kube  kubernetes.Interface
	ns    string // exists
	key   string // derived
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, vault: testenv.SharedVault(t), api: testenv.SharedAPIServer(t)}
	id := strings.ToLower(rand.Text()[:10])
	w.ns, w.key = "ns-"+id, "key-"+id
	w.root = w.session(w.vault.Address, w.vault.RootToken)
	w.kube = w.client(nil)
	for _, namespace := range []string{w.ns, rotator.DefaultStateNamespace} {
		w.installed(namespace)
	}
	w.newKey(w.key, true)
	return w
}

func (w *world) session(address, token string) *transit.Session {
	w.t.Helper()
	client, err := transit.NewClient(transit.Config{Address: address, RetryFor: -1})
	if err != nil {
		w.t.Fatal(err)
	}
	return client.Session("", transit.StaticToken(token))
}

// client returns an administrator's clientset whose requests pass through wrap.
func (w *world) client(wrap func(http.RoundTripper) http.RoundTripper) kubernetes.Interface {
	w.t.Helper()
	config := rest.CopyConfig(w.api.Config)
	if wrap != nil {
		config.Wrap(wrap)
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		w.t.Fatal(err)
	}
	return kube
}

func (w *world) namespace(name string) { w.api.CreateNamespace(w.t, name) }

// installed makes a namespace that has what the rotator needs.
func (w *world) installed(namespace string) {
	w.t.Helper()
	w.namespace(namespace)
	if err := w.api.CreateRotatorState(w.t.Context(), namespace); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(path string, data map[string]any) {
	w.t.Helper()
	if _, err := w.vault.Write(w.t.Context(), path, data); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) newKey(name string, derived bool) {
	w.t.Helper()
	w.write("transit/keys/"+name, map[string]any{"derived": derived})
}

func (w *world) rotateKey() { w.t.Helper(); w.write("transit/keys/"+w.key+"/rotate", nil) }

func (w *world) keyInfo() transit.KeyInfo {
	w.t.Helper()
	info, err := w.root.Key(w.t.Context(), ciphertext.Key{Mount: "transit", Name: w.key})
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

// token returns a token with a policy of the given paths, each with "update" or,
// for a key itself, "read".
func (w *world) token(paths ...string) string {
	w.t.Helper()
	var hcl strings.Builder
	for _, p := range paths {
		capability := "update"
		if strings.HasPrefix(p, "transit/keys/") && strings.Count(p, "/") == 2 {
			capability = "read"
		}
		fmt.Fprintf(&hcl, "path %q { capabilities = [%q] }\n", p, capability)
	}
	name := "test-" + strings.ToLower(rand.Text())
	w.write("sys/policies/acl/"+name, map[string]any{"policy": hcl.String()})
	answer, err := w.vault.Do(w.t.Context(), http.MethodPost, "auth/token/create", w.vault.RootToken,
		map[string]any{"policies": []string{name}, "no_default_policy": true})
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.Auth.ClientToken
}

// rotatorPaths are what a rotator that does not retire may use.
func (w *world) rotatorPaths() []string {
	return []string{"transit/keys/" + w.key, "transit/keys/" + w.key + "/rotate", "transit/rewrap/" + w.key}
}

// minimal is a session with exactly that.
func (w *world) minimal() *transit.Session {
	w.t.Helper()
	return w.session(w.vault.Address, w.token(w.rotatorPaths()...))
}

// seal returns a ciphertext Secret of the world's key that is not stored yet.
func (w *world) seal(namespace, name string, entries map[string]string,
	change ...func(*secretmanager.Spec)) *corev1.Secret {
	w.t.Helper()
	spec := secretmanager.Spec{Namespace: namespace, Name: name,
		Settings: ciphertext.Settings{Key: ciphertext.Key{Name: w.key}}, Entries: map[string][]byte{}}
	for entry, text := range entries {
		spec.Entries[entry] = []byte(text)
	}
	for _, f := range change {
		f(&spec)
	}
	s, err := secretmanager.Encrypt(w.t.Context(), w.root, spec)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func scoped(scope ciphertext.Scope) func(*secretmanager.Spec) {
	return func(s *secretmanager.Spec) { s.Settings.Scope = scope }
}

func (w *world) store(s *corev1.Secret) *corev1.Secret {
	w.t.Helper()
	s, err := w.kube.CoreV1().Secrets(s.Namespace).Create(w.t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) get(namespace, name string) *corev1.Secret {
	w.t.Helper()
	s, err := w.kube.CoreV1().Secrets(namespace).Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// plain decrypts a stored Secret with the library.
func (w *world) plain(namespace, name string, entries ...string) map[string]string {
	w.t.Helper()
	data, err := secretmanager.New(w.root, w.kube).Read(w.t.Context(), namespace, name, entries...)
	if err != nil {
		w.t.Fatal(err)
	}
	texts := map[string]string{}
	for entry, text := range data {
		texts[entry] = string(text)
	}
	return texts
}

// options narrow a run to the world's key, and to its namespace.
func (w *world) options(change ...func(*rotator.Options)) rotator.Options {
	o := rotator.Options{Keys: []string{w.key}, Rotate: rotator.Never, StateNamespace: w.ns}
	for _, f := range change {
		f(&o)
	}
	return o
}

// only returns the report of the one key that a run looked after.
func only(t *testing.T, r *rotator.Report) *rotator.KeyReport {
	t.Helper()
	if r == nil || len(r.Keys) != 1 {
		t.Fatalf("the report is not about one key: %+v", r)
	}
	return r.Keys[0]
}

// versions returns the key version of each entry.
func versions(t *testing.T, s *corev1.Secret) map[string]int {
	t.Helper()
	found := map[string]int{}
	for entry, text := range s.Data {
		v, err := ciphertext.Version(text)
		if err != nil {
			t.Fatalf("entry %s: %v", entry, err)
		}
		found[entry] = v
	}
	return found
}

// proxy stands before the real Vault. The hook may answer in its place: it gets
// the request, and a function that lets Vault have it.
func (w *world) proxy(hook func(rw http.ResponseWriter, r *http.Request, vault http.Handler)) string {
	transport := &http.Transport{}
	w.t.Cleanup(transport.CloseIdleConnections)
	vault, err := relay.New(w.vault.Address, transport)
	if err != nil {
		w.t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { hook(rw, r, vault) }))
	w.t.Cleanup(server.Close)
	return server.URL
}

// roundTrip is a function as a http.RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// beforePatch calls f with how often it was called before, each time that a
// Secret is about to be patched.
func beforePatch(f func(n int)) func(http.RoundTripper) http.RoundTripper {
	n := 0
	return func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPatch {
				f(n)
				n++
			}
			return next.RoundTrip(r)
		})
	}
}

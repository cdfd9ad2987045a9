package rotator_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/memorykube"
	"github.com/secretmanager-io/secretmanager/test/memoryvault"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(childVariable); text != "" {
		runChild(text)
		return
	}
	// Parallel tests wait more than they compute.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	testenv.Main(m)
}

// long reports whether make test-long runs the tests, at full size.
func long() bool { return os.Getenv("SECRETMANAGER_TEST_LONG") != "" }

// parallel lets a test run beside others, unless its servers are real in make test-long.
func parallel(t *testing.T) {
	t.Helper()
	if !long() {
		t.Parallel()
	}
}

// testFixture is a namespace and a transit key. Usually both are in memory, which is fast. The tests that
// TestContract and TestOpenBao repeat have a real cluster and a real Vault there.
type testFixture struct {
	*fixture.Fixture
	Root   vaultClient        // shadows that of Fixture
	memory *memoryvault.Vault // nil if Vault is real
	kube   *memorykube.Server // nil if the API server is real
}

// vaultClient is what tests need of Vault.
type vaultClient interface {
	rotator.Vault
	secretmanager.Vault
}

// newFixture returns a fixture in memory, or with real servers if TestContract or TestOpenBao runs the test.
func newFixture(t *testing.T) *testFixture {
	t.Helper()
	if strings.HasPrefix(t.Name(), "TestContract/") || strings.HasPrefix(t.Name(), "TestOpenBao/") {
		return newServerFixture(t)
	}
	vault, kube, name := memoryvault.New(), memorykube.New(), testenv.UniqueName("ns")
	f := &testFixture{
		Fixture: &fixture.Fixture{Transit: fixture.Transit{T: t, Key: name}, Kube: kube.Client(nil), Namespace: name},
		Root:    vault, memory: vault, kube: kube,
	}
	f.CreateKey(name, true)
	f.CreateNamespace(name)
	f.CreateNamespace(rotator.DefaultStateNamespace)
	return f
}

// newServerFixture returns a fixture in a real cluster and a real Vault.
func newServerFixture(t *testing.T) *testFixture {
	t.Helper()
	f := onServers(fixture.New(t))
	f.CreateNamespace(rotator.DefaultStateNamespace)
	// Each run lists all Secrets of the cluster, which the tests share.
	t.Cleanup(func() {
		err := f.Kube.CoreV1().Secrets(f.Namespace).DeleteCollection(context.Background(), metav1.DeleteOptions{},
			metav1.ListOptions{})
		if err != nil {
			t.Error(err)
		}
	})
	return f
}

func onServers(f *fixture.Fixture) *testFixture { return &testFixture{Fixture: f, Root: f.Root} }

// CreateNamespace creates a namespace with the ConfigMaps and the Lease of the rotator.
func (f *testFixture) CreateNamespace(name string) {
	f.T.Helper()
	if f.kube == nil {
		f.Fixture.CreateNamespace(name)
		return
	}
	for _, state := range rotator.StateNames() {
		_, err := f.Kube.CoreV1().ConfigMaps(name).Create(f.T.Context(),
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: state}}, metav1.CreateOptions{})
		f.Must(err)
	}
	_, err := f.Kube.CoordinationV1().Leases(name).Create(f.T.Context(),
		&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: rotator.StateName}}, metav1.CreateOptions{})
	f.Must(err)
}

// Client shadows that of Fixture.
func (f *testFixture) Client(wrap func(http.RoundTripper) http.RoundTripper) kubernetes.Interface {
	f.T.Helper()
	if f.kube != nil {
		return f.kube.Client(wrap)
	}
	return f.Fixture.Client(wrap)
}

// key returns the fixture's key.
func (f *testFixture) key() ciphertext.Key { return memoryvault.Key(f.Key) }

// CreateKey creates a transit key.
func (f *testFixture) CreateKey(name string, derived bool) ciphertext.Key {
	f.T.Helper()
	if f.memory == nil {
		return f.Fixture.CreateKey(name, derived)
	}
	f.memory.CreateKey(memoryvault.Key(name), derived)
	return memoryvault.Key(name)
}

// RotateKey adds a version to the fixture's key.
func (f *testFixture) RotateKey() {
	f.T.Helper()
	_, err := f.Root.Rotate(context.Background(), f.key())
	f.Must(err)
}

// KeyInfo reads the fixture's key.
func (f *testFixture) KeyInfo() transit.KeyInfo {
	f.T.Helper()
	info, err := f.Root.Key(context.Background(), f.key())
	f.Must(err)
	return info
}

// configure changes the configuration of the fixture's key.
func (f *testFixture) configure(change func(*transit.KeyInfo)) {
	f.T.Helper()
	info := f.KeyInfo()
	change(&info)
	if f.memory != nil {
		f.memory.SetKey(f.key(), info)
		return
	}
	f.Write("transit/keys/"+f.Key+"/config", map[string]any{
		"auto_rotate_period": info.AutoRotatePeriod.String(), "min_decryption_version": info.MinDecryptionVersion,
		"min_encryption_version": info.MinEncryptionVersion,
	})
}

// token returns a token that may use the paths: it may read keys, and update all
// other paths.
func (f *testFixture) token(paths ...string) string {
	f.T.Helper()
	var hcl strings.Builder
	for _, p := range paths {
		capability := "update"
		if strings.HasPrefix(p, "transit/keys/") && strings.Count(p, "/") == 2 {
			capability = "read"
		}
		fmt.Fprintf(&hcl, "path %q { capabilities = [%q] }\n", p, capability)
	}
	return f.Token(hcl.String())
}

// rotatorPaths are the paths that a rotator without retirement needs.
func (f *testFixture) rotatorPaths() []string {
	return []string{"transit/keys/" + f.Key, "transit/keys/" + f.Key + "/rotate", "transit/rewrap/" + f.Key}
}

// minimal returns a session with exactly these paths. In memory, there are no policies.
func (f *testFixture) minimal() vaultClient {
	f.T.Helper()
	if f.memory != nil {
		return f.memory
	}
	return f.Session(f.Vault.Address, f.token(f.rotatorPaths()...))
}

// encrypt returns a ciphertext Secret of the fixture's key, without storing it.
func (f *testFixture) encrypt(namespace, name string, entries map[string]string,
	change ...func(*secretmanager.Spec)) *corev1.Secret {
	f.T.Helper()
	spec := secretmanager.Spec{Namespace: namespace, Name: name,
		Settings: ciphertext.Settings{Key: ciphertext.Key{Name: f.Key}}, Entries: map[string][]byte{}, Settle: -1}
	for entry, text := range entries {
		spec.Entries[entry] = []byte(text)
	}
	for _, c := range change {
		c(&spec)
	}
	s, err := secretmanager.Encrypt(f.T.Context(), f.Root, spec)
	if err != nil {
		f.T.Fatal(err)
	}
	return s
}

func scoped(scope ciphertext.Scope) func(*secretmanager.Spec) {
	return func(s *secretmanager.Spec) { s.Settings.Scope = scope }
}

// plain decrypts a stored Secret with the library.
func (f *testFixture) plain(namespace, name string, entries ...string) map[string]string {
	f.T.Helper()
	data, err := secretmanager.New(f.Root, f.Kube).Read(f.T.Context(), namespace, name, entries...)
	if err != nil {
		f.T.Fatal(err)
	}
	texts := map[string]string{}
	for entry, text := range data {
		texts[entry] = string(text)
	}
	return texts
}

// options returns options for the fixture's key, with the state in its namespace.
func (f *testFixture) options(change ...func(*rotator.Options)) rotator.Options {
	o := rotator.Options{Keys: []string{f.Key}, Rotate: rotator.Never, Settle: -1, StateNamespace: f.Namespace,
		Scheduled: true, OnlyUser: true, MaxGap: 365 * 24 * time.Hour} // tests change the time a lot
	for _, c := range change {
		c(&o)
	}
	return o
}

// onlyKey returns the part of the report about its one key.
func onlyKey(t testing.TB, r *rotator.Report) *rotator.KeyReport {
	t.Helper()
	if r == nil || len(r.Keys) != 1 {
		t.Fatalf("the report is not about one key: %+v", r)
	}
	return r.Keys[0]
}

// versions returns the key version of each entry.
func versions(t testing.TB, s *corev1.Secret) map[string]int {
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

// summary returns what the state has of the last runs.
func (f *testFixture) summary() *rotator.Summary {
	f.T.Helper()
	var state []*corev1.ConfigMap
	for _, name := range rotator.StateNames() {
		m, err := f.Kube.CoreV1().ConfigMaps(f.Namespace).Get(f.T.Context(), name, metav1.GetOptions{})
		if err != nil {
			f.T.Fatal(err)
		}
		state = append(state, m)
	}
	summary, err := rotator.ReadSummary(state...)
	if err != nil {
		f.T.Fatal(err)
	}
	return summary
}

// stateOf returns the ConfigMap that has the fixture's key.
func (f *testFixture) stateOf() *corev1.ConfigMap {
	f.T.Helper()
	name := rotator.ShardName(ciphertext.Key{Mount: "transit", Name: f.Key})
	m, err := f.Kube.CoreV1().ConfigMaps(f.Namespace).Get(f.T.Context(), name, metav1.GetOptions{})
	if err != nil {
		f.T.Fatal(err)
	}
	return m
}

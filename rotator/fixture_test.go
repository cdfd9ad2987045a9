package rotator_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(childVariable); text != "" {
		runChild(text)
		return
	}
	testenv.Main(m)
}

// long reports whether make test-long runs the tests, at full size.
func long() bool { return os.Getenv("SECRETMANAGER_TEST_LONG") != "" }

// testFixture is a namespace and a transit key in a real cluster and a real Vault.
type testFixture struct{ *fixture.Fixture }

func newFixture(t *testing.T) *testFixture {
	t.Helper()
	f := &testFixture{fixture.New(t)}
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

// minimal returns a session with exactly these paths.
func (f *testFixture) minimal() *transit.Session {
	f.T.Helper()
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
		OnlyUser: true, MaxGap: 365 * 24 * time.Hour} // tests change the time a lot
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

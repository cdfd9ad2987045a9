package retirescan

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/secretlist"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// TestGeneratedOnServers has the rounds of TestGenerated on a real Vault and a real API server.
func TestGeneratedOnServers(t *testing.T) {
	rounds := 3
	if os.Getenv("SECRETMANAGER_TEST_LONG") != "" {
		rounds = 100
	}
	f := fixture.New(t)
	for _, name := range generatorNamespaces {
		if name != metav1.NamespaceDefault {
			f.API.CreateNamespace(t, name)
		}
	}
	f.Write("sys/mounts/team/transit", map[string]any{"type": "transit"})
	keys := []Key{
		{Key: transitKey("a"), From: 1, To: 4, Derived: true},
		{Key: transitKey("b"), From: 1, To: 5, Derived: true, Namespaces: []string{"ops"}},
		{Key: ciphertext.Key{Mount: "team/transit", Name: "a"}, From: 3, To: 5, Derived: true, Namespaces: []string{"shop"}},
		{Key: transitKey("plain"), From: 1, To: 3},
	}
	for _, k := range append(keys, Key{Key: transitKey("foreign"), From: 1, To: 2, Derived: true}) {
		f.Write(k.String(), map[string]any{"derived": k.Derived})
		for range k.To {
			f.Write(k.String()+"/rotate", nil)
		}
		f.Write(k.String()+"/config", map[string]any{"min_decryption_version": k.From})
	}
	seed := rand.Uint64()
	for i := range rounds {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		g := newRound(r, keys, generatorNamespaces, func(k ciphertext.Key, version int, context []byte) string {
			if k.Name == "plain" {
				context = nil
			}
			results, err := f.Root.Encrypt(t.Context(), k, []transit.Item{{KeyVersion: version, Context: context,
				Data: []byte(strings.Repeat("x", r.IntN(30)))}})
			f.Must(err)
			f.Must(results[0].Err)
			return string(results[0].Data)
		})
		for _, s := range g.secrets {
			createSecret(f, s)
		}
		s := &Scanner{Vault: f.Root, Keys: keys}
		lister := secretlist.Lister{Kube: f.Kube, PageSize: int64(1 + r.IntN(20))}
		f.Must(lister.Each(t.Context(), metav1.NamespaceAll, secretlist.Selection{}, func(secret *corev1.Secret) error {
			return s.Add(t.Context(), secret)
		}))
		result, err := s.Finish(t.Context())
		f.Must(err)
		if g.check(t, result); t.Failed() {
			t.Fatalf("seed %d, round %d: %s", seed, i, g.names())
		}
		for _, s := range g.secrets {
			deleteSecret(f, s)
		}
	}
}

func createSecret(f *fixture.Fixture, s *corev1.Secret) {
	created := s.DeepCopy()
	created.ResourceVersion, created.DeletionTimestamp = "", nil
	secrets := f.Kube.CoreV1().Secrets(s.Namespace)
	_, err := secrets.Create(f.T.Context(), created, metav1.CreateOptions{})
	f.Must(err)
	if s.DeletionTimestamp != nil { // it waits for its finalizer
		f.Must(secrets.Delete(f.T.Context(), s.Name, metav1.DeleteOptions{}))
	}
}

func deleteSecret(f *fixture.Fixture, s *corev1.Secret) {
	secrets := f.Kube.CoreV1().Secrets(s.Namespace)
	if s.DeletionTimestamp == nil {
		f.Must(secrets.Delete(f.T.Context(), s.Name, metav1.DeleteOptions{}))
		return
	}
	_, err := secrets.Patch(f.T.Context(), s.Name, types.MergePatchType,
		[]byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	f.Must(err)
}

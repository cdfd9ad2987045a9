package cluster

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// repetitions returns how often a test kills a leader: more often in make test-long.
func repetitions(short, long int) int {
	if os.Getenv("SECRETMANAGER_TEST_LONG") != "" {
		return long
	}
	return short
}

// TestVault kills the leader of a Vault cluster during mounts, rotations and commands.
func TestVault(t *testing.T) { run(t) }

// TestOpenBao is TestVault with OpenBao.
func TestOpenBao(t *testing.T) { run(t) }

func run(t *testing.T) {
	t.Parallel() // most of the time, the tests wait for elections
	e := newEnv(t)
	t.Run("Mounts", e.testMounts)
	t.Run("Rotations", e.testRotations)
	t.Run("Commands", e.testCommands)
}

// env is a cluster with a derived key, and a role that may decrypt with it.
type env struct {
	*fixture.Transit
	cluster *testenv.VaultCluster
	root    *transit.Session // at all members
}

func newEnv(t *testing.T) *env {
	t.Helper()
	c := testenv.NewVaultCluster(t, testenv.VaultOptions{})
	f := fixture.In(t, c.Leader(t))
	f.TrustIssuer()
	f.AllowLogin(testenv.Role{Mount: "jwt", Name: f.Key, Namespace: f.Key, ServiceAccount: "app",
		Policies: []string{f.Policy(fixture.DecryptPolicy)}})
	e := &env{Transit: f, cluster: c}
	e.root = e.session(t, time.Minute)
	return e
}

// session returns a session at all members with the root token, as the rotator's.
func (e *env) session(t *testing.T, retryFor time.Duration) *transit.Session {
	t.Helper()
	client, err := transit.NewClient(transit.Config{Address: e.cluster.Address(), RetryFor: retryFor})
	if err != nil {
		t.Fatal(err)
	}
	return client.Session("", transit.StaticToken(e.Vault.RootToken))
}

// secret returns a ciphertext Secret in the namespace of the key's name.
func (e *env) secret(t *testing.T, key, name string, entries map[string]string) *corev1.Secret {
	t.Helper()
	spec := secretmanager.Spec{Namespace: key, Name: name, Entries: map[string][]byte{}, Settle: -1,
		Settings: ciphertext.Settings{Key: ciphertext.Key{Mount: "transit", Name: key}}}
	for entry, text := range entries {
		spec.Entries[entry] = []byte(text)
	}
	s, err := secretmanager.Encrypt(t.Context(), e.root, spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// failover is the failure of a leader.
type failover struct {
	killed, elected time.Time
	leader          *testenv.Vault // the killed one
}

// killLeader kills the leader and waits for the next one.
func (e *env) killLeader(t *testing.T) failover {
	t.Helper()
	f := failover{leader: e.cluster.Leader(t)}
	f.killed = time.Now()
	f.leader.Kill()
	next := e.cluster.Leader(t)
	f.elected = time.Now()
	if next == f.leader {
		t.Fatalf("the killed %s is the leader", next.Address)
	}
	return f
}

// restart starts the killed leader again, and waits until the cluster is complete.
func (e *env) restart(t *testing.T, f failover) {
	t.Helper()
	if err := f.leader.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.cluster.Await(t)
}

// toJSON encodes strings and times, which cannot fail.
func toJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// kubelet calls mount as the kubelet does, until it succeeds: with its timeout for each attempt, and longer and
// longer pauses. It returns the failures.
func kubelet(ctx context.Context, mount func(context.Context) error) (failures []error) {
	for pause := 500 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, 2*time.Minute) {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Minute)
		err := mount(attempt)
		cancel()
		if err == nil {
			return failures
		}
		failures = append(failures, err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return failures
}

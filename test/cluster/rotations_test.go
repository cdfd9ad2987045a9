package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
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
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

// A killingVault kills the leader at one request of a run.
type killingVault struct {
	*transit.Session
	kill     func()
	at       int64 // number of the request, from 1
	meantime bool  // whether the request is sent while the leader is killed, rather than after
	requests atomic.Int64
}

// before counts a request, and kills the leader if it is the one.
func (v *killingVault) before() {
	switch {
	case v.requests.Add(1) != v.at:
	case v.meantime:
		go v.kill()
	default:
		v.kill()
	}
}

func (v *killingVault) Key(ctx context.Context, key ciphertext.Key) (transit.KeyInfo, error) {
	v.before()
	return v.Session.Key(ctx, key)
}

func (v *killingVault) Rotate(ctx context.Context, key ciphertext.Key) (transit.KeyInfo, error) {
	v.before()
	return v.Session.Rotate(ctx, key)
}

func (v *killingVault) Rewrap(ctx context.Context, key ciphertext.Key, items []transit.Item) ([]transit.Result, error) {
	v.before()
	return v.Session.Rewrap(ctx, key, items)
}

func (v *killingVault) SetMinDecryptionVersion(ctx context.Context, key ciphertext.Key, info transit.KeyInfo,
	version int) error {
	v.before()
	return v.Session.SetMinDecryptionVersion(ctx, key, info, version)
}

// testRotations kills the leader at a request of a run: in the middle of the rewrap, and in make test-long at each
// request, before and while it is sent. The run after it completes, and every entry decrypts.
func (e *env) testRotations(t *testing.T) {
	undisturbed := e.rotation(t, &killingVault{at: -1}, 0)
	if repetitions(0, 1) == 0 {
		e.rotation(t, &killingVault{at: undisturbed/2 + 1}, time.Hour)
		return
	}
	for _, meantime := range []bool{false, true} {
		for at := int64(1); at <= undisturbed; at++ {
			e.rotation(t, &killingVault{at: at, meantime: meantime}, time.Duration(at%2)*time.Hour)
		}
	}
}

// rotation makes a run with a new key, during which v kills the leader, and then an undisturbed one. It returns the
// number of requests of the first.
func (e *env) rotation(t *testing.T, v *killingVault, retireAfter time.Duration) int64 {
	t.Helper()
	name := testenv.UniqueName("key")
	key := e.createKey(t, name)
	kube := newKube(t, name)
	plain := map[string]map[string]string{}
	for i := range 6 {
		secret := fmt.Sprint("s", i)
		plain[secret] = map[string]string{}
		for j := range 40 {
			plain[secret][fmt.Sprint("e", j)] = fmt.Sprintf("%s of %s", secret, name)
		}
		_, err := kube.CoreV1().Secrets(name).Create(t.Context(), e.secret(t, name, secret, plain[secret]),
			metav1.CreateOptions{})
		must(t, err)
	}
	v.Session = e.root
	killed := make(chan failover, 1)
	leader := e.cluster.Leader(t)
	v.kill = func() {
		f := failover{leader: leader, killed: time.Now()}
		leader.Kill()
		killed <- f
	}
	options := rotator.Options{Keys: []string{name}, Rotate: rotator.Always, Settle: -1, StateNamespace: name,
		Retire: true, RetireAfter: retireAfter, OnlyUser: true}
	began := time.Now()
	report, err := rotator.Run(t.Context(), v, kube, options)
	took := time.Since(began).Round(time.Millisecond)
	requests := v.requests.Load()
	e.checkRun(t, report, err, retireAfter)
	e.checkEntries(t, kube, name, plain)
	if v.at < 0 || v.at > requests { // nothing was killed
		return requests
	}
	f := <-killed
	e.cluster.Leader(t)
	t.Logf("killed at request %d of %d (meanwhile: %t): the run took %s and returned %v", v.at, requests, v.meantime, took,
		err)

	report, err = rotator.Run(t.Context(), e.root, kube, options)
	if err != nil {
		t.Fatalf("the run after: %v", err)
	}
	info, err := e.root.Key(t.Context(), key)
	must(t, err)
	k := report.Keys[0]
	wantMinimum := 2
	if retireAfter > 0 {
		wantMinimum = 1
	}
	if info.Latest != 2 || k.Target != 2 || k.Unresolved.Count != 0 || info.MinDecryptionVersion != wantMinimum {
		t.Errorf("after the next run: %+v, key %+v", k, info)
	}
	e.checkEntries(t, kube, name, plain)
	e.restart(t, f)
	return requests
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (e *env) createKey(t *testing.T, name string) ciphertext.Key {
	t.Helper()
	_, err := e.cluster.Leader(t).Write(t.Context(), "transit/keys/"+name, map[string]any{"derived": true})
	must(t, err)
	return ciphertext.Key{Mount: "transit", Name: name}
}

// checkRun checks that a run completed, or failed for a reason that it reports. It must not retire what is needed
// still.
func (e *env) checkRun(t *testing.T, report *rotator.Report, err error, retireAfter time.Duration) {
	t.Helper()
	if err != nil && !errors.Is(err, rotator.ErrIncomplete) {
		t.Fatalf("the run could not begin: %v", err)
	}
	k := report.Keys[0]
	if err != nil && k.Error == "" && k.Unresolved.Count == 0 {
		t.Errorf("the run does not report why it failed: %v, %+v", err, k)
	}
	if retireAfter > 0 && k.Retire != nil && k.Retire.Done {
		t.Errorf("the run retired a version too early: %+v", k.Retire)
	}
}

// checkEntries decrypts every entry.
func (e *env) checkEntries(t *testing.T, kube kubernetes.Interface, namespace string,
	plain map[string]map[string]string) {
	t.Helper()
	library := secretmanager.New(e.root, kube)
	for secret, entries := range plain {
		data, err := library.Read(t.Context(), namespace, secret)
		if err != nil {
			t.Fatal(err)
		}
		for entry, text := range entries {
			if string(data[entry]) != text {
				t.Errorf("entry %s of Secret %s is %q, want %q", entry, secret, data[entry], text)
			}
		}
	}
}

// newKube returns an API server in memory that has what the rotator needs in the namespace.
func newKube(t *testing.T, namespace string) kubernetes.Interface {
	t.Helper()
	kube := memorykube.New().Client(nil)
	for _, state := range rotator.StateNames() {
		_, err := kube.CoreV1().ConfigMaps(namespace).Create(t.Context(),
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: state}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := kube.CoordinationV1().Leases(namespace).Create(t.Context(),
		&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: rotator.StateName}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return kube
}

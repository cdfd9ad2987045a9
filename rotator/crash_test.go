package rotator_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

// A kill ends a run at the nth request of a step, an index of steps.
type kill struct {
	Step int
	Nth  int64
	// Continue ends only the connections. The run goes on without them.
	Continue bool
}

func (k kill) String() string { return fmt.Sprintf("request %d, %s", k.Nth, steps[k.Step]) }

// childRun configures a run that is killed, in this process or in a child process.
type childRun struct {
	Vault, Token string // address and token
	Kubeconfig   string
	Key, State   string // names of the transit key and of the state's namespace
	Retire       bool   // retire without waiting
	// Wait is how long to wait before retirement, in a run at a later time.
	Wait, Later time.Duration
	Kill        kill
}

func (v childRun) options() rotator.Options {
	return rotator.Options{Keys: []string{v.Key}, Settle: -1, StateNamespace: v.State, Retire: v.Retire,
		RetireAfter: v.Wait, MaxGap: 365 * 24 * time.Hour, OnlyUser: true, Now: v.now}
}

func (v childRun) now() time.Time { return time.Now().Add(v.Later) }

// childVariable is the environment variable with the childRun of a child process, as JSON.
const childVariable = "ROTATOR_TEST_CHILD"

// runChild is the main function of the child process; see TestMain.
func runChild(text string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var v childRun
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		fail(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", v.Kubeconfig)
	if err != nil {
		fail(err)
	}
	config.QPS, config.ContentType = -1, runtime.ContentTypeProtobuf
	g := &trigger{step: steps[v.Kill.Step], nth: v.Kill.Nth, do: func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			fail(err)
		}
		select {} // until the signal arrives
	}}
	config.Wrap(g.wrap)
	server, err1 := g.vault(v.Vault)
	kube, err2 := kubernetes.NewForConfig(config)
	if err := errors.Join(err1, err2); err != nil {
		fail(err)
	}
	client, err := transit.NewClient(transit.Config{Address: server.URL})
	if err != nil {
		fail(err)
	}
	_, err = rotator.Run(context.Background(), client.Session("", transit.StaticToken(v.Token)), kube, v.options())
	if err != nil {
		fail(err)
	}
}

// killProcess executes the run in a child process. It reports whether the run was killed
// before its end.
func (f *testFixture) killProcess(v childRun) bool {
	f.T.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		f.T.Fatal(err)
	}
	cmd := exec.CommandContext(f.T.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		f.expireLease(v)
		return true
	}
	if err != nil {
		f.T.Fatalf("run to kill at %s: %v\n%s", v.Kill, err, output)
	}
	return false
}

var errKilled = errors.New("killed")

// killInside executes the run in this process. From the step on its requests fail and
// its context is canceled.
func (f *testFixture) killInside(v childRun) bool {
	f.T.Helper()
	ctx, cancel := context.WithCancel(f.T.Context())
	defer cancel()
	g := &trigger{step: steps[v.Kill.Step], nth: v.Kill.Nth}
	g.do = func() {
		g.dead.Store(true)
		if !v.Kill.Continue {
			cancel()
		}
	}
	var vault rotator.Vault = f.memory
	if f.memory != nil {
		defer g.watch(f.memory)()
	} else {
		server, err := g.vault(v.Vault)
		if err != nil {
			f.T.Fatal(err)
		}
		defer server.Close()
		vault = f.Session(server.URL, v.Token)
	}
	_, err := rotator.RunInside(ctx, vault, f.Client(g.wrap), v.options(),
		rotator.Inside{RetryFor: time.Nanosecond, VaultClock: v.now, KubeClock: v.now})
	if !g.dead.Load() && err != nil {
		f.T.Fatalf("run to kill at %s: %v", v.Kill, err)
	}
	if !g.dead.Load() {
		return false
	}
	f.expireLease(v)
	return true
}

// expireLease frees the Lease of a killed run, which otherwise takes two minutes. Other
// tests cover its expiry.
func (f *testFixture) expireLease(v childRun) {
	f.T.Helper()
	_, err := f.Kube.CoordinationV1().Leases(v.State).
		Patch(f.T.Context(), rotator.StateName, types.MergePatchType, []byte(`{"spec":{"holderIdentity":null}}`),
			metav1.PatchOptions{})
	if err != nil {
		f.T.Fatalf("Lease of the run killed at %s: %v", v.Kill, err)
	}
}

// ageKey replaces the fixture's key by one whose only version has the age, in a real Vault by restoring
// it from a changed backup.
func (f *testFixture) ageKey(age time.Duration) {
	f.T.Helper()
	if f.memory != nil {
		info := f.KeyInfo()
		info.Created = map[int]time.Time{1: time.Now().Add(-age)}
		f.memory.SetKey(f.key(), info)
		return
	}
	ctx, path := f.T.Context(), "transit/keys/"+f.Key
	f.Write(path+"/config", map[string]any{"exportable": true, "allow_plaintext_backup": true})
	answer, err := f.Vault.Read(ctx, "transit/backup/"+f.Key)
	if err != nil {
		f.T.Fatal(err)
	}
	text, err := base64.StdEncoding.DecodeString(answer["backup"].(string))
	if err != nil {
		f.T.Fatal(err)
	}
	var backup map[string]any
	if err := json.Unmarshal(text, &backup); err != nil {
		f.T.Fatal(err)
	}
	made := time.Now().Add(-age)
	version := backup["policy"].(map[string]any)["keys"].(map[string]any)["1"].(map[string]any)
	version["time"], version["creation_time"] = made.Format(time.RFC3339Nano), made.Unix()
	if text, err = json.Marshal(backup); err != nil {
		f.T.Fatal(err)
	}
	f.Write("transit/restore/"+f.Key, map[string]any{"backup": base64.StdEncoding.EncodeToString(text), "force": true})
	if got := f.KeyInfo().Age(time.Now()); got < age {
		f.T.Fatalf("the key is %s old, want %s", got, age)
	}
}

// killable returns a run whose token also allows to retire.
func (f *testFixture) killable(k kill) childRun {
	if f.memory != nil {
		return childRun{Key: f.Key, State: f.Namespace, Kill: k}
	}
	return childRun{
		Vault:      f.Vault.Address,
		Token:      f.token(append(f.rotatorPaths(), "transit/keys/"+f.Key+"/config")...),
		Kubeconfig: f.API.Kubeconfig,
		Key:        f.Key, State: f.Namespace, Kill: k,
	}
}

// session returns the session of a run that is not killed.
func (f *testFixture) session(v childRun) rotator.Vault {
	if f.memory != nil {
		return f.memory
	}
	return f.Session(v.Vault, v.Token)
}

// finish executes the run after the killed ones, and checks that every entry is at
// version 2 and decrypts to its value.
func (f *testFixture) finish(v childRun, plain map[string]map[string]string) {
	f.T.Helper()
	report, err := rotator.Run(f.T.Context(), f.session(v), f.Kube, v.options())
	if err != nil {
		f.T.Fatalf("the next run: %v", err)
	}
	if k := onlyKey(f.T, report); k.Target != 2 || k.Unresolved.Count != 0 || k.Pending != 0 {
		f.T.Errorf("the next run: %+v", k)
	}
	if latest := f.KeyInfo().Latest; latest != 2 {
		f.T.Errorf("the key is at version %d, want one rotation", latest)
	}
	f.checkIntact(plain, 2)
}

// checkIntact checks that the Secrets decrypt to the values, all at one version.
func (f *testFixture) checkIntact(plain map[string]map[string]string, version int) {
	f.T.Helper()
	var items []transit.Item
	var locations, want []string
	seen := 0
	for id, s := range f.all() {
		if plain[id] == nil {
			continue
		}
		seen++
		set, err := ciphertext.SettingsOf(s)
		if err != nil {
			f.T.Fatalf("%s: %v", id, err)
		}
		if hint := s.Labels[ciphertext.LabelKeyVersion]; hint != fmt.Sprint(version) {
			f.T.Errorf("the hint of %s is %q, want %d", id, hint, version)
		}
		if len(s.Data) != len(plain[id]) {
			f.T.Errorf("%s has %d entries, want %d", id, len(s.Data), len(plain[id]))
		}
		for entry, v := range versions(f.T, s) {
			if v != version {
				f.T.Errorf("%s/%s is at version %d", id, entry, v)
			}
			items = append(items, transit.Item{Data: s.Data[entry], Context: set.Scope.Context(s.Namespace, s.Name, entry)})
			locations, want = append(locations, id+"/"+entry), append(want, plain[id][entry])
		}
	}
	if seen != len(plain) {
		f.T.Errorf("%d Secrets, want %d", seen, len(plain))
	}
	results, err := f.Root.Decrypt(f.T.Context(), ciphertext.Key{Mount: "transit", Name: f.Key}, items)
	if err != nil {
		f.T.Fatal(err)
	}
	for i, r := range results {
		if r.Err != nil || string(r.Data) != want[i] {
			f.T.Errorf("%s does not decrypt to its value (%v)", locations[i], r.Err)
		}
	}
}

// TestKilledAtEachStep kills a run at every step. The next run completes the work.
func TestKilledAtEachStep(t *testing.T) {
	testKilledAt(t, steps, newFixture, (*testFixture).killInside)
}

// TestKilledProcess is TestKilledAtEachStep with child processes and SIGKILL, on real servers, and at two
// steps unless make test-long runs it.
func TestKilledProcess(t *testing.T) {
	all := steps
	if !long() {
		all = []step{beforePatchStep, afterConfig}
	}
	testKilledAt(t, all, newServerFixture, (*testFixture).killProcess)
}

func testKilledAt(t *testing.T, all []step, newFixture func(*testing.T) *testFixture,
	killRun func(*testFixture, childRun) bool) {
	for _, step := range all {
		t.Run(step.String(), func(t *testing.T) {
			f := newFixture(t)
			f.ageKey(48 * time.Hour)
			plain := f.populate(4)
			v := f.killable(kill{Step: slices.Index(steps, step), Nth: 1})
			v.Retire = true
			switch step { // in the middle of the many requests of these steps
			case beforePatchStep, afterPatch:
				v.Kill.Nth = 5
			}
			if !killRun(f, v) {
				t.Fatal("the run completed without the step")
			}
			f.finish(v, plain)
			if info := f.KeyInfo(); info.MinDecryptionVersion != 2 || info.MinAvailableVersion != 0 {
				t.Errorf("want retired and not trimmed: %+v", info)
			}
		})
	}
}

// TestKilledAtRandom kills many runs at random steps. Each continues the work of the one before. In make
// test-long, the servers are real and every tenth run is a child process.
func TestKilledAtRandom(t *testing.T) {
	parallel(t)
	secrets, kills := 400, 12
	if long() {
		secrets, kills = 10000, 200
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	f := newFixture(t)
	if long() {
		f = newServerFixture(t)
	}
	f.ageKey(48 * time.Hour)
	plain := f.fill(secrets)

	// The steps that every run reaches while work remains, and how many of their requests
	// are sent at most: the kills together leave work for the last run.
	per := int64(secrets / kills)
	often := map[step]int64{
		afterPage: int64(secrets/500 + 2), beforeReadKey: 1, beforeRotate: 1, afterRotate: 1,
		beforeRewrap: max(per/20, 1), afterRewrap: max(per/20, 1),
		beforePatchStep: 2 * per, afterPatch: 2 * per,
	}
	var points []int
	for i, s := range steps {
		if often[s] > 0 {
			points = append(points, i)
		}
	}
	v := f.killable(kill{})
	hits := map[string]int{}
	for n := 0; n < kills; {
		point := points[random.IntN(len(points))]
		step := steps[point]
		v.Kill = kill{Step: point, Nth: 1 + random.Int64N(often[step])}
		if n > 0 && f.KeyInfo().Latest > 1 && strings.HasSuffix(step.path, "/rotate") {
			continue // the key is already rotated
		}
		killRun := f.killInside
		if long() && n%10 == 0 {
			killRun = f.killProcess
		}
		if !killRun(v) {
			t.Fatalf("the run to kill at %s completed, after %d killed ones", v.Kill, n)
		}
		hits[step.String()]++
		n++
	}
	t.Logf("killed %v", hits)
	old := 0
	for id, s := range f.all() {
		if plain[id] != nil && versions(t, s)["e"] == 1 {
			old++
		}
	}
	if old == 0 || old == secrets {
		t.Errorf("%d of %d Secrets are old before the last run, want some", old, secrets)
	}
	f.finish(v, plain)
}

// fill creates n Secrets with one entry each in the fixture's namespace.
func (f *testFixture) fill(n int) map[string]map[string]string {
	f.T.Helper()
	plain := map[string]map[string]string{}
	var items []transit.Item
	var names []string
	for i := range n {
		name := fmt.Sprintf("s%05d", i)
		names = append(names, name)
		plain[f.Namespace+"/"+name] = map[string]string{"e": "value of " + name}
		items = append(items,
			transit.Item{Data: []byte("value of " + name), Context: ciphertext.Strict.Context(f.Namespace, name, "e")})
	}
	results, err := f.Root.Encrypt(f.T.Context(), ciphertext.Key{Mount: "transit", Name: f.Key}, items)
	if err != nil {
		f.T.Fatal(err)
	}
	stored, ctx := errgroup.WithContext(f.T.Context())
	stored.SetLimit(16)
	for i, r := range results {
		stored.Go(func() error {
			_, err := f.Kube.CoreV1().Secrets(f.Namespace).Create(ctx, &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: names[i],
					Labels: map[string]string{ciphertext.LabelTransitKey: f.Key, ciphertext.LabelKeyVersion: "1"}},
				Type: ciphertext.Type, Data: map[string][]byte{"e": r.Data},
			}, metav1.CreateOptions{})
			return errors.Join(err, r.Err)
		})
	}
	if err := stored.Wait(); err != nil {
		f.T.Fatal(err)
	}
	return plain
}

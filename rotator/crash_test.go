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
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

// A kill ends a run at the nth request of a step, which is an index of steps.
type kill struct {
	Step int
	Nth  int64
}

func (k kill) String() string { return fmt.Sprintf("request %d, %s", k.Nth, steps[k.Step]) }

// victim is what a run needs that is to be killed, in this process or another.
type victim struct {
	Vault, Token string // address and token
	Kubeconfig   string
	Key, State   string // names of the transit key and of the state's namespace
	Retire       bool   // at once, and trim
	Kill         kill
}

func (v victim) options() rotator.Options {
	return rotator.Options{Keys: []string{v.Key}, StateNamespace: v.State, Retire: v.Retire, Trim: v.Retire,
		RetireAfter: time.Nanosecond}
}

// victimVariable has a victim as JSON in the environment of the process that is
// killed for it.
const victimVariable = "ROTATOR_TEST_VICTIM"

// runVictim is the other process: this test program once more, see TestMain.
func runVictim(text string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var v victim
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
		select {} // until it takes effect
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

// killProcess makes the run in another process and says whether it was killed;
// if it was not, it had come to its end.
func (w *world) killProcess(v victim) bool {
	w.t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.CommandContext(w.t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimVariable+"="+string(text))
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		w.outlast(v)
		return true
	}
	if err != nil {
		w.t.Fatalf("the run that was to be killed at %s: %v\n%s", v.Kill, err, output)
	}
	return false
}

var errKilled = errors.New("killed")

// killInside makes the run in this process. From the step on none of its
// requests gets out, and what it waits for does not come.
func (w *world) killInside(v victim) bool {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	g := &trigger{step: steps[v.Kill.Step], nth: v.Kill.Nth}
	g.do = func() {
		g.dead.Store(true)
		cancel()
	}
	config := rest.CopyConfig(w.api.Config)
	config.ContentType = runtime.ContentTypeProtobuf
	config.Wrap(g.wrap)
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		w.t.Fatal(err)
	}
	server, err := g.vault(v.Vault)
	if err != nil {
		w.t.Fatal(err)
	}
	defer server.Close()
	_, err = rotator.RunInside(ctx, w.session(server.URL, v.Token), kube, v.options(),
		rotator.Inside{RetryFor: time.Nanosecond})
	if !g.dead.Load() && err != nil {
		w.t.Fatalf("the run that was to be killed at %s: %v", v.Kill, err)
	}
	if !g.dead.Load() {
		return false
	}
	w.outlast(v)
	return true
}

// outlast ends the two minutes for which the Lease of a run that was killed keeps
// others away; that it does, and that one is taken over, has tests of its own.
func (w *world) outlast(v victim) {
	w.t.Helper()
	_, err := w.kube.CoordinationV1().Leases(v.State).
		Patch(w.t.Context(), rotator.StateName, types.MergePatchType, []byte(`{"spec":{"holderIdentity":null}}`),
			metav1.PatchOptions{})
	if err != nil {
		w.t.Fatalf("the Lease of a run that was killed at %s: %v", v.Kill, err)
	}
}

// agedKey replaces the world's key by one whose only version was made so long
// ago: Vault restores it from a backup that says so.
func (w *world) agedKey(age time.Duration) {
	w.t.Helper()
	ctx, path := w.t.Context(), "transit/keys/"+w.key
	w.write(path+"/config", map[string]any{"exportable": true, "allow_plaintext_backup": true})
	answer, err := w.vault.Read(ctx, "transit/backup/"+w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := base64.StdEncoding.DecodeString(answer["backup"].(string))
	if err != nil {
		w.t.Fatal(err)
	}
	var backup map[string]any
	if err := json.Unmarshal(text, &backup); err != nil {
		w.t.Fatal(err)
	}
	made := time.Now().Add(-age)
	version := backup["policy"].(map[string]any)["keys"].(map[string]any)["1"].(map[string]any)
	version["time"], version["creation_time"] = made.Format(time.RFC3339Nano), made.Unix()
	if text, err = json.Marshal(backup); err != nil {
		w.t.Fatal(err)
	}
	w.write("transit/restore/"+w.key, map[string]any{"backup": base64.StdEncoding.EncodeToString(text), "force": true})
	if got := w.keyInfo().Age(time.Now()); got < age {
		w.t.Fatalf("the key is %s old, want %s", got, age)
	}
}

// killable is a run that may also retire, of a key that is due for a new version.
func (w *world) killable(k kill) victim {
	return victim{
		Vault:      w.vault.Address,
		Token:      w.token(append(w.rotatorPaths(), "transit/keys/"+w.key+"/config", "transit/keys/"+w.key+"/trim")...),
		Kubeconfig: w.api.Kubeconfig,
		Key:        w.key, State: w.ns, Kill: k,
	}
}

// finish makes the run that comes after those that were killed, and checks that
// nothing was lost: all is at version 2 and holds what it held.
func (w *world) finish(v victim, plain map[string]map[string]string) {
	w.t.Helper()
	report, err := rotator.Run(w.t.Context(), w.session(v.Vault, v.Token), w.kube, v.options())
	if err != nil {
		w.t.Fatalf("the next run: %v", err)
	}
	if k := only(w.t, report); k.Target != 2 || k.LeftCount != 0 || k.Pending != 0 {
		w.t.Errorf("the next run: %+v", k)
	}
	if latest := w.keyInfo().Latest; latest != 2 {
		w.t.Errorf("the key is at version %d: it should have been rotated once", latest)
	}
	w.intact(plain, 2)
}

// intact checks that the Secrets hold what they should, at one version.
func (w *world) intact(plain map[string]map[string]string, version int) {
	w.t.Helper()
	var items []transit.Item
	var places, want []string
	seen := 0
	for id, s := range w.all() {
		if plain[id] == nil {
			continue
		}
		seen++
		set, err := ciphertext.SettingsOf(s)
		if err != nil {
			w.t.Fatalf("%s: %v", id, err)
		}
		if hint := s.Labels[ciphertext.LabelKeyVersion]; hint != fmt.Sprint(version) {
			w.t.Errorf("the hint of %s is %q, want %d", id, hint, version)
		}
		if len(s.Data) != len(plain[id]) {
			w.t.Errorf("%s has %d entries, want %d", id, len(s.Data), len(plain[id]))
		}
		for entry, v := range versions(w.t, s) {
			if v != version {
				w.t.Errorf("%s/%s is at version %d", id, entry, v)
			}
			items = append(items, transit.Item{Data: s.Data[entry], Context: set.Scope.Context(s.Namespace, s.Name, entry)})
			places, want = append(places, id+"/"+entry), append(want, plain[id][entry])
		}
	}
	if seen != len(plain) {
		w.t.Errorf("%d Secrets are there, want %d", seen, len(plain))
	}
	results, err := w.root.Decrypt(w.t.Context(), ciphertext.Key{Mount: "transit", Name: w.key}, items)
	if err != nil {
		w.t.Fatal(err)
	}
	for i, r := range results {
		if r.Err != nil || string(r.Data) != want[i] {
			w.t.Errorf("%s does not open to what it held (%v)", places[i], r.Err)
		}
	}
}

// TestKilledAtEachStep kills a run, by SIGKILL as a process and inside of this
// one, at every step that there is; the next one does the rest.
func TestKilledAtEachStep(t *testing.T) {
	for way, killed := range map[string]func(*world, victim) bool{"process": (*world).killProcess,
		"inside": (*world).killInside} {
		for i, step := range steps {
			t.Run(way+"/"+step.String(), func(t *testing.T) {
				w := newWorld(t)
				w.agedKey(48 * time.Hour)
				plain := w.populate(4)
				v := w.killable(kill{i, 1})
				v.Retire = true
				switch step { // in the middle of those that there are many of
				case beforePatchStep, afterPatch:
					v.Kill.Nth = 5
				}
				if !killed(w, v) {
					t.Fatal("it came to its end: no such step")
				}
				w.finish(v, plain)
				if info := w.keyInfo(); info.MinDecryptionVersion != 2 || info.MinAvailableVersion != 2 {
					t.Errorf("not retired and trimmed: %+v", info)
				}
			})
		}
	}
}

// TestKilledAtRandom kills runs at 200 points over 10,000 Secrets, each going on
// from where the last one ended, every tenth as a process.
func TestKilledAtRandom(t *testing.T) {
	secrets, kills := 10000, 200
	if testing.Short() {
		secrets, kills = 1000, 50
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t)
	w.agedKey(48 * time.Hour)
	plain := w.fill(secrets)

	// Those that a run comes to before it has nothing to do any more, and how
	// often at most: all kills together leave something for the last run.
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
	v := w.killable(kill{})
	hits := map[string]int{}
	for n := 0; n < kills; {
		point := points[random.IntN(len(points))]
		step := steps[point]
		v.Kill = kill{point, 1 + random.Int64N(often[step])}
		if n > 0 && w.keyInfo().Latest > 1 && strings.HasSuffix(step.path, "/rotate") {
			continue // that one is past
		}
		way := w.killInside
		if n%10 == 0 {
			way = w.killProcess
		}
		if !way(v) {
			t.Fatalf("the run that was to be killed at %s came to its end after %d others", v.Kill, n)
		}
		hits[step.String()]++
		n++
	}
	t.Logf("killed %v", hits)
	old := 0
	for id, s := range w.all() {
		if plain[id] != nil && versions(t, s)["e"] == 1 {
			old++
		}
	}
	if old == 0 || old == secrets {
		t.Errorf("%d of %d are old before the last run: the kills were not in the middle", old, secrets)
	}
	w.finish(v, plain)
}

// fill stores Secrets of one entry each in the world's namespace.
func (w *world) fill(n int) map[string]map[string]string {
	w.t.Helper()
	plain := map[string]map[string]string{}
	var items []transit.Item
	var names []string
	for i := range n {
		name := fmt.Sprintf("s%05d", i)
		names = append(names, name)
		plain[w.ns+"/"+name] = map[string]string{"e": "value of " + name}
		items = append(items,
			transit.Item{Data: []byte("value of " + name), Context: ciphertext.Strict.Context(w.ns, name, "e")})
	}
	results, err := w.root.Encrypt(w.t.Context(), ciphertext.Key{Mount: "transit", Name: w.key}, items)
	if err != nil {
		w.t.Fatal(err)
	}
	stored, ctx := errgroup.WithContext(w.t.Context())
	stored.SetLimit(16)
	for i, r := range results {
		stored.Go(func() error {
			_, err := w.kube.CoreV1().Secrets(w.ns).Create(ctx, &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: names[i],
					Labels: map[string]string{ciphertext.LabelTransitKey: w.key, ciphertext.LabelKeyVersion: "1"}},
				Type: ciphertext.Type, Data: map[string][]byte{"e": r.Data},
			}, metav1.CreateOptions{})
			return errors.Join(err, r.Err)
		})
	}
	if err := stored.Wait(); err != nil {
		w.t.Fatal(err)
	}
	return plain
}

package rotator_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestWritersDuringRuns has three writers change the Secrets as fast as they can during
// several runs: one edits values, one recreates Secrets, one sets a label. The last write
// of each persists.
func TestWritersDuringRuns(t *testing.T) {
	const secrets, runs = 60, 5
	f := newServerFixture(t)
	plain := f.fill(secrets)
	key := ciphertext.Key{Mount: "transit", Name: f.Key}
	api := f.Kube.CoreV1().Secrets(f.Namespace)
	encrypt := func(name, text string) []byte {
		results, err := f.Root.Encrypt(t.Context(), key,
			[]transit.Item{{Data: []byte(text), Context: ciphertext.Strict.Context(f.Namespace, name, "e")}})
		if err != nil || results[0].Err != nil {
			t.Error(err)
			return nil
		}
		return results[0].Data
	}

	var mu sync.Mutex // guards plain
	labels, did := map[string]string{}, [3]int{}
	locks := make([]sync.Mutex, secrets) // the first two writers exclude each other
	wrote := func(name, text string) {
		mu.Lock()
		defer mu.Unlock()
		plain[f.Namespace+"/"+name]["e"] = text
	}
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for who, write := range []func(i int, name, text string) error{
		func(i int, name, text string) error { // edits, as kubectl edit does: read, change, update
			locks[i].Lock()
			defer locks[i].Unlock()
			for {
				s, err := api.Get(t.Context(), name, metav1.GetOptions{})
				if err != nil {
					return err
				}
				s.Data["e"] = encrypt(name, text)
				if _, err = api.Update(t.Context(), s, metav1.UpdateOptions{}); apierrors.IsConflict(err) {
					continue
				}
				wrote(name, text)
				return err
			}
		},
		func(i int, name, text string) error { // deletes and recreates
			locks[i].Lock()
			defer locks[i].Unlock()
			if err := api.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
				return err
			}
			_, err := api.Create(t.Context(), &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: name,
					Labels: map[string]string{ciphertext.LabelTransitKey: f.Key, "recreated": text}},
				Type: ciphertext.Type, Data: map[string][]byte{"e": encrypt(name, text)},
			}, metav1.CreateOptions{})
			wrote(name, text)
			return err
		},
		func(_ int, name, text string) error { // relabels
			patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]string{"owner": text}}})
			if err != nil {
				return err
			}
			s, err := api.Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{})
			if apierrors.IsNotFound(err) {
				return nil // another writer is recreating it
			}
			if err == nil {
				labels[string(s.UID)] = text
			}
			return err
		},
	} {
		writers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				i := rand.IntN(secrets)
				if err := write(i, fmt.Sprintf("s%05d", i), fmt.Sprintf("%d-%d", who, n)); err != nil {
					t.Errorf("writer %d: %v", who, err)
					return
				}
				did[who] = n
				runtime.Gosched()
			}
		})
	}
	rewrapped := 0
	for range runs {
		report, err := rotator.Run(t.Context(), f.minimal(), f.Kube,
			f.options(func(o *rotator.Options) { o.Rotate = rotator.Always }))
		if report == nil {
			t.Fatal(err)
		}
		k := onlyKey(t, report)
		rewrapped += k.Rewrapped
		for _, p := range k.Unresolved.Items { // only because of the writers
			if !strings.Contains(p.Reason, "run again") && !strings.Contains(p.Reason, "others changed the Secret") {
				t.Errorf("unresolved: %v", p)
			}
		}
	}
	close(stop)
	writers.Wait()
	if rewrapped < secrets || slices.Min(did[:]) == 0 {
		t.Errorf("%d entries rewrapped, %v writes: they were not concurrent", rewrapped, did)
	}
	f.RotateKey()
	if _, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options()); err != nil {
		t.Fatalf("without writers: %v", err)
	}
	f.checkIntact(plain, runs+2)
	for id, s := range f.all() {
		if s.Namespace != f.Namespace || plain[id] == nil {
			continue
		}
		if want, ok := labels[string(s.UID)]; ok && s.Labels["owner"] != want {
			t.Errorf("the label of %s is %q, want %q", id, s.Labels["owner"], want)
		}
	}
	t.Logf("%d entries rewrapped, %v writes", rewrapped, did)
}

// TestHeavySecrets rewraps Secrets of half a MiB, whose patches have the old and the new ciphertext.
func TestHeavySecrets(t *testing.T) {
	f := newServerFixture(t)
	plain := map[string]map[string]string{}
	big := strings.Repeat("x", 500<<10)
	for _, name := range []string{"a", "b"} {
		f.CreateSecret(f.encrypt(f.Namespace, name, map[string]string{"e": big}))
		plain[f.Namespace+"/"+name] = map[string]string{"e": big}
	}
	f.RotateKey()
	report, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options())
	if err != nil {
		t.Fatal(err)
	}
	if k := onlyKey(t, report); k.Secrets != 2 || k.Rewrapped != 2 {
		t.Errorf("%d Secrets, %d rewrapped", k.Secrets, k.Rewrapped)
	}
	f.checkIntact(plain, 2)
}

// TestIdleRunListsOnce verifies that a run lists once if every entry is at its target.
func TestIdleRunListsOnce(t *testing.T) {
	f := newFixture(t)
	f.fill(10)
	lists, writes := 0, 0
	kube := f.Client(func(next http.RoundTripper) http.RoundTripper {
		return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
			switch {
			case r.Method == http.MethodPatch:
				writes++
			case r.URL.Query().Get("limit") != "":
				lists++
			}
			return next.RoundTrip(r)
		})
	})
	report, err := rotator.Run(t.Context(), f.minimal(), kube,
		f.options(func(o *rotator.Options) { o.Namespaces = []string{f.Namespace} }))
	if err != nil || lists != 1 || writes != 0 {
		t.Errorf("%v, %d lists and %d writes, want 1 and 0", err, lists, writes)
	}
	if k := onlyKey(t, report); k.Current != 10 || k.Secrets != 10 || k.Versions[1] != 10 {
		t.Errorf("report: %+v", k)
	}
}

package rotator_test

import (
	"encoding/json"
	"fmt"
	"io"
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
	"github.com/secretmanager-io/secretmanager/internal/secretlist"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestWritersAtFullSpeed has three others write to the Secrets as fast as they
// can while run after run rotates the key: one edits values, one deletes and
// recreates, one relabels. What each wrote last is there in the end.
func TestWritersAtFullSpeed(t *testing.T) {
	const secrets, runs = 60, 5
	w := newWorld(t)
	plain := w.fill(secrets)
	key := ciphertext.Key{Mount: "transit", Name: w.key}
	api := w.kube.CoreV1().Secrets(w.ns)
	encrypt := func(name, text string) []byte {
		results, err := w.root.Encrypt(t.Context(), key,
			[]transit.Item{{Data: []byte(text), Context: ciphertext.Strict.Context(w.ns, name, "e")}})
		if err != nil || results[0].Err != nil {
			t.Error(err)
			return nil
		}
		return results[0].Data
	}

	var mu sync.Mutex // guards plain
	labels, did := map[string]string{}, [3]int{}
	locks := make([]sync.Mutex, secrets) // of a Secret: one of the first two at a time
	wrote := func(name, text string) {
		mu.Lock()
		defer mu.Unlock()
		plain[w.ns+"/"+name]["e"] = text
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
					Labels: map[string]string{ciphertext.LabelTransitKey: w.key, "recreated": text}},
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
				return nil // it is just being recreated
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
		report, err := rotator.Run(t.Context(), w.minimal(), w.kube,
			w.options(func(o *rotator.Options) { o.Rotate = rotator.Always }))
		if report == nil {
			t.Fatal(err)
		}
		k := only(t, report)
		rewrapped += k.Rewrapped
		for _, l := range k.Left { // only what the writers can be blamed for
			if !strings.Contains(l.Reason, "run again") && !strings.Contains(l.Reason, "others changed the Secret") {
				t.Errorf("left: %v", l)
			}
		}
	}
	close(stop)
	writers.Wait()
	if rewrapped < secrets || slices.Min(did[:]) == 0 {
		t.Errorf("%d entries rewrapped beside %v writes: they were not at work at the same time", rewrapped, did)
	}
	w.rotateKey()
	if _, err := rotator.Run(t.Context(), w.minimal(), w.kube, w.options()); err != nil {
		t.Fatalf("when all is quiet: %v", err)
	}
	w.intact(plain, runs+2)
	for id, s := range w.all() {
		if s.Namespace != w.ns || plain[id] == nil {
			continue
		}
		if want, ok := labels[string(s.UID)]; ok && s.Labels["owner"] != want {
			t.Errorf("the label of %s is %q, and was set to %q last", id, s.Labels["owner"], want)
		}
	}
	t.Logf("%d entries rewrapped beside %v writes", rewrapped, did)
}

// TestHeavySecrets has Secrets of half a MiB among small ones: no page is ever
// longer than its limit, whatever the pages before it weighed, and all are seen.
func TestHeavySecrets(t *testing.T) {
	w := newWorld(t)
	plain := w.fill(60) // so that the next page is a long one
	big := strings.Repeat("x", 500<<10)
	for i := range 9 {
		name := fmt.Sprintf("z%02d", i)
		w.store(w.seal(w.ns, name, map[string]string{"e": big}))
		plain[w.ns+"/"+name] = map[string]string{"e": big}
	}
	w.rotateKey()
	var pages pageLengths
	report, err := rotator.Run(t.Context(), w.minimal(), w.client(pages.watch), w.options())
	if err != nil {
		t.Fatal(err)
	}
	if k := only(t, report); k.Secrets != 69 || k.Rewrapped != 69 {
		t.Errorf("%d Secrets, %d rewrapped", k.Secrets, k.Rewrapped)
	}
	if pages.brokenOff == 0 {
		t.Error("no page was too long: the test does not test")
	}
	if pages.longest > secretlist.MaxPageBytes+64<<10 {
		t.Errorf("%d bytes of a page were read", pages.longest)
	}
	w.intact(plain, 2)
}

// TestIdleRunListsOnce: what plan saw at its target need not be looked at again.
func TestIdleRunListsOnce(t *testing.T) {
	w := newWorld(t)
	w.fill(10)
	lists, writes := 0, 0
	kube := w.client(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			switch {
			case r.Method == http.MethodPatch:
				writes++
			case r.URL.Query().Get("limit") != "":
				lists++
			}
			return next.RoundTrip(r)
		})
	})
	report, err := rotator.Run(t.Context(), w.minimal(), kube, w.options())
	if err != nil || lists != 1 || writes != 0 {
		t.Errorf("%v, %d lists and %d writes, want 1 and none", err, lists, writes)
	}
	if k := only(t, report); k.Current != 10 || k.Secrets != 10 || k.Versions[1] != 10 {
		t.Errorf("report: %+v", k)
	}
}

// pageLengths measures how much of each page is read.
type pageLengths struct {
	mu                 sync.Mutex
	longest, brokenOff int
}

func (p *pageLengths) watch(next http.RoundTripper) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil && r.URL.Query().Get("limit") != "" {
			resp.Body = &measured{ReadCloser: resp.Body, to: p}
		}
		return resp, err
	})
}

type measured struct {
	io.ReadCloser
	to    *pageLengths
	read  int
	ended bool
}

func (m *measured) Read(p []byte) (int, error) {
	n, err := m.ReadCloser.Read(p)
	m.read += n
	m.ended = m.ended || err == io.EOF
	return n, err
}

func (m *measured) Close() error {
	m.to.mu.Lock()
	defer m.to.mu.Unlock()
	m.to.longest = max(m.to.longest, m.read)
	if !m.ended {
		m.to.brokenOff++
	}
	return m.ReadCloser.Close()
}

package secretmanager_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/relay"
	"github.com/secretmanager-io/secretmanager/transit"
)

// batches is a real Vault that notes how many items each rewrap request has, and
// refuses those for which refuse returns a status.
type batches struct {
	token  string // the root token if empty
	sizes  []int
	refuse func(items []map[string]string) int
}

func (w *world) through(b *batches) *transit.Session {
	w.t.Helper()
	proxy, err := relay.New(w.vault.Address, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var in struct {
			Items []map[string]string `json:"batch_input"`
		}
		json.Unmarshal(body, &in)
		b.sizes = append(b.sizes, len(in.Items))
		if b.refuse != nil {
			if status := b.refuse(in.Items); status != 0 {
				rw.WriteHeader(status)
				fmt.Fprint(rw, `{"errors": ["as asked"]}`)
				return
			}
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(rw, r)
	}))
	w.t.Cleanup(server.Close)
	if b.token == "" {
		b.token = w.vault.RootToken
	}
	return session(w.t, server.URL, b.token)
}

// prove returns what is said of each Secret, by name: "" if it opens.
func prove(t *testing.T, vault *transit.Session, secrets ...*corev1.Secret) (said map[string]string, err error) {
	t.Helper()
	said = map[string]string{}
	prover := secretmanager.NewVerifier(vault, func(p secretmanager.VerifyResult) {
		if _, again := said[p.Secret.Name]; again {
			t.Errorf("%s is done twice", p.Secret.Name)
		}
		text := ""
		for _, f := range p.Failed {
			text += fmt.Sprintf("%s: %v\n", f.Entry, f.Err)
		}
		if p.Err != nil {
			text += "unknown: " + p.Err.Error()
		}
		said[p.Secret.Name] = text
	})
	for _, s := range secrets {
		if err = prover.Add(t.Context(), s); err != nil {
			return said, err
		}
	}
	return said, prover.Flush(t.Context())
}

// Entries of many Secrets, of several keys, go to Vault together, and each is
// told apart: those that do not open are named with the reason.
func TestVerifier(t *testing.T) {
	w := newWorld(t)
	w.write("transit/keys/"+w.key+"-plain", nil)
	var secrets []*corev1.Secret
	want := map[string]string{}
	add := func(s *corev1.Secret, failure string) {
		secrets, want[s.Name] = append(secrets, s), failure
	}
	for i := range 60 {
		add(w.seal(w.spec(fmt.Sprintf("good-%d", i), map[string]string{"a": "x", "b": "y", "c": "z"})), "")
		if i%20 == 10 {
			moved := w.seal(w.spec("a", map[string]string{"a": "x", "b": "y"}))
			moved.Name = fmt.Sprintf("moved-%d", i)
			moved.Data["b"] = w.seal(w.spec(moved.Name, map[string]string{"b": "y"})).Data["b"]
			add(moved, "a: ")
		}
	}
	other := w.spec("other", map[string]string{"a": "x"})
	other.Settings = ciphertext.Settings{Key: ciphertext.Key{Name: w.key + "-plain"}, Scope: ciphertext.None}
	add(w.seal(other), "")
	gone := w.seal(w.spec("gone", map[string]string{"a": "x"}))
	gone.Labels[ciphertext.LabelTransitKey] = "nowhere"
	add(gone, "a: ")
	damaged := w.seal(w.spec("damaged", map[string]string{"a": "x", "b": "y"}))
	damaged.Data["a"] = []byte("hunter2")
	add(damaged, "a: ")
	empty := w.seal(w.spec("empty", map[string]string{"a": "x"}))
	empty.Data = nil
	add(empty, ": the Secret has no entries")
	unlabelled := w.seal(w.spec("unlabelled", map[string]string{"a": "x"}))
	delete(unlabelled.Labels, ciphertext.LabelTransitKey)
	add(unlabelled, ": label")
	odd := w.seal(w.spec("odd", map[string]string{"a": "x"}))
	odd.Labels[ciphertext.LabelTransitKey] = "a b"
	add(odd, ": label secretmanager.io/transit-key is not the name of a transit key")

	unbound := w.seal(w.spec("unbound", map[string]string{"a": "x"}))
	unbound.Annotations[ciphertext.AnnotationScope] = string(ciphertext.None)
	add(unbound, "a: missing 'context' for key derivation")

	b := &batches{}
	said, err := prove(t, w.through(b), secrets...)
	if err != nil {
		t.Fatal(err)
	}
	for name, failure := range want {
		got, done := said[name]
		if !done || (failure == "") != (got == "") || !strings.HasPrefix(got, failure) || strings.Count(got, "\n") > 1 {
			t.Errorf("%s: done %t: %q, not %q", name, done, got, failure)
		}
	}
	if len(said) != len(want) || strings.Contains(fmt.Sprint(said), "hunter2") {
		t.Errorf("%d of %d are done: %v", len(said), len(want), said)
	}
	for name, text := range map[string]string{"moved-10": "it may have been copied from elsewhere",
		"gone": "check the label and annotation that name key and mount"} {
		if !strings.Contains(said[name], text) {
			t.Errorf("%q is not in %s", text, said[name])
		}
	}
	// 188 entries of the first key: two requests. One each of the others.
	total := 0
	for _, n := range b.sizes {
		if total += n; n > 100 {
			t.Errorf("a request of %d items", n)
		}
	}
	if len(b.sizes) != 5 || total != 190 {
		t.Errorf("requests of %v items", b.sizes)
	}
}

// A request that is refused as a whole is made again in parts, so that one entry
// does not speak for the others.
func TestVerifierBisects(t *testing.T) {
	w := newWorld(t)
	bad := w.seal(w.spec("bad", map[string]string{"a": "x", "b": "y"}))
	b := &batches{refuse: func(items []map[string]string) int {
		for _, i := range items {
			if i["ciphertext"] == string(bad.Data["b"]) {
				return http.StatusBadRequest
			}
		}
		return 0
	}}
	said, err := prove(t, w.through(b), w.seal(w.spec("one", map[string]string{"a": "x"})), bad,
		w.seal(w.spec("two", map[string]string{"a": "x"})))
	if err != nil || len(said) != 3 || said["one"] != "" || said["two"] != "" ||
		!strings.HasPrefix(said["bad"], "b: ") || strings.Count(said["bad"], "\n") != 1 {
		t.Errorf("%q (%v)", said, err)
	}
	if diff := cmp.Diff([]int{4, 2, 2, 1, 1}, b.sizes); diff != "" {
		t.Errorf("items of each request, -want +got:\n%s", diff)
	}
}

// A key that one may not use says nothing of the others, and is asked about once.
func TestVerifierWithoutTheRight(t *testing.T) {
	w := newWorld(t)
	w.write("transit/keys/"+w.key+"-2", map[string]any{"derived": true})
	b := &batches{token: w.token(`path "transit/rewrap/KEY" { capabilities = ["update"] }`)}
	vault := w.through(b)
	var secrets []*corev1.Secret
	large := strings.Repeat("x", 600_000)
	for i := range 3 {
		spec := w.spec(fmt.Sprintf("denied-%d", i), map[string]string{"a": large})
		spec.Settings.Key.Name += "-2"
		secrets = append(secrets, w.seal(spec))
	}
	secrets = append(secrets, w.seal(w.spec("allowed", map[string]string{"a": "x"})))
	said, err := prove(t, vault, secrets...)
	if err != nil || said["allowed"] != "" {
		t.Errorf("%q (%v)", said["allowed"], err)
	}
	for i := range 3 {
		if got := said[fmt.Sprintf("denied-%d", i)]; !strings.HasPrefix(got, "unknown: ") ||
			!strings.Contains(got, "check that the policy has update on transit/rewrap/"+w.key+"-2") {
			t.Errorf("denied-%d: %s", i, got)
		}
	}
	if len(b.sizes) != 2 {
		t.Errorf("requests of %v items", b.sizes)
	}
}

// A Vault that is not there ends it: every Secret is done, and unknown.
func TestVerifierWithoutVault(t *testing.T) {
	w := newWorld(t)
	var secrets []*corev1.Secret
	for i, key := range []string{w.key, w.key + "-2", w.key + "-3"} {
		s := w.seal(w.spec(fmt.Sprint("s", i), map[string]string{"a": "x"}))
		s.Labels[ciphertext.LabelTransitKey] = key
		secrets = append(secrets, s)
	}
	said, err := prove(t, session(t, "http://127.0.0.1:1", "x"), secrets...)
	if !errors.Is(err, transit.ErrUnreachable) || len(said) != len(secrets) {
		t.Errorf("%v: %q", err, said)
	}
	for name, s := range said {
		if !strings.HasPrefix(s, "unknown: ") {
			t.Errorf("%s: %q", name, s)
		}
	}
	// The same when the request is made while Secrets are added.
	long := w.seal(w.spec("long", map[string]string{"a": strings.Repeat("x", 700_000)}))
	longer := w.seal(w.spec("longer", map[string]string{"a": strings.Repeat("x", 700_000)}))
	said, err = prove(t, session(t, "http://127.0.0.1:1", "x"), secrets[1], long, longer)
	if !errors.Is(err, transit.ErrUnreachable) || len(said) != 3 {
		t.Errorf("%v: %d are done", err, len(said))
	}
}

// What waits is bounded, and what is sent together is not torn apart for that.
func TestVerifierBoundsWhatWaits(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		name                     string
		secrets, entries, length int
		keys                     bool // one for each Secret
		waits, requests          int
	}{
		{"many entries", 100, 3, 10, false, 33, 4},
		{"long ones", 40, 1, 300_000, false, 2, 20},
		{"a key each", 20, 1, 700_000, true, 9, 20},
	} {
		t.Run(test.name, func(t *testing.T) {
			texts := map[string]string{}
			for i := range test.entries {
				texts[fmt.Sprint("e", i)] = strings.Repeat("x", test.length)
			}
			sealed := w.seal(w.spec("s", texts))
			b := &batches{}
			done := 0
			prover := secretmanager.NewVerifier(w.through(b), func(secretmanager.VerifyResult) { done++ })
			for i := range test.secrets {
				s := sealed.DeepCopy()
				if test.keys {
					s.Labels[ciphertext.LabelTransitKey] = fmt.Sprint(w.key, "-", i)
				}
				if err := prover.Add(t.Context(), s); err != nil {
					t.Fatal(err)
				}
				if waits := i + 1 - done; waits > test.waits {
					t.Fatalf("%d Secrets wait, more than %d", waits, test.waits)
				}
			}
			if err := prover.Flush(t.Context()); err != nil || done != test.secrets || len(b.sizes) != test.requests {
				t.Errorf("%d are done, in requests of %v items (%v)", done, b.sizes, err)
			}
		})
	}
}

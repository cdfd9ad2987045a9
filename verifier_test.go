package secretmanager_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/memoryvault"
	"github.com/secretmanager-io/secretmanager/transit"
)

// countRewraps returns a session at a proxy of the Vault, and the number of items of each
// request.
func (e *env) countRewraps(token string) (*transit.Session, *[]int) {
	e.T.Helper()
	sizes := &[]int{}
	address := e.VaultProxy(func(w http.ResponseWriter, r *http.Request, vault http.Handler) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			e.T.Error(err)
		}
		*sizes = append(*sizes, strings.Count(string(body), `"ciphertext"`))
		r.Body = io.NopCloser(bytes.NewReader(body))
		vault.ServeHTTP(w, r)
	})
	return e.Session(address, token), sizes
}

// verify returns the failures of each Secret, by its name.
func verify(t *testing.T, vault secretmanager.Vault, secrets ...*corev1.Secret) (map[string]string, error) {
	t.Helper()
	failures := map[string]string{}
	verifier := secretmanager.NewVerifier(vault, func(r secretmanager.VerifyResult) {
		if _, reported := failures[r.Secret.Name]; reported {
			t.Errorf("%s is reported twice", r.Secret.Name)
		}
		text := ""
		for _, f := range r.Failed {
			text += fmt.Sprintf("%s: %v\n", f.Entry, f.Err)
		}
		if r.Err != nil {
			text += "unknown: " + r.Err.Error()
		}
		failures[r.Secret.Name] = text
	})
	for _, s := range secrets {
		if err := verifier.Add(t.Context(), s); err != nil {
			return failures, err
		}
	}
	return failures, verifier.Flush(t.Context())
}

// TestVerifier verifies Secrets of several keys in shared requests, and checks the result
// of each.
func TestVerifier(t *testing.T) {
	e := newEnv(t)
	e.Write("transit/keys/"+e.Key+"-plain", nil)
	var secrets []*corev1.Secret
	want := map[string]string{}
	add := func(s *corev1.Secret, failure string) {
		secrets, want[s.Name] = append(secrets, s), failure
	}
	for i := range 60 {
		add(e.encrypt(e.spec(fmt.Sprintf("good-%d", i), map[string]string{"a": "x", "b": "y", "c": "z"})), "")
		if i%20 == 10 {
			moved := e.encrypt(e.spec("a", map[string]string{"a": "x", "b": "y"}))
			moved.Name = fmt.Sprintf("moved-%d", i)
			moved.Data["b"] = e.encrypt(e.spec(moved.Name, map[string]string{"b": "y"})).Data["b"]
			add(moved, "a: ")
		}
	}
	other := e.spec("other", map[string]string{"a": "x"})
	other.Settings = ciphertext.Settings{Key: ciphertext.Key{Name: e.Key + "-plain"}, Scope: ciphertext.None}
	add(e.encrypt(other), "")
	missing := e.encrypt(e.spec("missing", map[string]string{"a": "x"}))
	missing.Labels[ciphertext.LabelTransitKey] = "nowhere"
	add(missing, "a: ")
	damaged := e.encrypt(e.spec("damaged", map[string]string{"a": "x", "b": "y"}))
	damaged.Data["a"] = []byte("hunter2")
	add(damaged, "a: ")
	empty := e.encrypt(e.spec("empty", map[string]string{"a": "x"}))
	empty.Data = nil
	add(empty, ": the Secret has no entries")
	unlabeled := e.encrypt(e.spec("unlabeled", map[string]string{"a": "x"}))
	delete(unlabeled.Labels, ciphertext.LabelTransitKey)
	add(unlabeled, ": label")
	odd := e.encrypt(e.spec("odd", map[string]string{"a": "x"}))
	odd.Labels[ciphertext.LabelTransitKey] = "a b"
	add(odd, ": label secretmanager.io/transit-key is not the name of a transit key")

	unbound := e.encrypt(e.spec("unbound", map[string]string{"a": "x"}))
	unbound.Annotations[ciphertext.AnnotationScope] = string(ciphertext.None)
	add(unbound, "a: missing 'context' for key derivation")

	vault, sizes := e.countRewraps(e.Vault.RootToken)
	failures, err := verify(t, vault, secrets...)
	if err != nil {
		t.Fatal(err)
	}
	for name, failure := range want {
		got, reported := failures[name]
		if !reported || (failure == "") != (got == "") || !strings.HasPrefix(got, failure) || strings.Count(got, "\n") > 1 {
			t.Errorf("%s: reported %t: %q, want %q", name, reported, got, failure)
		}
	}
	if len(failures) != len(want) || strings.Contains(fmt.Sprint(failures), "hunter2") {
		t.Errorf("%d of %d are reported: %v", len(failures), len(want), failures)
	}
	for name, text := range map[string]string{"moved-10": "it may have been copied from elsewhere",
		"missing": "check the label and annotation that name key and mount"} {
		if !strings.Contains(failures[name], text) {
			t.Errorf("%q is not in %s", text, failures[name])
		}
	}
	// Two requests for the 188 entries of the first key, and one for each of the others.
	total := 0
	for _, n := range *sizes {
		if total += n; n > 100 {
			t.Errorf("a request of %d items", n)
		}
	}
	if len(*sizes) != 5 || total != 190 {
		t.Errorf("requests of %v items", *sizes)
	}
}

// TestVerifierDenied checks that a denied key does not affect others, and causes one request.
func TestVerifierDenied(t *testing.T) {
	e := newEnv(t)
	e.Write("transit/keys/"+e.Key+"-2", map[string]any{"derived": true})
	vault, sizes := e.countRewraps(e.Token(`path "transit/rewrap/KEY" { capabilities = ["update"] }`))
	var secrets []*corev1.Secret
	large := strings.Repeat("x", 600_000)
	for i := range 3 {
		spec := e.spec(fmt.Sprintf("denied-%d", i), map[string]string{"a": large})
		spec.Settings.Key.Name += "-2"
		secrets = append(secrets, e.encrypt(spec))
	}
	secrets = append(secrets, e.encrypt(e.spec("allowed", map[string]string{"a": "x"})))
	failures, err := verify(t, vault, secrets...)
	if err != nil || failures["allowed"] != "" {
		t.Errorf("%q (%v)", failures["allowed"], err)
	}
	for i := range 3 {
		if got := failures[fmt.Sprintf("denied-%d", i)]; !strings.HasPrefix(got, "unknown: ") ||
			!strings.Contains(got, "check that the policy has update on transit/rewrap/"+e.Key+"-2") {
			t.Errorf("denied-%d: %s", i, got)
		}
	}
	if len(*sizes) != 2 {
		t.Errorf("requests of %v items", *sizes)
	}
}

// TestVerifierUnreachableVault checks that every Secret is reported with the error.
func TestVerifierUnreachableVault(t *testing.T) {
	e := newEnv(t)
	var secrets []*corev1.Secret
	for i, key := range []string{e.Key, e.Key + "-2", e.Key + "-3"} {
		s := e.encrypt(e.spec(fmt.Sprint("s", i), map[string]string{"a": "x"}))
		s.Labels[ciphertext.LabelTransitKey] = key
		secrets = append(secrets, s)
	}
	unreachable := e.Session("http://127.0.0.1:1", "x")
	failures, err := verify(t, unreachable, secrets...)
	if !errors.Is(err, transit.ErrUnreachable) || len(failures) != len(secrets) {
		t.Errorf("%v: %q", err, failures)
	}
	for name, s := range failures {
		if !strings.HasPrefix(s, "unknown: ") {
			t.Errorf("%s: %q", name, s)
		}
	}
	// The same when the request is made while Secrets are added.
	long := e.encrypt(e.spec("long", map[string]string{"a": strings.Repeat("x", 700_000)}))
	longer := e.encrypt(e.spec("longer", map[string]string{"a": strings.Repeat("x", 700_000)}))
	failures, err = verify(t, unreachable, secrets[1], long, longer)
	if !errors.Is(err, transit.ErrUnreachable) || len(failures) != 3 {
		t.Errorf("%v: %d are reported", err, len(failures))
	}
}

// TestVerifierLimits checks how many Secrets a Verifier keeps, and how many requests it
// makes.
func TestVerifierLimits(t *testing.T) {
	for _, test := range []struct {
		name                     string
		secrets, entries, length int
		keys                     bool // one per Secret
		waiting, requests        int
	}{
		{"many entries", 100, 3, 10, false, 33, 4},
		{"long entries", 40, 1, 300_000, false, 2, 20},
		{"many keys", 20, 1, 700_000, true, 9, 20},
	} {
		t.Run(test.name, func(t *testing.T) {
			vault := memoryvault.New("k")
			spec := secretmanager.Spec{Namespace: "ns", Name: "s", Entries: map[string][]byte{},
				Settings: ciphertext.Settings{Key: ciphertext.Key{Name: "k"}}}
			for i := range test.entries {
				spec.Entries[fmt.Sprint("e", i)] = bytes.Repeat([]byte("x"), test.length)
			}
			encrypted, err := secretmanager.Encrypt(t.Context(), vault, spec)
			if err != nil {
				t.Fatal(err)
			}
			vault.Requests()
			reported := 0
			verifier := secretmanager.NewVerifier(vault, func(secretmanager.VerifyResult) { reported++ })
			for i := range test.secrets {
				s := encrypted.DeepCopy()
				if test.keys {
					s.Labels[ciphertext.LabelTransitKey] = fmt.Sprint("k-", i)
				}
				if err := verifier.Add(t.Context(), s); err != nil {
					t.Fatal(err)
				}
				if waiting := i + 1 - reported; waiting > test.waiting {
					t.Fatalf("%d Secrets wait, more than %d", waiting, test.waiting)
				}
			}
			err = verifier.Flush(t.Context())
			requests := vault.Requests()
			if err != nil || reported != test.secrets || len(requests) != test.requests {
				t.Errorf("%d Secrets are reported, after %d requests (%v)", reported, len(requests), err)
			}
		})
	}
}

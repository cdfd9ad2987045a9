package secretmanager_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
)

func bytesOf(texts map[string]string) map[string][]byte {
	data := map[string][]byte{}
	for name, text := range texts {
		data[name] = []byte(text)
	}
	return data
}

func TestUpdate(t *testing.T) {
	w := newWorld(t)
	was := w.store(w.seal(w.spec("s", map[string]string{"a": "1", "b": "2", "c": "3"})))
	lib := secretmanager.New(w.as(author), w.kube)
	change := secretmanager.Spec{Entries: bytesOf(map[string]string{"b": "two", "d": ""}), Remove: []string{"c"},
		AllowEmpty: true}

	if _, err := lib.Update(t.Context(), was, change, secretmanager.Options{DryRun: true}); err != nil {
		t.Fatal(err)
	}
	if w.get("s").ResourceVersion != was.ResourceVersion {
		t.Error("a dry run changed it")
	}
	is, err := lib.Update(t.Context(), was, change, secretmanager.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"a": "1", "b": "two", "d": ""}, w.read("s")); diff != "" {
		t.Errorf("plaintext (-want +got):\n%s", diff)
	}
	if string(is.Data["a"]) != string(was.Data["a"]) || is.Kind != "Secret" {
		t.Error("an entry that was not named was written, or it is not the Secret as stored")
	}

	// Removing alone asks Vault for no encryption, and the version hint follows.
	w.write("transit/keys/"+w.key+"/rotate", nil)
	if is, err = lib.Update(t.Context(), is, secretmanager.Spec{Entries: bytesOf(map[string]string{"b": "x"})},
		secretmanager.Options{}); err != nil {
		t.Fatal(err)
	}
	is, err = secretmanager.New(w.as(`path "transit/rewrap/KEY" { capabilities = ["update"] }`), w.kube).
		Update(t.Context(), is, secretmanager.Spec{Remove: []string{"a", "d"}}, secretmanager.Options{})
	if err != nil || is.Labels[ciphertext.LabelKeyVersion] != "2" {
		t.Errorf("%v, hint %q", err, is.Labels[ciphertext.LabelKeyVersion])
	}
}

func TestUpdateRefuses(t *testing.T) {
	w := newWorld(t)
	was := w.store(w.seal(w.spec("s", map[string]string{"a": "1", "b": "2"})))
	for name, test := range map[string]struct {
		change secretmanager.Spec
		want   []string
	}{
		"nothing":     {want: []string{"there is nothing to change"}},
		"all removed": {secretmanager.Spec{Remove: []string{"a", "b"}}, []string{"no entry would remain"}},
		"what is absent": {secretmanager.Spec{Remove: []string{"x", "y"}},
			[]string{`entry "x" is to be removed and does not exist`, `entry "y"`}},
		"twice": {secretmanager.Spec{Entries: bytesOf(map[string]string{"a": "1"}), Remove: []string{"a"}},
			[]string{`entry "a" is to be removed, and named a second time`}},
		"empty":      {secretmanager.Spec{Entries: bytesOf(map[string]string{"a": ""})}, []string{`entry "a" is empty`}},
		"a bad name": {secretmanager.Spec{Entries: bytesOf(map[string]string{"a b": "1"})}, []string{`entry "a b"`}},
		"too large": {secretmanager.Spec{Entries: map[string][]byte{"c": make([]byte, 800_000)}},
			[]string{"a Kubernetes Secret holds"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.lib.Update(t.Context(), was, test.change, secretmanager.Options{})
			if !errors.Is(err, secretmanager.ErrInvalid) {
				t.Errorf("got %v", err)
			}
			says(t, err, test.want...)
			if w.get("s").ResourceVersion != was.ResourceVersion {
				t.Error("it was written")
			}
		})
	}
}

// TestUpdateWhatChanged has somebody change the Secret after it was read.
func TestUpdateWhatChanged(t *testing.T) {
	edit := func(f func(w *world, s *corev1.Secret)) func(*world) {
		return func(w *world) {
			s := w.get("s")
			f(w, s)
			if _, err := w.kube.CoreV1().Secrets(w.ns).Update(w.t.Context(), s, metav1.UpdateOptions{}); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	fresh := func(w *world, entry string) []byte {
		return w.seal(w.spec("s", map[string]string{entry: "theirs"})).Data[entry]
	}
	for name, test := range map[string]struct {
		act  func(w *world)
		want map[string]string // nil: ErrChanged
	}{
		"another entry": {edit(func(w *world, s *corev1.Secret) { s.Data["z"] = fresh(w, "z") }),
			map[string]string{"a": "ours", "n": "new", "z": "theirs"}},
		"the one that is set": {edit(func(w *world, s *corev1.Secret) { s.Data["a"] = fresh(w, "a") }), nil},
		"the one that goes":   {edit(func(w *world, s *corev1.Secret) { s.Data["b"] = fresh(w, "b") }), nil},
		"it is gone":          {edit(func(w *world, s *corev1.Secret) { delete(s.Data, "b") }), nil},
		"the one that comes":  {edit(func(w *world, s *corev1.Secret) { s.Data["n"] = fresh(w, "n") }), nil},
		"the key":             {edit(func(w *world, s *corev1.Secret) { s.Labels[ciphertext.LabelTransitKey] = "other" }), nil},
		"the scope":           {edit(func(w *world, s *corev1.Secret) { s.Annotations[ciphertext.AnnotationScope] = "cluster" }), nil},
		"the Secret": {func(w *world) {
			s := w.get("s")
			if err := w.kube.CoreV1().Secrets(w.ns).Delete(w.t.Context(), "s", metav1.DeleteOptions{}); err != nil {
				w.t.Fatal(err)
			}
			s.UID, s.ResourceVersion = "", ""
			w.store(s)
		}, nil},
		"nothing any more": {func(w *world) {
			if err := w.kube.CoreV1().Secrets(w.ns).Delete(w.t.Context(), "s", metav1.DeleteOptions{}); err != nil {
				w.t.Fatal(err)
			}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			was := w.store(w.seal(w.spec("s", map[string]string{"a": "1", "b": "2"})))
			test.act(w)
			writes := 0
			_, err := secretmanager.New(w.root, w.client(func(int) { writes++ })).Update(t.Context(), was,
				secretmanager.Spec{Entries: bytesOf(map[string]string{"a": "ours", "n": "new"}), Remove: []string{"b"}},
				secretmanager.Options{})
			if test.want == nil {
				if !errors.Is(err, secretmanager.ErrChanged) || writes != 1 {
					t.Errorf("%d writes, %v", writes, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, w.read("s")); diff != "" {
				t.Errorf("plaintext (-want +got):\n%s", diff)
			}
		})
	}
}

// What the API server refuses for what it is is not taken for a conflict.
func TestUpdateRefusedByTheServer(t *testing.T) {
	w := newWorld(t)
	was := w.seal(w.spec("s", map[string]string{"a": "1"}))
	was.Immutable = new(bool)
	was = w.store(was)
	yes := true
	was.Immutable = &yes
	is, err := w.kube.CoreV1().Secrets(w.ns).Update(t.Context(), was, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	is.Immutable = nil // as if we did not know
	_, err = w.lib.Update(t.Context(), is, secretmanager.Spec{Entries: bytesOf(map[string]string{"a": "2"})},
		secretmanager.Options{})
	if err == nil || errors.Is(err, secretmanager.ErrChanged) {
		t.Errorf("got %v", err)
	}
	says(t, err, "check what admits Secrets")
}

func TestDecrypt(t *testing.T) {
	w := newWorld(t)
	s := w.seal(w.spec("s", map[string]string{"a": "1", "b": "2"}))
	plain, err := secretmanager.Decrypt(t.Context(), w.root, s)
	if diff := cmp.Diff(bytesOf(map[string]string{"a": "1", "b": "2"}), plain); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	s.Data["b"] = s.Data["a"]
	_, err = secretmanager.Decrypt(t.Context(), w.root, s)
	says(t, err, "decrypting Secret "+w.ns+"/s", `entry "b"`)
	_, err = secretmanager.Decrypt(t.Context(), w.as(author), s)
	says(t, err, "check that the policy has update on transit/decrypt/")
}

package secretmanager_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

func TestUpdate(t *testing.T) {
	e := newEnv(t)
	old := e.CreateSecret(e.encrypt(e.spec("s", map[string]string{"a": "1", "b": "2", "c": "3"})))
	lib := secretmanager.New(e.As(author), e.Kube)
	change := secretmanager.Spec{Entries: bytesOf(map[string]string{"b": "two", "d": ""}), Remove: []string{"c"},
		AllowEmpty: true}

	if _, err := lib.Update(t.Context(), old, change, secretmanager.Options{DryRun: true}); err != nil {
		t.Fatal(err)
	}
	if e.get("s").ResourceVersion != old.ResourceVersion {
		t.Error("a dry run changed the Secret")
	}
	stored, err := lib.Update(t.Context(), old, change, secretmanager.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"a": "1", "b": "two", "d": ""}, e.read("s")); diff != "" {
		t.Errorf("plaintext (-want +got):\n%s", diff)
	}
	if string(stored.Data["a"]) != string(old.Data["a"]) || stored.Kind != "Secret" {
		t.Error("another entry was changed, or this is not the stored Secret")
	}

	// Removing alone needs no right to encrypt, and updates the key version.
	e.RotateKey()
	if stored, err = lib.Update(t.Context(), stored, secretmanager.Spec{Entries: bytesOf(map[string]string{"b": "x"}),
		Settle: -1}, secretmanager.Options{}); err != nil {
		t.Fatal(err)
	}
	stored, err = secretmanager.New(e.As(`path "transit/rewrap/KEY" { capabilities = ["update"] }`), e.Kube).
		Update(t.Context(), stored, secretmanager.Spec{Remove: []string{"a", "d"}}, secretmanager.Options{})
	if err != nil || stored.Labels[ciphertext.LabelKeyVersion] != "2" {
		t.Errorf("%v, label %q", err, stored.Labels[ciphertext.LabelKeyVersion])
	}
}

func TestUpdateErrors(t *testing.T) {
	e := newEnv(t)
	old := e.CreateSecret(e.encrypt(e.spec("s", map[string]string{"a": "1", "b": "2"})))
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
			_, err := e.lib.Update(t.Context(), old, test.change, secretmanager.Options{})
			if !errors.Is(err, secretmanager.ErrInvalid) {
				t.Errorf("got %v", err)
			}
			fixture.CheckError(t, err, test.want...)
			if e.get("s").ResourceVersion != old.ResourceVersion {
				t.Error("the Secret was written")
			}
		})
	}
}

// TestUpdateChangedSecret changes the Secret after it was read.
func TestUpdateChangedSecret(t *testing.T) {
	edit := func(f func(e *env, s *corev1.Secret)) func(*env) {
		return func(e *env) {
			s := e.get("s")
			f(e, s)
			if _, err := e.Kube.CoreV1().Secrets(e.Namespace).Update(e.T.Context(), s, metav1.UpdateOptions{}); err != nil {
				e.T.Fatal(err)
			}
		}
	}
	fresh := func(e *env, entry string) []byte {
		return e.encrypt(e.spec("s", map[string]string{entry: "theirs"})).Data[entry]
	}
	for name, test := range map[string]struct {
		act  func(e *env)
		want map[string]string // nil: ErrChanged
	}{
		"another entry": {edit(func(e *env, s *corev1.Secret) { s.Data["z"] = fresh(e, "z") }),
			map[string]string{"a": "ours", "n": "new", "z": "theirs"}},
		"an entry to set":    {edit(func(e *env, s *corev1.Secret) { s.Data["a"] = fresh(e, "a") }), nil},
		"an entry to remove": {edit(func(e *env, s *corev1.Secret) { s.Data["b"] = fresh(e, "b") }), nil},
		"a removed entry":    {edit(func(e *env, s *corev1.Secret) { delete(s.Data, "b") }), nil},
		"a new entry":        {edit(func(e *env, s *corev1.Secret) { s.Data["n"] = fresh(e, "n") }), nil},
		"key":                {edit(func(_ *env, s *corev1.Secret) { s.Labels[ciphertext.LabelTransitKey] = "other" }), nil},
		"scope": {edit(func(_ *env, s *corev1.Secret) {
			s.Annotations[ciphertext.AnnotationScope] = "cluster"
		}), nil},
		"replaced": {func(e *env) {
			s := e.get("s")
			if err := e.Kube.CoreV1().Secrets(e.Namespace).Delete(e.T.Context(), "s", metav1.DeleteOptions{}); err != nil {
				e.T.Fatal(err)
			}
			s.UID, s.ResourceVersion = "", ""
			e.CreateSecret(s)
		}, nil},
		"deleted": {func(e *env) {
			if err := e.Kube.CoreV1().Secrets(e.Namespace).Delete(e.T.Context(), "s", metav1.DeleteOptions{}); err != nil {
				e.T.Fatal(err)
			}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			old := e.CreateSecret(e.encrypt(e.spec("s", map[string]string{"a": "1", "b": "2"})))
			test.act(e)
			writes := 0
			_, err := secretmanager.New(e.Root, e.clientBefore(func(int) { writes++ })).Update(t.Context(), old,
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
			if diff := cmp.Diff(test.want, e.read("s")); diff != "" {
				t.Errorf("plaintext (-want +got):\n%s", diff)
			}
		})
	}
}

// TestUpdateRejected checks that a write that the API server rejects is not a conflict.
func TestUpdateRejected(t *testing.T) {
	e := newEnv(t)
	old := e.encrypt(e.spec("s", map[string]string{"a": "1"}))
	old.Immutable = new(bool)
	old = e.CreateSecret(old)
	yes := true
	old.Immutable = &yes
	immutable, err := e.Kube.CoreV1().Secrets(e.Namespace).Update(t.Context(), old, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	immutable.Immutable = nil // so that the client does not refuse the update
	_, err = e.lib.Update(t.Context(), immutable, secretmanager.Spec{Entries: bytesOf(map[string]string{"a": "2"})},
		secretmanager.Options{})
	if err == nil || errors.Is(err, secretmanager.ErrChanged) {
		t.Errorf("got %v", err)
	}
	fixture.CheckError(t, err, "check what admits Secrets")
}

package secretmanager_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// applyAs applies entries on the server as a field manager does.
func (e *env) applyAs(manager, name string, data map[string][]byte) {
	e.T.Helper()
	_, err := e.Kube.CoreV1().Secrets(e.Namespace).Apply(e.T.Context(),
		corev1apply.Secret(name, e.Namespace).WithData(data), metav1.ApplyOptions{FieldManager: manager, Force: true})
	e.Must(err)
}

// No method writes a Secret that somebody else manages, unless IncludeManaged is set.
func TestManaged(t *testing.T) {
	ciphertextOf := func(e *env) *corev1.Secret { return e.encrypt(e.spec("s", map[string]string{"a": "1"})) }
	for name, test := range map[string]struct {
		secret func(e *env) *corev1.Secret
		write  func(e *env, opts secretmanager.Options) error
		want   map[string]string
		also   error // which the error wraps too
	}{
		"Apply": {ciphertextOf, func(e *env, opts secretmanager.Options) error {
			_, _, err := e.lib.Apply(e.T.Context(), e.spec("s", map[string]string{"a": "2"}), opts)
			return err
		}, map[string]string{"a": "2"}, nil},
		"Update": {ciphertextOf, func(e *env, opts secretmanager.Options) error {
			spec := secretmanager.Spec{Entries: bytesOf(map[string]string{"a": "2"}), Settle: -1}
			_, err := e.lib.Update(e.T.Context(), e.get("s"), spec, opts)
			return err
		}, map[string]string{"a": "2"}, nil},
		"Convert": {func(e *env) *corev1.Secret {
			return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: "s"},
				Data: bytesOf(map[string]string{"a": "1"})}
		}, func(e *env, opts secretmanager.Options) error {
			_, err := e.lib.Convert(e.T.Context(), e.Namespace, "s", e.settings(), opts)
			return err
		}, map[string]string{"a": "1"}, secretmanager.ErrNotConvertible},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			s := test.secret(e)
			e.CreateSecret(s)
			e.applyAs("operator", "s", s.Data)
			before := e.get("s")

			err := test.write(e, secretmanager.Options{})
			if !errors.Is(err, secretmanager.ErrManaged) || test.also != nil && !errors.Is(err, test.also) {
				t.Errorf("error %v", err)
			}
			fixture.CheckError(t, err, "Secret "+e.Namespace+"/s", "field manager operator would revert the change")
			if diff := cmp.Diff(before, e.get("s")); diff != "" {
				t.Errorf("the Secret was changed (-want +got):\n%s", diff)
			}
			if err := (secretmanager.Options{}).CheckManager(before); !errors.Is(err, secretmanager.ErrManaged) {
				t.Errorf("CheckManager: %v", err)
			}

			include := secretmanager.Options{IncludeManaged: true}
			if err := errors.Join(include.CheckManager(before), test.write(e, include)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, e.read("s")); diff != "" {
				t.Errorf("plaintext (-want +got):\n%s", diff)
			}
		})
	}
}

// A manager that begins to manage the Secret during the write is detected by the next attempt.
func TestManagedDuringApply(t *testing.T) {
	e := newEnv(t)
	first := e.CreateSecret(e.encrypt(e.spec("s", map[string]string{"a": "1"})))
	newer := e.encrypt(e.spec("s", map[string]string{"a": "2"}))
	kube := e.clientBefore(func(n int) {
		if n == 0 {
			e.applyAs("operator", "s", newer.Data)
		}
	})
	_, _, err := secretmanager.New(e.Root, kube).
		Apply(t.Context(), e.spec("s", map[string]string{"a": "3"}), secretmanager.Options{})
	if !errors.Is(err, secretmanager.ErrManaged) || e.read("s")["a"] != "2" || e.get("s").UID != first.UID {
		t.Errorf("error %v", err)
	}
}

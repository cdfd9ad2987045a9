package secretmanager_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestRead(t *testing.T) {
	e := newEnv(t)
	s := e.encrypt(e.spec("s", map[string]string{"a": "1", "b": "2", "moved": "3"}))
	s.Data["moved"], s.Data["plain"] = s.Data["a"], []byte("hunter2")
	e.CreateSecret(s)
	e.CreateSecret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: "other"},
		Data: map[string][]byte{"a": []byte("hunter2")}})
	if diff := cmp.Diff(map[string]string{"a": "1", "b": "2"}, e.read("s", "a", "b")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	tests := map[string]struct {
		session func() *transit.Session
		name    string
		entries []string
		want    []string
	}{
		"all, with a plaintext entry": {name: "s", want: []string{`entry "plain": is not ciphertext`}},
		"missing entries": {name: "s", entries: []string{"a", "x", "y"},
			want: []string{`entry "x" does not exist`, `entry "y" does not exist`, `["a" "b" "moved" "plain"]`}},
		"copied entry": {name: "s", entries: []string{"a", "moved"},
			want: []string{`entry "moved"`, "may have been copied"}},
		"not a ciphertext Secret": {name: "other",
			want: []string{"label secretmanager.io/transit-key is missing", `entry "a": is not ciphertext`}},
		"missing Secret": {name: "nothing", want: []string{"not found: check both names"}},
		"no right": {name: "s", entries: []string{"a"}, session: func() *transit.Session { return e.As(author) },
			want: []string{"check that the policy has update on transit/decrypt/"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			lib := e.lib
			if test.session != nil {
				lib = secretmanager.New(test.session(), e.Kube)
			}
			data, err := lib.Read(t.Context(), e.Namespace, test.name, test.entries...)
			if data != nil {
				t.Error("error with data")
			}
			fixture.CheckError(t, err, append(test.want, "reading Secret "+e.Namespace+"/"+test.name)...)
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("error contains plaintext")
			}
		})
	}
}

func TestDecrypt(t *testing.T) {
	e := newEnv(t)
	s := e.encrypt(e.spec("s", map[string]string{"a": "1", "b": "2"}))
	plain, err := secretmanager.Decrypt(t.Context(), e.Root, s)
	if diff := cmp.Diff(bytesOf(map[string]string{"a": "1", "b": "2"}), plain); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	s.Data["b"] = s.Data["a"]
	_, err = secretmanager.Decrypt(t.Context(), e.Root, s)
	fixture.CheckError(t, err, "decrypting Secret "+e.Namespace+"/s", `entry "b"`)
	_, err = secretmanager.Decrypt(t.Context(), e.As(author), s)
	fixture.CheckError(t, err, "check that the policy has update on transit/decrypt/")
}

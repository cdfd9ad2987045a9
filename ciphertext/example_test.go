package ciphertext_test

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// The entries have the form of ciphertext. To decrypt them takes the key.
const (
	entry1 = "vault:v1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	entry3 = "vault:v3:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)

func newSecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "demo", Name: "matrix",
			Labels:      map[string]string{ciphertext.LabelTransitKey: "matrix"},
			Annotations: map[string]string{ciphertext.AnnotationScope: "namespace"},
		},
		Type: ciphertext.Type,
		Data: map[string][]byte{"password": []byte(entry1), "user": []byte(entry3)},
	}
}

func ExampleSettingsOf() {
	settings, err := ciphertext.SettingsOf(newSecret())
	fmt.Println(settings.Key, settings.Scope, err)
	// Output:
	// transit/keys/matrix namespace <nil>
}

func ExampleSettings_Apply() {
	secret := &corev1.Secret{Data: map[string][]byte{"password": []byte(entry3)}}
	key := ciphertext.Key{Mount: "team/transit", Name: "matrix"}
	ciphertext.Settings{Key: key, Scope: ciphertext.Strict}.Apply(secret)
	fmt.Println(secret.Type)
	fmt.Println(secret.Labels)
	fmt.Println(secret.Annotations)
	// Output:
	// secretmanager.io/ciphertext
	// map[secretmanager.io/key-version:3 secretmanager.io/transit-key:matrix]
	// map[secretmanager.io/scope:strict secretmanager.io/transit-mount:team/transit]
}

func ExampleKey_Check() {
	fmt.Println(ciphertext.Key{Mount: "transit", Name: "matrix"}.Check())
	fmt.Println(ciphertext.Key{Mount: "../sys", Name: "matrix"}.Check())
	// Output:
	// <nil>
	// transit mount: "../sys" has an empty part, or one of dots
}

func ExampleValidate() {
	secret := newSecret()
	fmt.Println(ciphertext.Validate(secret))
	secret.Data["user"] = []byte("neo")
	fmt.Println(ciphertext.Validate(secret))
	// Output:
	// <nil>
	// entry "user": is not ciphertext: it does not begin with "vault:v" and a key version, so it may be plaintext
}

func ExampleVersion() {
	version, err := ciphertext.Version([]byte(entry3))
	fmt.Println(version, err)
	_, err = ciphertext.Version([]byte("hunter2"))
	fmt.Println(errors.Is(err, ciphertext.ErrNotEncrypted))
	// Output:
	// 3 <nil>
	// true
}

func ExampleVersions() {
	fmt.Println(ciphertext.Versions(newSecret().Data))
	// Output:
	// 1 3 true
}

func ExampleEntries() {
	fmt.Println(ciphertext.Entries(newSecret().Data))
	// Output:
	// [password user]
}

func ExampleParseScope() {
	scope, err := ciphertext.ParseScope("")
	fmt.Println(scope, err)
	_, err = ciphertext.ParseScope("galaxy")
	fmt.Println(err)
	// Output:
	// strict <nil>
	// unknown scope "galaxy": must be strict, namespace, cluster or none
}

func ExampleScope_Context() {
	for _, scope := range ciphertext.Scopes {
		fmt.Printf("%q\n", scope.Context("demo", "matrix", "password"))
	}
	// Output:
	// "strict:demo/matrix/password"
	// "namespace:demo"
	// "cluster:"
	// ""
}

func ExampleScope_Describe() {
	fmt.Println(ciphertext.Strict.Describe("demo", "matrix", "password"))
	fmt.Println(ciphertext.Namespace.Describe("demo", "matrix", "password"))
	// Output:
	// demo/matrix/password
	// namespace demo
}

func ExampleManagedBy() {
	secret := newSecret()
	secret.Labels["argocd.argoproj.io/instance"] = "shop"
	manager := ciphertext.ManagedBy(secret)
	fmt.Println(manager.Name, manager.Reverts)
	// Output:
	// Argo CD application shop true
}

func ExampleSize() {
	fmt.Println(ciphertext.Size(100))
	// Output:
	// 186
}

func ExampleCheckPath() {
	fmt.Println(ciphertext.CheckPath("team/transit"))
	fmt.Println(ciphertext.CheckPath("transit/"))
	// Output:
	// <nil>
	// "transit/" begins or ends with a slash
}

func ExampleCheckName() {
	fmt.Println(ciphertext.CheckName("matrix"))
	fmt.Println(ciphertext.CheckName("team/matrix"))
	// Output:
	// <nil>
	// "team/matrix" has a slash in it
}

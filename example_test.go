package secretmanager_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/testing"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/memoryvault"
	"github.com/secretmanager-io/secretmanager/transit"
)

// The examples run without Vault and cluster. Programs use a transit.Session as vault,
// and a clientset of kubernetes.NewForConfig.
var exampleSpec = secretmanager.Spec{
	Namespace: "demo", Name: "matrix",
	Settings: ciphertext.Settings{Key: ciphertext.Key{Name: "matrix"}},
	Entries:  map[string][]byte{"password": []byte("hunter2"), "user": []byte("neo")},
}

// newCluster returns a cluster in memory that sets the uid of new Secrets.
func newCluster(secrets ...runtime.Object) *fake.Clientset {
	kube := fake.NewClientset(secrets...)
	kube.PrependReactor("create", "secrets", func(action testing.Action) (bool, runtime.Object, error) {
		s := action.(testing.CreateAction).GetObject().(*corev1.Secret)
		s.UID, s.ResourceVersion = "1", "1"
		return false, nil, nil
	})
	return kube
}

// A program in a pod reads a Secret as its service account.
func ExampleNew() {
	config, err := rest.InClusterConfig()
	if err != nil {
		log.Fatal(err)
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	vault, err := transit.NewClient(transit.Config{Address: "https://vault.example:8200"})
	if err != nil {
		log.Fatal(err)
	}
	session := vault.Session("", vault.NewLoginSource(transit.Login{
		Mount: "kubernetes", Role: "matrix",
		JWT: func() (string, error) {
			text, err := os.ReadFile("/var/run/vault/token")
			return strings.TrimSpace(string(text)), err
		},
	}))
	entries, err := secretmanager.New(session, kube).Read(context.Background(), "demo", "matrix")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(entries))
}

func ExampleEncrypt() {
	ctx, vault := context.Background(), memoryvault.New("matrix")
	secret, err := secretmanager.Encrypt(ctx, vault, exampleSpec)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(secret.Type, secret.Labels[ciphertext.LabelTransitKey], ciphertext.Entries(secret.Data))
	fmt.Printf("%.9s…\n", secret.Data["password"])
	// Output:
	// secretmanager.io/ciphertext matrix [password user]
	// vault:v1:…
}

func ExampleEncrypt_invalid() {
	spec := exampleSpec
	spec.Namespace, spec.Entries = "", map[string][]byte{"password": nil}
	_, err := secretmanager.Encrypt(context.Background(), memoryvault.New("matrix"), spec)
	fmt.Println(errors.Is(err, secretmanager.ErrInvalid))
	fmt.Println(strings.ReplaceAll(err.Error(), ": ", ":\n"))
	// Output:
	// true
	// encrypting Secret /matrix:
	// invalid secret specification:
	// no namespace:
	// scope strict binds ciphertext to one
	// entry "password" is empty:
	// an empty secret is nearly always a file that was not written or a variable that was not set:
	// check its source
}

func ExampleDecrypt() {
	ctx, vault := context.Background(), memoryvault.New("matrix")
	secret, err := secretmanager.Encrypt(ctx, vault, exampleSpec)
	if err != nil {
		fmt.Println(err)
		return
	}
	plaintext, err := secretmanager.Decrypt(ctx, vault, secret)
	fmt.Printf("%s %v\n", plaintext["user"], err)
	// Output:
	// neo <nil>
}

// A ciphertext that was copied to another Secret does not decrypt there.
func ExampleVerify() {
	ctx, vault := context.Background(), memoryvault.New("matrix")
	secret, err := secretmanager.Encrypt(ctx, vault, exampleSpec)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(secretmanager.Verify(ctx, vault, secret))
	secret.Namespace = "elsewhere"
	fmt.Println(errors.Is(secretmanager.Verify(ctx, vault, secret), secretmanager.ErrNotVerified))
	// Output:
	// <nil>
	// true
}

func ExampleVerifier() {
	ctx, vault := context.Background(), memoryvault.New("matrix")
	secret, err := secretmanager.Encrypt(ctx, vault, exampleSpec)
	if err != nil {
		fmt.Println(err)
		return
	}
	verifier := secretmanager.NewVerifier(vault, func(r secretmanager.VerifyResult) {
		fmt.Println(r.Secret.Name, r.Entries, len(r.Failed), r.Err)
	})
	copied := secret.DeepCopy()
	copied.Name = "copy"
	for _, s := range []*corev1.Secret{secret, copied} {
		if err := verifier.Add(ctx, s); err != nil {
			fmt.Println(err)
		}
	}
	if err := verifier.Flush(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// matrix 2 0 <nil>
	// copy 2 2 <nil>
}

func ExampleEncryptUpdate() {
	ctx, vault := context.Background(), memoryvault.New("matrix")
	secret, err := secretmanager.Encrypt(ctx, vault, exampleSpec)
	if err != nil {
		fmt.Println(err)
		return
	}
	change := secretmanager.Spec{Entries: map[string][]byte{"password": []byte("correct horse")}}
	encrypted, err := secretmanager.EncryptUpdate(ctx, vault, secret, change)
	fmt.Println(ciphertext.Entries(encrypted), err)
	// Output:
	// [password] <nil>
}

func ExampleClient_Apply() {
	ctx := context.Background()
	client := secretmanager.New(memoryvault.New("matrix"), newCluster())
	secret, outcome, err := client.Apply(ctx, exampleSpec, secretmanager.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(outcome, secret.Namespace, secret.Name)
	// Output:
	// created demo matrix
}

func ExampleClient_Read() {
	ctx := context.Background()
	client := secretmanager.New(memoryvault.New("matrix"), newCluster())
	if _, _, err := client.Apply(ctx, exampleSpec, secretmanager.Options{}); err != nil {
		fmt.Println(err)
		return
	}
	plaintext, err := client.Read(ctx, "demo", "matrix", "password")
	fmt.Printf("%s %v\n", plaintext["password"], err)
	// Output:
	// hunter2 <nil>
}

func ExampleClient_Update() {
	ctx := context.Background()
	client := secretmanager.New(memoryvault.New("matrix"), newCluster())
	secret, _, err := client.Apply(ctx, exampleSpec, secretmanager.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	change := secretmanager.Spec{Entries: map[string][]byte{"user": []byte("trinity")}, Remove: []string{"password"}}
	secret, err = client.Update(ctx, secret, change, secretmanager.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ciphertext.Entries(secret.Data))
	// Output:
	// [user]
}

func ExampleClient_Convert() {
	ctx := context.Background()
	kube := fake.NewClientset(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "demo", Name: "plain", UID: "1", ResourceVersion: "1", Labels: map[string]string{"app": "matrix"},
		},
		Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"password": []byte("hunter2")},
	})
	client := secretmanager.New(memoryvault.New("matrix"), kube)
	secret, err := client.Convert(ctx, "demo", "plain", exampleSpec.Settings, secretmanager.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(secret.Type, secret.Labels["app"], secret.Labels[ciphertext.LabelTransitKey])
	// Output:
	// Opaque matrix matrix
}

func ExampleClient_Plaintext() {
	ctx := context.Background()
	kube := fake.NewClientset(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "plain"}, Data: map[string][]byte{"user": []byte("neo")},
	})
	plaintext, err := secretmanager.New(memoryvault.New(), kube).Plaintext(ctx, "demo", "plain")
	fmt.Printf("%s %v\n", plaintext["user"], err)
	// Output:
	// neo <nil>
}

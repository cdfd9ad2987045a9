package admission

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

const makeIt = ": create the Secret with secretmanager encrypt"

func ofType(kind corev1.SecretType, entries ...string) func(*corev1.Secret) {
	return func(s *corev1.Secret) {
		s.Type, s.Data = kind, nil
		for _, name := range entries {
			entry(name, value)(s)
		}
	}
}

func TestForbidPlaintext(t *testing.T) {
	w := newFixture(t)
	w.enforce(ForbidPlaintext)
	tests := []struct {
		name   string
		secret *corev1.Secret
		want   []string
	}{
		{"a ciphertext Secret", secret("x"), nil},
		{"an adopted one", secret("x", opaque), nil},
		{"ciphertext without label and type", secret("x", opaque, unlabel), nil},
		{"no entries", plain("x", func(s *corev1.Secret) { s.Data = nil }), nil},

		{"plaintext", plain("x"),
			[]string{"plaintext is forbidden in namespace " + w.ns + ": " + oneEntry + "good" + makeIt}},
		{"two plaintexts", plain("x", entry("token", value)), []string{twoEntries, "good", "token"}},
		{"ciphertext and a plaintext", plain("x", entry("good", string(text("1"))), entry("token", value)),
			[]string{oneEntry + "token"}},
		{"plaintext under our type", secret("x", entry("token", value)), []string{oneEntry + "token"}},
		{"plaintext under our label", secret("x", opaque, entry("token", value)), []string{oneEntry + "token"}},
		{"another type", plain("x", ofType("example.com/own", "token")), []string{oneEntry + "token"}},

		// False positives that docs/admission.md names.
		{"an empty value", plain("x", entry("good", "")), []string{oneEntry + "good"}},
		{"a value that is no secret", plain("x", entry("good", "true")), []string{oneEntry + "good"}},
		{"basic-auth", plain("x", ofType(corev1.SecretTypeBasicAuth, "password")), []string{oneEntry + "password"}},
		{"ssh-auth", plain("x", ofType(corev1.SecretTypeSSHAuth, "ssh-privatekey")), []string{oneEntry + "ssh-privatekey"}},
		{"the account key of a certificate issuer", plain("x", ofType(corev1.SecretTypeOpaque, "tls.key")),
			[]string{oneEntry + "tls.key"}},

		// The exceptions.
		{"service-account token", plain("x", ofType(corev1.SecretTypeServiceAccountToken, "token"),
			annotation(corev1.ServiceAccountNameKey, "default")), nil},
		{"dockercfg", plain("x", ofType(corev1.SecretTypeDockercfg), entry(corev1.DockerConfigKey, "{}")), nil},
		{"dockerconfigjson", plain("x", ofType(corev1.SecretTypeDockerConfigJson),
			entry(corev1.DockerConfigJsonKey, "{}")), nil},
		{"tls", plain("x", ofType(corev1.SecretTypeTLS, "tls.crt", "tls.key")), nil},
		{"bootstrap token", plain("x", ofType(corev1.SecretTypeBootstrapToken, "token-secret")), nil},
		{"Helm release", plain("x", ofType("helm.sh/release.v1", "release")), nil},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.secret.Name = fmt.Sprintf("x-%d", i)
			check(t, w.create(test.secret), ForbidPlaintext, test.want...)
		})
	}
}

// TestForbidPlaintextLater: users can annotate, encrypt and empty a Secret that is older than the label of its
// namespace.
func TestForbidPlaintextLater(t *testing.T) {
	w := newFixture(t)
	w.must(w.create(plain("x", entry("token", value))))
	p, err := Load(ForbidPlaintext)
	w.must(err)
	selector := p.Binding.Spec.MatchResources.NamespaceSelector
	p.Only(w.ns).Binding.Spec.MatchResources.NamespaceSelector = selector
	namespace, err := w.kube.CoreV1().Namespaces().Get(t.Context(), w.ns, metav1.GetOptions{})
	w.must(err)
	namespace.Labels["secretmanager.io/plaintext"] = "forbidden"
	_, err = w.kube.CoreV1().Namespaces().Update(t.Context(), namespace, metav1.UpdateOptions{})
	w.must(err)
	w.put(p)

	for _, step := range []struct {
		name   string
		change func(*corev1.Secret)
		want   []string
	}{
		{"an annotation", annotation("team", "red"), nil},
		{"a label", label("team", "red"), nil},
		{"another plaintext", entry("token", value+value), []string{oneEntry + "token"}},
		{"a new plaintext", entry("new", value), []string{oneEntry + "new"}},
		{"one entry encrypted", entry("token", string(text("1"))), nil},
		{"and back", entry("token", value), []string{oneEntry + "token"}},
		{"a plaintext removed", func(s *corev1.Secret) { delete(s.Data, "good") }, nil},
	} {
		t.Run(step.name, func(t *testing.T) {
			check(t, w.change("x", step.change), ForbidPlaintext, step.want...)
		})
	}
	w.must(w.kube.CoreV1().Secrets(w.ns).Delete(t.Context(), "x", metav1.DeleteOptions{}))

	other := newFixture(t)
	check(t, other.create(plain("x")), ForbidPlaintext)
}

// synced returns a Secret as the driver creates it for a class with secretObjects.
func synced(name string) *corev1.Secret {
	return plain(name, label("secrets-store.csi.k8s.io/managed", "true"), func(s *corev1.Secret) {
		s.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "1"}}
	})
}

// TestSyncedSecrets: the policy denies Secrets that the driver creates for secretObjects. A patch in docs/admission.md
// admits them, but not the same Secrets of other users.
func TestSyncedSecrets(t *testing.T) {
	w := newFixture(t)
	w.enforce(ForbidPlaintext)
	check(t, w.create(synced("x")), ForbidPlaintext, oneEntry+"good")

	w = newFixture(t)
	w.put(fromPage(t, "secrets-store-csi-driver").Only(w.ns))
	check(t, w.create(synced("x")), ForbidPlaintext, oneEntry+"good")
	check(t, w.as("system:serviceaccount:kube-system:secrets-store-csi-driver").create(synced("x")), ForbidPlaintext)
}

// as returns the same fixture for another user with all rights.
func (w *fixture) as(user string) *fixture {
	w.t.Helper()
	config := rest.CopyConfig(w.server.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:masters"}}
	kube, err := kubernetes.NewForConfig(config)
	w.must(err)
	return &fixture{t: w.t, server: w.server, kube: kube, ns: w.ns}
}

// TestOtherExceptions: a patch in docs/admission.md changes the excepted types.
func TestOtherExceptions(t *testing.T) {
	w := newFixture(t)
	w.put(fromPage(t, "kubernetes.io/basic-auth").Only(w.ns))
	check(t, w.create(plain("x", ofType(corev1.SecretTypeBasicAuth, "password"))), ForbidPlaintext)
	check(t, w.create(plain("y", ofType(corev1.SecretTypeTLS, "tls.crt", "tls.key"))), ForbidPlaintext, twoEntries)
	check(t, w.create(plain("z")), ForbidPlaintext, oneEntry+"good")
	check(t, w.create(secret("encrypted", func(s *corev1.Secret) { s.Type = ciphertext.Type })), ForbidPlaintext)
}

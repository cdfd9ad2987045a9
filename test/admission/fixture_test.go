package admission

import (
	"crypto/rand"
	"encoding/base64"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// fixture is a namespace of a test's own.
type fixture struct {
	t      *testing.T
	server *testenv.APIServer
	kube   kubernetes.Interface
	ns     string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	w := &fixture{t: t, server: testenv.SharedAPIServer(t), ns: "ns-" + strings.ToLower(rand.Text()[:10])}
	var err error
	if w.kube, err = kubernetes.NewForConfig(w.server.Config); err != nil {
		t.Fatal(err)
	}
	w.server.CreateNamespace(t, w.ns)
	if err := w.server.CreateRotatorState(t.Context(), w.ns); err != nil {
		t.Fatal(err)
	}
	return w
}

// enforce puts a policy in force in the namespace of the fixture alone.
func (w *fixture) enforce(folder string) {
	w.t.Helper()
	p, err := Load(folder)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put(p.Only(w.ns))
}

// put puts a policy in force that is for the namespace of the fixture alone.
func (w *fixture) put(p *Policy) {
	w.t.Helper()
	w.must(p.Enforce(w.t.Context(), w.kube, w.ns))
}

// create creates a Secret in the namespace of the fixture.
func (w *fixture) create(s *corev1.Secret) error {
	_, err := w.kube.CoreV1().Secrets(w.ns).Create(w.t.Context(), s, metav1.CreateOptions{})
	return err
}

func (w *fixture) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// change changes a Secret that is there.
func (w *fixture) change(name string, f func(*corev1.Secret)) error {
	w.t.Helper()
	secrets := w.kube.CoreV1().Secrets(w.ns)
	s, err := secrets.Get(w.t.Context(), name, metav1.GetOptions{})
	w.must(err)
	f(s)
	_, err = secrets.Update(w.t.Context(), s, metav1.UpdateOptions{})
	return err
}

// text is ciphertext, or what a policy has to take for it.
func text(version string) []byte { return textOf(version, 40) }

func textOf(version string, n int) []byte {
	random := make([]byte, n)
	rand.Read(random)
	return []byte("vault:v" + version + ":" + base64.StdEncoding.EncodeToString(random))
}

// secret is a well-formed ciphertext Secret, changed.
func secret(name string, changes ...func(*corev1.Secret)) *corev1.Secret {
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      map[string]string{ciphertext.LabelTransitKey: "key"},
			Annotations: map[string]string{},
		},
		Type: ciphertext.Type,
		Data: map[string][]byte{"good": text("3")},
	}
	for _, change := range changes {
		change(s)
	}
	return s
}

// plain is a Secret like any other.
func plain(name string, changes ...func(*corev1.Secret)) *corev1.Secret {
	return secret(name, append([]func(*corev1.Secret){opaque, func(s *corev1.Secret) { s.Labels = nil }, entry("good", value)}, changes...)...)
}

// value is a plaintext. No message may have it.
const value = "hunter2-hunter2-hunter2-hunter2-hunter2-hunter2-hunter2-hunter2"

func opaque(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }

func entry(name, text string) func(*corev1.Secret) {
	return func(s *corev1.Secret) {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		s.Data[name] = []byte(text)
	}
}

func label(name, value string) func(*corev1.Secret) {
	return func(s *corev1.Secret) {
		if s.Labels == nil {
			s.Labels = map[string]string{}
		}
		s.Labels[name] = value
	}
}

func annotation(name, value string) func(*corev1.Secret) {
	return func(s *corev1.Secret) {
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[name] = value
	}
}

func unlabel(s *corev1.Secret) { delete(s.Labels, ciphertext.LabelTransitKey) }

// check checks whether a write was refused by the policy, for all that is wanted.
// None wanted: it must have passed.
func check(t *testing.T, err error, policy string, want ...string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	switch {
	case err == nil:
		t.Errorf("it passes, and should be refused for %q", want)
	case !apierrors.IsForbidden(err), !strings.Contains(err.Error(), "ValidatingAdmissionPolicy '"+policy):
		t.Errorf("it is not the policy %s that refuses it: %v", policy, err)
	case strings.Contains(err.Error(), "resulted in error"):
		t.Errorf("the policy could not judge it: %v", err)
	case strings.Contains(err.Error(), value), strings.Contains(err.Error(), base64.StdEncoding.EncodeToString([]byte(value))):
		t.Errorf("it says a value: %v", err)
	default:
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q is not in the message: %v", w, err)
			}
		}
	}
}

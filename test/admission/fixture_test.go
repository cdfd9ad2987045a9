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

// fixture is the namespace of one test.
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

// enforce enforces a policy only in the namespace of the fixture.
func (w *fixture) enforce(dir string) {
	w.t.Helper()
	p, err := Load(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put(p.Only(w.ns))
}

// put creates a policy that is limited to the namespace of the fixture.
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

// change changes an existing Secret.
func (w *fixture) change(name string, f func(*corev1.Secret)) error {
	w.t.Helper()
	secrets := w.kube.CoreV1().Secrets(w.ns)
	s, err := secrets.Get(w.t.Context(), name, metav1.GetOptions{})
	w.must(err)
	f(s)
	_, err = secrets.Update(w.t.Context(), s, metav1.UpdateOptions{})
	return err
}

// text returns text in the format of ciphertext.
func text(version string) []byte { return textOf(version, 40) }

func textOf(version string, n int) []byte {
	random := make([]byte, n)
	rand.Read(random)
	return []byte("vault:v" + version + ":" + base64.StdEncoding.EncodeToString(random))
}

// secret returns a valid ciphertext Secret with changes.
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

// plain returns an ordinary Secret.
func plain(name string, changes ...func(*corev1.Secret)) *corev1.Secret {
	noLabels := func(s *corev1.Secret) { s.Labels = nil }
	return secret(name, append([]func(*corev1.Secret){opaque, noLabels, entry("good", value)}, changes...)...)
}

// value is a plaintext. No message may contain it.
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

// check checks that the policy denied a write with all the texts, or admitted it if there are none.
func check(t *testing.T, err error, policy string, want ...string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Errorf("denied: %v", err)
		}
		return
	}
	switch {
	case err == nil:
		t.Errorf("admitted, want a denial with %q", want)
	case !apierrors.IsForbidden(err), !strings.Contains(err.Error(), "ValidatingAdmissionPolicy '"+policy):
		t.Errorf("not denied by the policy %s: %v", policy, err)
	case strings.Contains(err.Error(), "resulted in error"):
		t.Errorf("the evaluation failed: %v", err)
	case strings.Contains(err.Error(), value), strings.Contains(err.Error(), encoded([]byte(value))):
		t.Errorf("the message contains a value: %v", err)
	default:
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("the message does not contain %q: %v", w, err)
			}
		}
	}
}

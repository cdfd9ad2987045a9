package secretmanager_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
)

func (w *world) plain(name string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.ns, Name: name, Labels: map[string]string{"team": "red"},
			Annotations: map[string]string{"note": "x", ciphertext.AnnotationLastApplied: `{"data":"hunter2"}`},
		},
		Data: map[string][]byte{"password": []byte("hunter2"), "empty": {}, "blob": {0, 0xff, '\r', '\n'}},
	}
}

func (w *world) settings() ciphertext.Settings {
	return ciphertext.Settings{Key: ciphertext.Key{Name: w.key}}
}

func TestConvert(t *testing.T) {
	w := newWorld(t)
	was := w.store(w.plain("s"))
	lib := secretmanager.New(w.as(author), w.kube)
	if _, err := lib.Convert(t.Context(), w.ns, "s", w.settings(), secretmanager.Options{DryRun: true}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(was, w.get("s")); diff != "" {
		t.Errorf("a dry run changed it:\n%s", diff)
	}

	// One write, which says nothing of the plaintext.
	var sent []string
	config := rest.CopyConfig(w.api.Config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodGet {
				body, err := r.GetBody()
				if err != nil {
					return nil, err
				}
				var text strings.Builder
				if _, err := io.Copy(&text, body); err != nil {
					return nil, err
				}
				sent = append(sent, r.Method+" "+text.String())
			}
			return next.RoundTrip(r)
		})
	})
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	is, err := secretmanager.New(w.as(author), kube).Convert(t.Context(), w.ns, "s", w.settings(), secretmanager.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(sent) != 1 || !strings.HasPrefix(sent[0], "PATCH ") || strings.Contains(sent[0], "aHVudGVyMg") ||
		strings.Contains(sent[0], "hunter2") {
		t.Errorf("%d writes: %s", len(sent), sent)
	}
	if is.UID != was.UID || is.Type != corev1.SecretTypeOpaque {
		t.Errorf("it is another one, or of type %s", is.Type)
	}
	if diff := cmp.Diff(map[string]string{"password": "hunter2", "empty": "", "blob": "\x00\xff\r\n"},
		w.read("s")); diff != "" {
		t.Errorf("plaintext (-want +got):\n%s", diff)
	}
	wantLabels := map[string]string{ciphertext.LabelTransitKey: w.key, ciphertext.LabelKeyVersion: "1", "team": "red"}
	if diff := cmp.Diff(wantLabels, is.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	wantAnnotations := map[string]string{ciphertext.AnnotationTransitMount: "transit",
		ciphertext.AnnotationScope: "strict", "note": "x"}
	if diff := cmp.Diff(wantAnnotations, is.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}

	// Once more would encrypt ciphertext.
	_, err = lib.Convert(t.Context(), w.ns, "s", w.settings(), secretmanager.Options{})
	if !errors.Is(err, secretmanager.ErrNotConvertible) {
		t.Errorf("got %v", err)
	}
	says(t, err, "it is a ciphertext Secret already")
}

func TestConvertRefuses(t *testing.T) {
	yes := true
	for name, test := range map[string]struct {
		change func(w *world, s *corev1.Secret)
		want   []string
	}{
		"TLS": {func(_ *world, s *corev1.Secret) {
			s.Type, s.Data = corev1.SecretTypeTLS, map[string][]byte{"tls.crt": []byte("hunter2"), "tls.key": []byte("x")}
		}, []string{"of type kubernetes.io/tls", "beside it"}},
		"image pulls": {func(_ *world, s *corev1.Secret) {
			s.Type, s.Data = corev1.SecretTypeDockerConfigJson, map[string][]byte{
				corev1.DockerConfigJsonKey: []byte(`{"auths":{}}`)}
		}, []string{"of type kubernetes.io/dockerconfigjson"}},
		"bootstrap token": {func(_ *world, s *corev1.Secret) { s.Type = corev1.SecretTypeBootstrapToken },
			[]string{"bootstrap.kubernetes.io/token"}},
		"Helm release": {func(_ *world, s *corev1.Secret) { s.Type = "helm.sh/release.v1" }, []string{"helm.sh/release.v1"}},
		"service-account token": {func(w *world, s *corev1.Secret) {
			account, err := w.kube.CoreV1().ServiceAccounts(w.ns).
				Create(w.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "app"}}, metav1.CreateOptions{})
			if err != nil {
				w.t.Fatal(err)
			}
			s.Type = corev1.SecretTypeServiceAccountToken
			s.Annotations[corev1.ServiceAccountNameKey], s.Annotations[corev1.ServiceAccountUIDKey] = account.Name,
				string(account.UID)
		}, []string{"Kubernetes writes it"}},
		"owned, in Git and immutable": {func(_ *world, s *corev1.Secret) {
			s.OwnerReferences = []metav1.OwnerReference{
				{APIVersion: "external-secrets.io/v1", Kind: "ExternalSecret", Name: "e", UID: "1"}}
			s.Annotations["argocd.argoproj.io/tracking-id"] = "shop:/Secret:x/s"
			s.Immutable = &yes
		}, []string{"owned by ExternalSecret e", "Argo CD application shop", "it is immutable"}},
		"no entries": {func(_ *world, s *corev1.Secret) { s.Data = nil }, []string{"it has no entries"}},
		"some ciphertext": {func(w *world, s *corev1.Secret) {
			s.Data["c"] = w.seal(w.spec("s", map[string]string{"c": "1"})).Data["c"]
		}, []string{`entry "c": it is ciphertext already`}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := w.plain("s")
			test.change(w, s)
			was := w.store(s)
			_, err := w.lib.Convert(t.Context(), w.ns, "s", w.settings(), secretmanager.Options{})
			if !errors.Is(err, secretmanager.ErrNotConvertible) {
				t.Errorf("got %v", err)
			}
			says(t, err, append(test.want, "converting Secret "+w.ns+"/s")...)
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error("the error repeats plaintext")
			}
			if w.get("s").ResourceVersion != was.ResourceVersion {
				t.Error("it was touched")
			}
		})
	}
}

// Where it does not end well, the plaintext is as it was: nothing is written
// before all of the ciphertext has been proved.
func TestConvertKeepsThePlaintext(t *testing.T) {
	w := newWorld(t)
	w.write("transit/keys/"+w.key+"-plain", nil)
	was := w.store(w.plain("s"))
	large := w.plain("large")
	large.Data["x"] = make([]byte, 900_000)
	w.store(large)
	for name, test := range map[string]struct {
		policy, secret string
		set            ciphertext.Settings
		want           string
	}{
		"no right to verify": {strings.Replace(author, "rewrap", "x", 1), "s", w.settings(), "verifying Secret"},
		"no right to encrypt": {strings.Replace(author, "encrypt", "x", 1), "s", w.settings(),
			"check that the policy has update on transit/encrypt/"},
		"a key that binds nothing": {`path "transit/*" { capabilities = ["read", "update"] }`, "s",
			ciphertext.Settings{Key: ciphertext.Key{Name: w.key + "-plain"}}, "is not derived"},
		"it would be too large": {author, "large", w.settings(), "split them into several Secrets"},
		"it is not there":       {author, "nothing", w.settings(), "check both names"},
	} {
		t.Run(name, func(t *testing.T) {
			kube := w.client(func(int) { t.Error("something was written") })
			_, err := secretmanager.New(w.as(test.policy), kube).
				Convert(t.Context(), w.ns, test.secret, test.set, secretmanager.Options{})
			says(t, err, test.want)
		})
	}
	if diff := cmp.Diff(was, w.get("s")); diff != "" {
		t.Errorf("it was touched:\n%s", diff)
	}
}

// TestConvertWhileOthersWrite lets somebody else write in the moment before each
// of our writes.
func TestConvertWhileOthersWrite(t *testing.T) {
	edit := func(f func(s *corev1.Secret)) func(*world, int) {
		return func(w *world, n int) {
			if n > 0 {
				return
			}
			s := w.get("s")
			f(s)
			if _, err := w.kube.CoreV1().Secrets(w.ns).Update(w.t.Context(), s, metav1.UpdateOptions{}); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		act    func(w *world, n int)
		want   map[string]string
		writes int
		err    error
	}{
		"a value": {edit(func(s *corev1.Secret) { s.Data["a"] = []byte("theirs") }),
			map[string]string{"a": "theirs"}, 2, nil},
		"a new entry": {edit(func(s *corev1.Secret) { s.Data["b"] = []byte("theirs") }),
			map[string]string{"a": "1", "b": "theirs"}, 2, nil},
		"an owner": {edit(func(s *corev1.Secret) {
			s.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "x", UID: "1"}}
		}), nil, 1, secretmanager.ErrNotConvertible},
		"Git": {edit(func(s *corev1.Secret) { s.Labels = map[string]string{"argocd.argoproj.io/instance": "shop"} }),
			nil, 1, secretmanager.ErrNotConvertible},
		"another Secret": {func(w *world, n int) {
			if n > 0 {
				return
			}
			if err := w.kube.CoreV1().Secrets(w.ns).Delete(w.t.Context(), "s", metav1.DeleteOptions{}); err != nil {
				w.t.Fatal(err)
			}
			w.store(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "s"},
				Data: map[string][]byte{"c": []byte("3")}})
		}, map[string]string{"c": "3"}, 2, nil},
		"each time": {func(w *world, n int) { edit(func(s *corev1.Secret) { s.Data["a"] = []byte{byte(n)} })(w, 0) },
			nil, 5, secretmanager.ErrConflict},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "s"},
				Data: map[string][]byte{"a": []byte("1")}})
			writes := 0
			kube := w.client(func(n int) { test.act(w, n); writes++ })
			_, err := secretmanager.New(w.root, kube).Convert(t.Context(), w.ns, "s", w.settings(), secretmanager.Options{})
			if !errors.Is(err, test.err) || writes != test.writes {
				t.Errorf("%d writes, %v", writes, err)
			}
			if test.want == nil {
				if w.get("s").Labels[ciphertext.LabelTransitKey] != "" {
					t.Error("it was converted")
				}
				return
			}
			if diff := cmp.Diff(test.want, w.read("s")); diff != "" {
				t.Errorf("plaintext (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlaintext(t *testing.T) {
	w := newWorld(t)
	w.store(w.plain("s"))
	w.store(w.seal(w.spec("c", map[string]string{"a": "1"})))
	got, err := w.lib.Plaintext(t.Context(), w.ns, "s")
	if err != nil || len(got) != 3 || string(got["password"]) != "hunter2" {
		t.Errorf("%d entries, %v", len(got), err)
	}
	_, err = w.lib.Plaintext(t.Context(), w.ns, "c")
	says(t, err, "reading Secret "+w.ns+"/c", "it is a ciphertext Secret already")
	_, err = w.lib.Plaintext(t.Context(), w.ns, "nothing")
	says(t, err, "check both names")
}

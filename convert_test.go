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

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

func (e *env) plain(name string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: e.Namespace, Name: name, Labels: map[string]string{"team": "red"},
			Annotations: map[string]string{"note": "x", ciphertext.AnnotationLastApplied: `{"data":"hunter2"}`},
		},
		Data: map[string][]byte{"password": []byte("hunter2"), "empty": {}, "blob": {0, 0xff, '\r', '\n'}},
	}
}

func TestConvert(t *testing.T) {
	e := newEnv(t)
	old := e.CreateSecret(e.plain("s"))
	lib := secretmanager.New(e.As(author), e.Kube)
	if _, err := lib.Convert(t.Context(), e.Namespace, "s", e.settings(),
		secretmanager.Options{DryRun: true}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(old, e.get("s")); diff != "" {
		t.Errorf("a dry run changed it:\n%s", diff)
	}

	// There is one write, without the plaintext.
	var sent []string
	kube := e.Client(func(next http.RoundTripper) http.RoundTripper {
		return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
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
	converted, err := secretmanager.New(e.As(author), kube).
		Convert(t.Context(), e.Namespace, "s", e.settings(), secretmanager.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(sent) != 1 || !strings.HasPrefix(sent[0], "PATCH ") || strings.Contains(sent[0], "aHVudGVyMg") ||
		strings.Contains(sent[0], "hunter2") {
		t.Errorf("%d writes: %s", len(sent), sent)
	}
	if converted.UID != old.UID || converted.Type != corev1.SecretTypeOpaque {
		t.Errorf("another Secret, or of type %s", converted.Type)
	}
	if diff := cmp.Diff(map[string]string{"password": "hunter2", "empty": "", "blob": "\x00\xff\r\n"},
		e.read("s")); diff != "" {
		t.Errorf("plaintext (-want +got):\n%s", diff)
	}
	wantLabels := map[string]string{ciphertext.LabelTransitKey: e.Key, ciphertext.LabelKeyVersion: "1", "team": "red"}
	if diff := cmp.Diff(wantLabels, converted.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	wantAnnotations := map[string]string{ciphertext.AnnotationTransitMount: "transit",
		ciphertext.AnnotationScope: "strict", "note": "x"}
	if diff := cmp.Diff(wantAnnotations, converted.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}

	// A second conversion would encrypt ciphertext.
	_, err = lib.Convert(t.Context(), e.Namespace, "s", e.settings(), secretmanager.Options{})
	if !errors.Is(err, secretmanager.ErrNotConvertible) {
		t.Errorf("got %v", err)
	}
	fixture.CheckError(t, err, "it is already a ciphertext Secret")
}

func TestConvertErrors(t *testing.T) {
	yes := true
	for name, test := range map[string]struct {
		change func(e *env, s *corev1.Secret)
		want   []string
	}{
		"TLS": {func(_ *env, s *corev1.Secret) {
			s.Type, s.Data = corev1.SecretTypeTLS, map[string][]byte{"tls.crt": []byte("hunter2"), "tls.key": []byte("x")}
		}, []string{"of type kubernetes.io/tls", "create a ciphertext Secret of another name"}},
		"image pulls": {func(_ *env, s *corev1.Secret) {
			s.Type, s.Data = corev1.SecretTypeDockerConfigJson, map[string][]byte{
				corev1.DockerConfigJsonKey: []byte(`{"auths":{}}`)}
		}, []string{"of type kubernetes.io/dockerconfigjson"}},
		"bootstrap token": {func(_ *env, s *corev1.Secret) { s.Type = corev1.SecretTypeBootstrapToken },
			[]string{"bootstrap.kubernetes.io/token"}},
		"Helm release": {func(_ *env, s *corev1.Secret) { s.Type = "helm.sh/release.v1" }, []string{"helm.sh/release.v1"}},
		"service-account token": {func(e *env, s *corev1.Secret) {
			account, err := e.Kube.CoreV1().ServiceAccounts(e.Namespace).
				Create(e.T.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "app"}}, metav1.CreateOptions{})
			if err != nil {
				e.T.Fatal(err)
			}
			s.Type = corev1.SecretTypeServiceAccountToken
			s.Annotations[corev1.ServiceAccountNameKey], s.Annotations[corev1.ServiceAccountUIDKey] = account.Name,
				string(account.UID)
		}, []string{"Kubernetes would write it again"}},
		"owned": {func(_ *env, s *corev1.Secret) {
			s.OwnerReferences = []metav1.OwnerReference{
				{APIVersion: "external-secrets.io/v1", Kind: "ExternalSecret", Name: "e", UID: "1"}}
		}, []string{"ExternalSecret e would revert the change"}},
		"in Git and immutable": {func(_ *env, s *corev1.Secret) {
			s.Annotations["argocd.argoproj.io/tracking-id"] = "shop:/Secret:x/s"
			s.Immutable = &yes
		}, []string{"Argo CD application shop would revert the change", "it is immutable"}},
		"the manifest in an annotation": {func(_ *env, s *corev1.Secret) {
			s.Data["quoted"] = []byte("a\"<b>\n")
			s.Annotations["example.com/original"] = `{"data":{"password":"aHVudGVyMg=="}}`
			s.Annotations["example.com/text"] = "password=hunter2"
			s.Annotations["example.com/json"] = `{"stringData":{"quoted":"a\"<b>\n"}}`
			s.Labels = map[string]string{"password": "hunter2"}
		}, []string{"annotation example.com/original contains the value of entry", "annotation example.com/text contains",
			`annotation example.com/json contains the value of entry "quoted"`, "label password contains"}},
		"no entries": {func(_ *env, s *corev1.Secret) { s.Data = nil }, []string{"it has no entries"}},
		"some ciphertext": {func(e *env, s *corev1.Secret) {
			s.Data["c"] = e.encrypt(e.spec("s", map[string]string{"c": "1"})).Data["c"]
		}, []string{`entry "c": it is already ciphertext`}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			s := e.plain("s")
			test.change(e, s)
			old := e.CreateSecret(s)
			_, err := e.lib.Convert(t.Context(), e.Namespace, "s", e.settings(), secretmanager.Options{})
			if !errors.Is(err, secretmanager.ErrNotConvertible) {
				t.Errorf("got %v", err)
			}
			fixture.CheckError(t, err, append(test.want, "converting Secret "+e.Namespace+"/s")...)
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error("error contains plaintext")
			}
			if e.get("s").ResourceVersion != old.ResourceVersion {
				t.Error("the Secret was changed")
			}
		})
	}
}

// TestConvertFailureKeepsPlaintext checks that nothing is written before all ciphertext is
// verified.
func TestConvertFailureKeepsPlaintext(t *testing.T) {
	e := newEnv(t)
	e.Write("transit/keys/"+e.Key+"-plain", nil)
	old := e.CreateSecret(e.plain("s"))
	large := e.plain("large")
	large.Data["x"] = make([]byte, 900_000)
	e.CreateSecret(large)
	for name, test := range map[string]struct {
		policy, secret string
		set            ciphertext.Settings
		want           string
	}{
		"no right to verify": {strings.Replace(author, "rewrap", "x", 1), "s", e.settings(), "verifying Secret"},
		"no right to encrypt": {strings.Replace(author, "encrypt", "x", 1), "s", e.settings(),
			"check that the policy has update on transit/encrypt/"},
		"a key that is not derived": {`path "transit/*" { capabilities = ["read", "update"] }`, "s",
			ciphertext.Settings{Key: ciphertext.Key{Name: e.Key + "-plain"}}, "is not derived"},
		"too large": {author, "large", e.settings(), "split them into several Secrets"},
		"missing":   {author, "nothing", e.settings(), "check both names"},
	} {
		t.Run(name, func(t *testing.T) {
			kube := e.clientBefore(func(int) { t.Error("something was written") })
			_, err := secretmanager.New(e.As(test.policy), kube).
				Convert(t.Context(), e.Namespace, test.secret, test.set, secretmanager.Options{})
			fixture.CheckError(t, err, test.want)
		})
	}
	if diff := cmp.Diff(old, e.get("s")); diff != "" {
		t.Errorf("the Secret was changed:\n%s", diff)
	}
}

// TestConvertConcurrentWrites writes to the Secret right before each write of Convert.
func TestConvertConcurrentWrites(t *testing.T) {
	edit := func(f func(s *corev1.Secret)) func(*env, int) {
		return func(e *env, n int) {
			if n > 0 {
				return
			}
			s := e.get("s")
			f(s)
			if _, err := e.Kube.CoreV1().Secrets(e.Namespace).Update(e.T.Context(), s, metav1.UpdateOptions{}); err != nil {
				e.T.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		act    func(e *env, n int)
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
		"another Secret": {func(e *env, n int) {
			if n > 0 {
				return
			}
			if err := e.Kube.CoreV1().Secrets(e.Namespace).Delete(e.T.Context(), "s", metav1.DeleteOptions{}); err != nil {
				e.T.Fatal(err)
			}
			e.CreateSecret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: "s"},
				Data: map[string][]byte{"c": []byte("3")}})
		}, map[string]string{"c": "3"}, 2, nil},
		"each time": {func(e *env, n int) { edit(func(s *corev1.Secret) { s.Data["a"] = []byte{byte(n)} })(e, 0) },
			nil, 5, secretmanager.ErrConflict},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			e.CreateSecret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: "s"},
				Data: map[string][]byte{"a": []byte("1")}})
			writes := 0
			kube := e.clientBefore(func(n int) { test.act(e, n); writes++ })
			_, err := secretmanager.New(e.Root, kube).
				Convert(t.Context(), e.Namespace, "s", e.settings(), secretmanager.Options{})
			if !errors.Is(err, test.err) || writes != test.writes {
				t.Errorf("%d writes, %v", writes, err)
			}
			if test.want == nil {
				if e.get("s").Labels[ciphertext.LabelTransitKey] != "" {
					t.Error("the Secret was converted")
				}
				return
			}
			if diff := cmp.Diff(test.want, e.read("s")); diff != "" {
				t.Errorf("plaintext (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlaintext(t *testing.T) {
	e := newEnv(t)
	e.CreateSecret(e.plain("s"))
	e.CreateSecret(e.encrypt(e.spec("c", map[string]string{"a": "1"})))
	got, err := e.lib.Plaintext(t.Context(), e.Namespace, "s")
	if err != nil || len(got) != 3 || string(got["password"]) != "hunter2" {
		t.Errorf("%d entries, %v", len(got), err)
	}
	_, err = e.lib.Plaintext(t.Context(), e.Namespace, "c")
	fixture.CheckError(t, err, "reading Secret "+e.Namespace+"/c", "it is already a ciphertext Secret")
	_, err = e.lib.Plaintext(t.Context(), e.Namespace, "nothing")
	fixture.CheckError(t, err, "check both names")
}

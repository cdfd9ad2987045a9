package secretmanager_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/memoryvault"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestEncrypt(t *testing.T) {
	e := newEnv(t)
	e.RotateKey()
	got, err := secretmanager.Encrypt(t.Context(), e.As(author),
		e.spec("matrix", map[string]string{"a.json": `{"x":1}`, "b": "2"}))
	if err != nil {
		t.Fatal(err)
	}
	want := &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: e.Namespace, Name: "matrix",
			Labels:      map[string]string{"secretmanager.io/transit-key": e.Key, "secretmanager.io/key-version": "2"},
			Annotations: map[string]string{"secretmanager.io/transit-mount": "transit", "secretmanager.io/scope": "strict"},
		},
		Type: "secretmanager.io/ciphertext",
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(corev1.Secret{}, "Data")); diff != "" {
		t.Errorf("manifest (-want +got):\n%s", diff)
	}
	if err := ciphertext.Validate(got); err != nil {
		t.Error(err)
	}
	e.CreateSecret(got)
	if diff := cmp.Diff(map[string]string{"a.json": `{"x":1}`, "b": "2"}, e.read("matrix")); diff != "" {
		t.Errorf("plaintext (-want +got):\n%s", diff)
	}
}

func TestEncryptErrors(t *testing.T) {
	e := newEnv(t)
	plainKey := e.Key + "-plain"
	e.Write("transit/keys/"+plainKey, map[string]any{})
	tests := map[string]struct {
		change func(*secretmanager.Spec)
		want   []string
	}{
		"empty entry": {
			func(s *secretmanager.Spec) { s.Entries["e"] = nil },
			[]string{`entry "e" is empty: an empty secret is nearly always a file that was not written`},
		},
		"no entries": {func(s *secretmanager.Spec) { s.Entries = nil }, []string{"no entries"}},
		"names that Kubernetes refuses": {
			func(s *secretmanager.Spec) {
				s.Entries["a b"], s.Entries[".."], s.Entries[""] = []byte("x"), []byte("x"), []byte("x")
			},
			[]string{`entry "a b": invalid name`, `entry ".."`, `entry ""`},
		},
		"name of the Secret": {func(s *secretmanager.Spec) { s.Name = "Matrix" }, []string{`name of the Secret "Matrix"`}},
		"no name":            {func(s *secretmanager.Spec) { s.Name = "" }, []string{`name of the Secret ""`}},
		"namespace":          {func(s *secretmanager.Spec) { s.Namespace = "a.b" }, []string{`namespace "a.b"`}},
		"too large": {
			func(s *secretmanager.Spec) {
				s.Entries["big"], s.Entries["more"] = make([]byte, 700_000), make([]byte, 100_000)
			},
			[]string{"big 700000 bytes, e 1 bytes, more 100000 bytes", "are 1066",
				"when encrypted, and a Kubernetes Secret holds 1048576", "split them"},
		},
		"no key": {func(s *secretmanager.Spec) { s.Settings.Key.Name = "" },
			[]string{"transit key: it is empty"}},
		"key with a slash": {func(s *secretmanager.Spec) { s.Settings.Key.Name = "a/b" },
			[]string{`transit key: "a/b" has a slash`}},
		"key that is not a label": {func(s *secretmanager.Spec) { s.Settings.Key.Name = "_app" },
			[]string{`"_app" cannot be the value of the label secretmanager.io/transit-key`}},
		"mount": {func(s *secretmanager.Spec) { s.Settings.Key.Mount = "a//b" }, []string{`transit mount: "a//b"`}},
		"scope": {func(s *secretmanager.Spec) { s.Settings.Scope = "srtict" },
			[]string{`unknown scope "srtict": must be strict, namespace, cluster or none`}},
		"strict without namespace": {
			func(s *secretmanager.Spec) { s.Namespace = "" },
			[]string{"no namespace: scope strict binds ciphertext to one"},
		},
		"scope namespace without one": {
			func(s *secretmanager.Spec) { s.Namespace, s.Settings.Scope = "", ciphertext.Namespace },
			[]string{"no namespace: scope namespace binds"},
		},
		"key is missing": {
			func(s *secretmanager.Spec) { s.Settings.Key.Name = "nokey" },
			[]string{"reading transit/keys/nokey", "HTTP 404", "check the names of key and mount"},
		},
		"mount is missing": {
			func(s *secretmanager.Spec) { s.Settings.Key.Mount = "nomount" },
			[]string{"reading nomount/keys/", "no handler for route", "check the names"},
		},
		"key is not derived": {
			func(s *secretmanager.Spec) { s.Settings.Key.Name = plainKey },
			[]string{"is not derived, so Vault would ignore scope strict", "derived=true", "or scope none"},
		},
		"key is derived, scope none": {
			func(s *secretmanager.Spec) { s.Settings.Scope = ciphertext.None },
			[]string{"is derived, and scope none has no context to derive from"},
		},
		"everything at once": {
			func(s *secretmanager.Spec) {
				s.Namespace, s.Name, s.Settings.Key.Name, s.Settings.Key.Mount = "", "", "", "/"
				s.Entries = map[string][]byte{"a b": nil}
			},
			[]string{"no namespace", "name of the Secret", "transit key", "transit mount", "invalid name", "is empty"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			spec := e.spec("matrix", map[string]string{"e": "x"})
			test.change(&spec)
			s, err := secretmanager.Encrypt(t.Context(), e.Root, spec)
			if s != nil || !errors.Is(err, secretmanager.ErrInvalid) {
				t.Errorf("got %v, %v, want ErrInvalid", s, err)
			}
			fixture.CheckError(t, err, test.want...)
		})
	}
}

// TestEncryptChecksBeforeItSends checks that an invalid spec causes no request.
func TestEncryptChecksBeforeItSends(t *testing.T) {
	vault := memoryvault.New("k")
	_, err := secretmanager.Encrypt(t.Context(), vault,
		secretmanager.Spec{Name: "x", Namespace: "y", Settings: ciphertext.Settings{Key: ciphertext.Key{Name: "k"}},
			Entries: map[string][]byte{"e": make([]byte, 2<<20)}})
	if !errors.Is(err, secretmanager.ErrInvalid) || len(vault.Requests()) > 0 {
		t.Errorf("got %v, want ErrInvalid and no request", err)
	}
}

func TestEncryptScopes(t *testing.T) {
	e := newEnv(t)
	plainKey := e.Key + "-plain"
	e.Write("transit/keys/"+plainKey, map[string]any{})
	tests := map[string]struct {
		scope     ciphertext.Scope
		key       string
		namespace string
	}{
		"strict":                     {ciphertext.Strict, e.Key, e.Namespace},
		"namespace":                  {ciphertext.Namespace, e.Key, e.Namespace},
		"cluster":                    {ciphertext.Cluster, e.Key, e.Namespace},
		"cluster, for any namespace": {ciphertext.Cluster, e.Key, ""},
		"none":                       {ciphertext.None, plainKey, e.Namespace},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			spec := e.spec("s", map[string]string{"e": "x"})
			spec.Settings.Scope, spec.Settings.Key.Name, spec.Namespace = test.scope, test.key, test.namespace
			s := e.encrypt(spec)
			if s.Namespace != test.namespace {
				t.Errorf("namespace %q", s.Namespace)
			}
			s.Namespace = e.Namespace
			if err := secretmanager.Verify(t.Context(), e.Root, s); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEncryptDenied(t *testing.T) {
	e := newEnv(t)
	_, err := secretmanager.Encrypt(t.Context(), e.As(`path "transit/keys/KEY" { capabilities = ["read"] }`),
		e.spec("s", map[string]string{"e": "hunter2"}))
	if !errors.Is(err, transit.ErrDenied) {
		t.Errorf("got %v, want ErrDenied", err)
	}
	fixture.CheckError(t, err, "encrypting Secret "+e.Namespace+"/s",
		"check that the policy has update on transit/encrypt/"+e.Key)
	_, err = secretmanager.Encrypt(t.Context(), e.As(`path "transit/encrypt/KEY" { capabilities = ["update"] }`),
		e.spec("s", map[string]string{"e": "hunter2"}))
	fixture.CheckError(t, err, "check that the policy has read on transit/keys/"+e.Key)
	if strings.Contains(err.Error(), "hunter2") {
		t.Error("error contains plaintext")
	}
}

func TestVerify(t *testing.T) {
	e := newEnv(t)
	spec := e.spec("s", map[string]string{"a": "1", "b": "2", "c": "3"})
	elsewhere := e.spec("s", map[string]string{"a": "1"})
	elsewhere.Namespace = "elsewhere"
	renamed := e.spec("t", map[string]string{"a": "1"})
	wide := e.spec("s", map[string]string{"a": "1"})
	wide.Settings.Scope = ciphertext.Cluster
	tests := map[string]struct {
		change func(s *corev1.Secret)
		want   []string // empty: the Secret is verified
	}{
		"unchanged": {func(s *corev1.Secret) {}, nil},
		"entries swapped": {func(s *corev1.Secret) { s.Data["a"], s.Data["b"] = s.Data["b"], s.Data["a"] },
			[]string{`entry "a"`, `entry "b"`, "for " + e.Namespace + "/s/b (scope strict)", "may have been copied"}},
		"from another namespace": {func(s *corev1.Secret) { s.Data["a"] = e.encrypt(elsewhere).Data["a"] },
			[]string{`entry "a"`}},
		"from another Secret": {func(s *corev1.Secret) { s.Data["a"] = e.encrypt(renamed).Data["a"] }, []string{`entry "a"`}},
		"of another scope":    {func(s *corev1.Secret) { s.Data["a"] = e.encrypt(wide).Data["a"] }, []string{`entry "a"`}},
		"renamed":             {func(s *corev1.Secret) { s.Name = "u" }, []string{`entry "a"`, `entry "b"`, `entry "c"`}},
		"moved": {func(s *corev1.Secret) { s.Namespace = "elsewhere" },
			[]string{`entry "a"`, `entry "b"`, `entry "c"`}},
		"plaintext entry": {func(s *corev1.Secret) { s.Data["a"] = []byte("hunter2") },
			[]string{`entry "a"`, "may be plaintext"}},
		"future version": {func(s *corev1.Secret) {
			s.Data["a"] = []byte(strings.Replace(string(s.Data["a"]), "v1", "v9", 1))
		}, []string{`entry "a"`, "does not have its version"}},
		"key of another name": {func(s *corev1.Secret) { s.Labels[ciphertext.LabelTransitKey] = "nokey" }, []string{"check"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := e.encrypt(spec)
			test.change(s)
			// The rights of an author suffice, which do not include decrypt.
			err := secretmanager.Verify(t.Context(), e.As(author), s)
			if (err == nil) != (len(test.want) == 0) {
				t.Fatalf("got %v", err)
			}
			fixture.CheckError(t, err, test.want...)
			if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "vault:v1")) {
				t.Error("error contains a value")
			}
			if len(test.want) > 1 && !errors.Is(err, secretmanager.ErrNotVerified) {
				t.Errorf("got %v, want ErrNotVerified", err)
			}
		})
	}
}

// A value is encrypted with a version that every backup of Vault has that is not older than
// the settle time.
func TestEncryptSettles(t *testing.T) {
	vault := memoryvault.New("app")
	key := ciphertext.Key{Mount: "transit", Name: "app"}
	now := time.Date(2026, 11, 26, 3, 0, 0, 0, time.UTC)
	vault.Now = func() time.Time { return now }
	vault.SetKey(key, transit.KeyInfo{Derived: true, Latest: 3, Created: map[int]time.Time{
		1: now.Add(-60 * time.Hour), 2: now.Add(-30 * time.Hour), 3: now.Add(-time.Hour)}})
	for settle, want := range map[time.Duration]int{0: 1, 24 * time.Hour: 2, -1: 3} {
		s, err := secretmanager.Encrypt(t.Context(), vault, secretmanager.Spec{Namespace: "demo", Name: "s",
			Settings: ciphertext.Settings{Key: key}, Entries: map[string][]byte{"e": []byte("x")}, Settle: settle})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ciphertext.Version(s.Data["e"]); got != want || err != nil {
			t.Errorf("settle %v: version %d, %v; want %d", settle, got, err, want)
		}
	}
}

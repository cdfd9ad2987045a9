package ciphertext

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func text(version string, n int) []byte {
	return []byte("vault:v" + version + ":" + base64.StdEncoding.EncodeToString(make([]byte, n)))
}

func TestVersion(t *testing.T) {
	for name, c := range map[string]struct {
		text []byte
		want int
		err  error
	}{
		"first version":         {text("1", 40), 1, nil},
		"many digits":           {text("123456", 40), 123456, nil},
		"of an empty plaintext": {text("2", overhead), 2, nil},
		"empty":                 {nil, 0, ErrEmpty},
		"plaintext":             {[]byte("s3cr3t-p4ssw0rd"), 0, ErrNotEncrypted},
		"vault without version": {[]byte("vault:hello"), 0, ErrNotEncrypted},
		"no second colon":       {[]byte("vault:v1"), 0, ErrNotEncrypted},
		"version zero":          {text("0", 40), 0, ErrMalformed},
		"leading zero":          {text("01", 40), 0, ErrMalformed},
		"signed":                {text("+1", 40), 0, ErrMalformed},
		"negative":              {text("-1", 40), 0, ErrMalformed},
		"huge version":          {text("99999999999999999999", 40), 0, ErrMalformed},
		"no version":            {text("", 40), 0, ErrMalformed},
		"not base64":            {[]byte("vault:v1:s3cr3t-p4ssw0rd!"), 0, ErrMalformed},
		"line feed at the end":  {append(text("1", 40), '\n'), 0, ErrMalformed},
		"line feed within":      {[]byte("vault:v1:AAAA\n" + strings.Repeat("A", 56)), 0, ErrMalformed},
		"nonzero padding bits":  {[]byte("vault:v1:" + strings.Repeat("A", 54) + "/=="), 0, ErrMalformed},
		"truncated":             {text("1", overhead-1), 0, ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Version(c.text)
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("Version = %d, %v; want %d, %v", got, err, c.want, c.err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("error contains the text: %v", err)
			}
		})
	}
}

func FuzzVersion(f *testing.F) {
	for _, seed := range []string{"", "vault:v1:", "vault:v1:AAAA", string(text("7", 64)), "vault:v-1:AAAA"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := Version(in)
		if (err == nil) != (v >= 1) {
			t.Errorf("Version = %d, %v", v, err)
		}
		if err == nil && len(in) > Size(len(in)) {
			t.Errorf("Size(%d) = %d is less than the length of a ciphertext of more bytes", len(in), Size(len(in)))
		}
	})
}

func TestSizeBoundsEveryCiphertext(t *testing.T) {
	for n := range 200 {
		if got := len(text("999999", n+overhead)); got > Size(n) {
			t.Errorf("ciphertext of %d bytes has %d, Size returns %d", n, got, Size(n))
		}
	}
}

func TestContext(t *testing.T) {
	for scope, want := range map[Scope]string{
		Strict: "strict:demo/matrix/token", Namespace: "namespace:demo", Cluster: "cluster:", None: "",
	} {
		if got := string(scope.Context("demo", "matrix", "token")); got != want {
			t.Errorf("%s: context %q, want %q", scope, got, want)
		}
	}
	if None.Context("demo", "matrix", "token") != nil {
		t.Error("scope none has a context")
	}
	defer func() {
		if recover() == nil {
			t.Error("Context of an invalid scope did not panic")
		}
	}()
	Scope("").Context("demo", "matrix", "token")
}

func TestParseScope(t *testing.T) {
	for in, want := range map[string]Scope{"": Strict, "strict": Strict, "namespace": Namespace, "cluster": Cluster,
		"none": None} {
		if got, err := ParseScope(in); got != want || err != nil {
			t.Errorf("ParseScope(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"Strict", "global", " strict"} {
		if _, err := ParseScope(in); !errors.Is(err, ErrScope) {
			t.Errorf("ParseScope(%q): %v", in, err)
		}
	}
}

func TestSettingsApplyRoundTrip(t *testing.T) {
	want := Settings{Key: Key{Mount: "team/transit", Name: "matrix"}, Scope: Namespace}
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "matrix", LabelKeyVersion: "1"}},
		Data:       map[string][]byte{"a": text("3", 40), "b": text("12", 40)},
	}
	want.Apply(s)
	got, err := SettingsOf(s)
	if err != nil || got != want {
		t.Errorf("SettingsOf = %+v, %v; want %+v", got, err, want)
	}
	if diff := cmp.Diff(map[string]string{"app": "matrix", LabelTransitKey: "matrix", LabelKeyVersion: "3"},
		s.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if s.Type != Type {
		t.Errorf("type %q", s.Type)
	}
	opaque := &corev1.Secret{Type: corev1.SecretTypeOpaque}
	want.Apply(opaque)
	if opaque.Type != corev1.SecretTypeOpaque {
		t.Error("Apply changed an existing type")
	}
}

func TestSettingsOfReportsAllProblems(t *testing.T) {
	_, err := SettingsOf(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Annotations: map[string]string{AnnotationTransitMount: "../sys", AnnotationScope: "galaxy"},
	}})
	for _, want := range []string{LabelTransitKey, AnnotationTransitMount, AnnotationScope} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in: %v", want, err)
		}
	}
}

func TestValidate(t *testing.T) {
	labeled := metav1.ObjectMeta{Labels: map[string]string{LabelTransitKey: "matrix"}}
	for name, c := range map[string]struct {
		secret corev1.Secret
		want   []string
	}{
		"good":       {corev1.Secret{ObjectMeta: labeled, Data: map[string][]byte{"a": text("1", 40)}}, nil},
		"no entries": {corev1.Secret{ObjectMeta: labeled}, []string{"no entries"}},
		"everything at once": {
			corev1.Secret{Data: map[string][]byte{"a": []byte("s3cr3t"), "b": nil, "c": text("0", 40), "d": text("1", 40)}},
			[]string{LabelTransitKey, `entry "a"`, `entry "b"`, `entry "c"`},
		},
		"too large": {
			corev1.Secret{ObjectMeta: labeled, Data: map[string][]byte{"a": text("1", 600_000), "b": text("1", 600_000)}},
			[]string{"1048576"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := Validate(&c.secret)
			if (err == nil) != (c.want == nil) {
				t.Fatalf("Validate: %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			if err != nil && (strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), `"d"`)) {
				t.Errorf("error contains a value or a valid entry: %v", err)
			}
		})
	}
}

func TestCheckPath(t *testing.T) {
	for _, good := range []string{"transit", "team-a/transit", "aes256-key", "a.b_c", "auth:jwt"} {
		if err := CheckPath(good); err != nil {
			t.Errorf("CheckPath(%q): %v", good, err)
		}
	}
	for _, bad := range []string{"", "/transit", "transit/", "a//b", "a/../b", "..", ".", "a b", "a?b", "a#b", "a%2fb",
		"a\nb", "ä", strings.Repeat("a", 513)} {
		if CheckPath(bad) == nil {
			t.Errorf("CheckPath(%q) = nil", bad)
		}
	}
	if CheckName("a/b") == nil {
		t.Error(`CheckName("a/b") = nil`)
	}
}

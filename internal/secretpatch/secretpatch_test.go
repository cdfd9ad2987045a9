package secretpatch_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/secretpatch"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func client(t *testing.T, wrap func(http.RoundTripper) http.RoundTripper) kubernetes.Interface {
	t.Helper()
	config := rest.CopyConfig(testenv.SharedAPIServer(t).Config)
	if wrap != nil {
		config.Wrap(wrap)
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return kube
}

// newSecret creates a Secret in a new namespace.
func newSecret(t *testing.T, namespace string, s *corev1.Secret) *corev1.Secret {
	t.Helper()
	testenv.SharedAPIServer(t).CreateNamespace(t, namespace)
	s.Name, s.Labels = "s", map[string]string{ciphertext.LabelTransitKey: "k"}
	stored, err := client(t, nil).CoreV1().Secrets(namespace).Create(t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

func nameOf(s *corev1.Secret) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
}

func text(version, length int) []byte {
	return fmt.Appendf(nil, "vault:v%d:%s", version, strings.Repeat("AAAA", length/4))
}

// TestPatch writes Secrets of every size, including those for which a test of each entry
// would exceed the limit of the API server.
func TestPatch(t *testing.T) {
	for name, test := range map[string]struct {
		entries, length int
		annotations     map[string]string
	}{
		"no entries":       {0, 0, nil},
		"one entry":        {1, 40, nil},
		"annotations":      {1, 40, map[string]string{"a/b_c": "d"}},
		"6,000 entries":    {6000, 40, nil},
		"1 MiB of entries": {8, 130_000, nil},
		"1 MiB in one":     {1, 1_040_000, nil},
	} {
		t.Run(name, func(t *testing.T) {
			old := &corev1.Secret{Data: map[string][]byte{}}
			old.Annotations = test.annotations
			want := map[string][]byte{"new": text(2, 40)}
			set := map[string][]byte{"new": text(2, 40)}
			for i := range test.entries {
				entry := fmt.Sprintf("e%d", i)
				old.Data[entry] = text(1, test.length)
				if i == 1 {
					continue // is removed
				}
				set[entry] = text(2, test.length)
				want[entry] = set[entry]
			}
			old = newSecret(t, "patch-"+strings.NewReplacer(" ", "-", ",", "").Replace(strings.ToLower(name)), old)
			stored, err := secretpatch.Writer{Kube: client(t, nil)}.Write(t.Context(), nameOf(old),
				func(current *corev1.Secret) (*secretpatch.Patch, error) {
					p := secretpatch.New(current)
					p.SetEntries(set)
					if test.entries > 1 {
						p.RemoveEntries("e1")
					}
					p.SetAnnotation(ciphertext.AnnotationRewrapped, p.SetKeyVersion())
					return p, nil
				})
			if err == nil {
				if diff := cmp.Diff(want, stored.Data); diff != "" {
					t.Errorf("data (-want +got):\n%.1000s", diff)
				}
			}
			if err != nil {
				t.Fatalf("%.300s", err.Error())
			}
			if stored.Annotations[ciphertext.AnnotationRewrapped] != "2" ||
				stored.Annotations["a/b_c"] != test.annotations["a/b_c"] {
				t.Errorf("annotations %v", stored.Annotations)
			}
		})
	}
}

// A patch fails if another client changed anything that the patch tests, for patches of
// each entry and of the whole data.
func TestPatchTestsWhatItReplaces(t *testing.T) {
	many := map[string][]byte{}
	for i := range 5000 {
		many[fmt.Sprintf("e%d", i)] = text(1, 40)
	}
	few := map[string][]byte{"e1": text(1, 40), "e2": text(1, 40)}
	for name, test := range map[string]struct {
		data    map[string][]byte
		entry   string // written by another client
		refused bool
	}{
		"the entry":                   {few, "e1", true},
		"another entry":               {few, "e2", false},
		"the entry, of many":          {many, "e1", true},
		"another entry, beside many":  {many, "other", true},
		"the entry that is to be new": {few, "new", true},
	} {
		t.Run(name, func(t *testing.T) {
			old := newSecret(t, "tests-"+strings.NewReplacer(" ", "-", ",", "").Replace(name), &corev1.Secret{Data: test.data})
			kube := client(t, nil)
			now := old.DeepCopy()
			now.Data[test.entry] = text(1, 80)
			if _, err := kube.CoreV1().Secrets(old.Namespace).Update(t.Context(), now, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			set := map[string][]byte{"e1": text(2, 40), "new": text(2, 40)}
			if len(test.data) > 10 {
				for entry := range test.data {
					set[entry] = text(2, 40)
				}
			}
			_, err := secretpatch.Writer{Kube: kube, Attempts: 1}.WriteFrom(t.Context(), nameOf(old), old,
				func(current *corev1.Secret) (*secretpatch.Patch, error) {
					p := secretpatch.New(current)
					p.SetEntries(set)
					return p, nil
				})
			if (err != nil) != test.refused || err != nil && !errors.Is(err, secretpatch.ErrConflict) {
				t.Errorf("%.300v", err)
			}
			stored, err := kube.CoreV1().Secrets(old.Namespace).Get(t.Context(), "s", metav1.GetOptions{})
			if err != nil || string(stored.Data[test.entry]) != string(text(1, 80)) {
				t.Errorf("the value of the other client is lost (%v)", err)
			}
		})
	}
}

// TestWrite lists the outcomes of a write that is not accepted at once.
func TestWrite(t *testing.T) {
	set := func(entry string) secretpatch.Plan {
		return func(current *corev1.Secret) (*secretpatch.Patch, error) {
			if current == nil {
				return secretpatch.Create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"},
					Data: map[string][]byte{entry: text(1, 40)}}), nil
			}
			p := secretpatch.New(current)
			p.SetEntries(map[string][]byte{entry: text(2, 40)})
			return p, nil
		}
	}
	yes := true
	t.Run("rejected", func(t *testing.T) {
		old := newSecret(t, "write-rejected", &corev1.Secret{Immutable: &yes, Data: map[string][]byte{"e": text(1, 40)}})
		if _, err := (secretpatch.Writer{Kube: client(t, nil)}).
			Write(t.Context(), nameOf(old), set("e")); !errors.Is(err, secretpatch.ErrRejected) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the response is lost", func(t *testing.T) {
		old := newSecret(t, "write-lost", &corev1.Secret{Data: map[string][]byte{"e": text(1, 40)}})
		patches := 0
		kube := client(t, func(next http.RoundTripper) http.RoundTripper {
			return roundTrip(func(r *http.Request) (*http.Response, error) {
				resp, err := next.RoundTrip(r)
				if r.Method == http.MethodPatch {
					patches++
					if err == nil {
						resp.StatusCode = http.StatusConflict
					}
				}
				return resp, err
			})
		})
		stored, err := secretpatch.Writer{Kube: kube}.Write(t.Context(), nameOf(old), set("e"))
		if err != nil || patches != 1 || string(stored.Data["e"]) != string(text(2, 40)) {
			t.Errorf("%d patches, %v", patches, err)
		}
	})
	t.Run("dry run", func(t *testing.T) {
		old := newSecret(t, "write-dry", &corev1.Secret{Data: map[string][]byte{"e": text(1, 40)}})
		w := secretpatch.Writer{Kube: client(t, nil), DryRun: true}
		if _, err := w.Write(t.Context(), nameOf(old), set("e")); err != nil {
			t.Error(err)
		}
		now, err := w.Kube.CoreV1().Secrets(old.Namespace).Get(t.Context(), "s", metav1.GetOptions{})
		if err != nil || now.ResourceVersion != old.ResourceVersion {
			t.Errorf("a dry run wrote (%v)", err)
		}
	})
	t.Run("created and deleted meanwhile", func(t *testing.T) {
		namespace := "write-meanwhile"
		testenv.SharedAPIServer(t).CreateNamespace(t, namespace)
		direct, n := client(t, nil).CoreV1().Secrets(namespace), 0
		kube := client(t, func(next http.RoundTripper) http.RoundTripper {
			return roundTrip(func(r *http.Request) (*http.Response, error) {
				if r.Method != http.MethodGet {
					switch n++; n {
					case 1:
						if _, err := direct.Create(t.Context(),
							&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}, metav1.CreateOptions{}); err != nil {
							t.Error(err)
						}
					case 2:
						if err := direct.Delete(t.Context(), "s", metav1.DeleteOptions{}); err != nil {
							t.Error(err)
						}
					}
				}
				return next.RoundTrip(r)
			})
		})
		stored, err := secretpatch.Writer{Kube: kube}.Write(t.Context(),
			types.NamespacedName{Namespace: namespace, Name: "s"}, set("e"))
		if err != nil || n != 3 || len(stored.Data) != 1 {
			t.Errorf("%d writes, %v", n, err)
		}
	})
	t.Run("an error of the plan", func(t *testing.T) {
		failed := errors.New("failed")
		_, err := secretpatch.Writer{Kube: client(t, nil)}.Write(t.Context(),
			types.NamespacedName{Namespace: "default", Name: "missing"},
			func(current *corev1.Secret) (*secretpatch.Patch, error) {
				if current != nil {
					t.Error("the Secret exists")
				}
				return nil, failed
			})
		if !errors.Is(err, failed) {
			t.Errorf("got %v", err)
		}
	})
}

// A patch of few entries tests the old values and sets the new ones, without other entries.
func TestMarshal(t *testing.T) {
	p := secretpatch.New(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{UID: "u", Labels: map[string]string{"l": "1"}},
		Data:       map[string][]byte{"a": []byte("old"), "b": []byte("kept")},
	})
	p.TestLabel("l")
	p.SetEntries(map[string][]byte{"a": []byte("new"), "c": []byte("more")})
	got, err := json.Marshal(p)
	want := `[{"op":"test","path":"/metadata/uid","value":"u"},` +
		`{"op":"test","path":"/metadata/annotations","value":null},` +
		`{"op":"test","path":"/metadata/labels/l","value":"1"},` +
		`{"op":"test","path":"/data/a","value":"b2xk"},{"op":"add","path":"/data/a","value":"bmV3"},` +
		`{"op":"test","path":"/data/c","value":null},{"op":"add","path":"/data/c","value":"bW9yZQ=="}]`
	if err != nil || string(got) != want {
		t.Errorf("%v: got\n%s\nwant\n%s", err, got, want)
	}
}

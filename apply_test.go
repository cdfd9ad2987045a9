package secretmanager_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

func TestApply(t *testing.T) {
	e := newEnv(t)
	lib := secretmanager.New(e.As(author), e.Kube)
	s, outcome, err := lib.Apply(t.Context(), e.spec("s", map[string]string{"a": "1", "b": "2"}), secretmanager.Options{})
	if err != nil || outcome != secretmanager.Created {
		t.Fatalf("%s, %v", outcome, err)
	}
	if s.UID == "" || s.Kind != "Secret" || s.Type != ciphertext.Type {
		t.Errorf("not the stored Secret: %+v", s.ObjectMeta)
	}
	// Add another label and the annotation of kubectl; then change one entry and add
	// another one, under a newer version of the key.
	s.Labels["team"] = "red"
	s.Annotations[ciphertext.AnnotationLastApplied] = `{"data":"hunter2"}`
	old, err := e.Kube.CoreV1().Secrets(e.Namespace).Update(t.Context(), s, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e.RotateKey()
	stored, outcome, err := lib.Apply(t.Context(), e.spec("s", map[string]string{"b": "two", "c": "3"}),
		secretmanager.Options{})
	if err != nil || outcome != secretmanager.Updated {
		t.Fatalf("%s, %v", outcome, err)
	}
	if diff := cmp.Diff(map[string]string{"a": "1", "b": "two", "c": "3"}, e.read("s")); diff != "" {
		t.Errorf("plaintext (-want +got):\n%s", diff)
	}
	if string(stored.Data["a"]) != string(old.Data["a"]) {
		t.Error("another entry was changed")
	}
	wantLabels := map[string]string{ciphertext.LabelTransitKey: e.Key, ciphertext.LabelKeyVersion: "1", "team": "red"}
	if diff := cmp.Diff(wantLabels, stored.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	wantAnnotations := map[string]string{ciphertext.AnnotationTransitMount: "transit",
		ciphertext.AnnotationScope: "strict"}
	if diff := cmp.Diff(wantAnnotations, stored.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	// After the last old entry, the label has the newer version.
	stored, _, err = lib.Apply(t.Context(), e.spec("s", map[string]string{"a": "one"}), secretmanager.Options{})
	if err != nil || stored.Labels[ciphertext.LabelKeyVersion] != "2" {
		t.Errorf("%v, label %q", err, stored.Labels[ciphertext.LabelKeyVersion])
	}
}

func TestApplyDryRun(t *testing.T) {
	e := newEnv(t)
	dry := secretmanager.Options{DryRun: true}
	if _, outcome, err := e.lib.Apply(t.Context(), e.spec("s", map[string]string{"a": "1"}), dry); err != nil ||
		outcome != secretmanager.Created {
		t.Fatalf("%s, %v", outcome, err)
	}
	if _, err := e.Kube.CoreV1().Secrets(e.Namespace).
		Get(t.Context(), "s", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a dry run created the Secret: %v", err)
	}
	old := e.CreateSecret(e.encrypt(e.spec("s", map[string]string{"a": "1"})))
	if _, outcome, err := e.lib.Apply(t.Context(), e.spec("s", map[string]string{"a": "2"}), dry); err != nil ||
		outcome != secretmanager.Updated {
		t.Fatalf("%s, %v", outcome, err)
	}
	if e.get("s").ResourceVersion != old.ResourceVersion {
		t.Error("a dry run changed the Secret")
	}
}

func TestApplyToExistingSecret(t *testing.T) {
	yes := true
	tests := map[string]struct {
		existing func(e *env) *corev1.Secret
		change   func(*secretmanager.Spec)
		want     []string // empty: the entries are merged
	}{
		"plaintext": {
			existing: func(e *env) *corev1.Secret {
				return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: "s"},
					Data: map[string][]byte{"old": []byte("hunter2")}}
			},
			want: []string{"of type Opaque and without the label", "choose another name"},
		},
		"TLS": {
			existing: func(e *env) *corev1.Secret {
				return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: "s"}, Type: corev1.SecretTypeTLS,
					Data: map[string][]byte{"tls.crt": nil, "tls.key": nil}}
			},
			want: []string{"of type kubernetes.io/tls"},
		},
		"adopted by its label": {
			existing: func(e *env) *corev1.Secret {
				s := e.encrypt(e.spec("s", map[string]string{"old": "1"}))
				s.Type, s.Annotations = corev1.SecretTypeOpaque, nil
				return s
			},
		},
		"other annotations only": {
			existing: func(e *env) *corev1.Secret {
				s := e.encrypt(e.spec("s", map[string]string{"old": "1"}))
				s.Annotations = map[string]string{"note": "x"}
				return s
			},
		},
		"label and no entries": {
			existing: func(e *env) *corev1.Secret {
				s := e.encrypt(e.spec("s", map[string]string{"old": "1"}))
				s.Data = nil
				return s
			},
		},
		"plaintext in the entry that is replaced": {
			existing: func(e *env) *corev1.Secret {
				s := e.encrypt(e.spec("s", map[string]string{"old": "1"}))
				s.Data["e"] = []byte("hunter2")
				return s
			},
		},
		"plaintext in other entries": {
			existing: func(e *env) *corev1.Secret {
				s := e.encrypt(e.spec("s", map[string]string{"old": "1"}))
				s.Data["x"], s.Data["y"] = []byte("hunter2"), []byte("vault:v1:!")
				return s
			},
			want: []string{`entry "x" is not ciphertext`, `entry "y" is damaged`},
		},
		"no label": {
			existing: func(e *env) *corev1.Secret {
				s := e.encrypt(e.spec("s", map[string]string{"old": "1"}))
				s.Labels = nil
				return s
			},
			want: []string{"label secretmanager.io/transit-key is missing"},
		},
		"another key, mount and scope": {
			existing: func(e *env) *corev1.Secret {
				s := e.encrypt(e.spec("s", map[string]string{"old": "1"}))
				s.Labels[ciphertext.LabelTransitKey], s.Annotations[ciphertext.AnnotationTransitMount],
					s.Annotations[ciphertext.AnnotationScope] = "other", "elsewhere", "cluster"
				return s
			},
			want: []string{"its key is elsewhere/keys/other, not transit/keys/", "its scope is cluster, not strict"},
		},
		"immutable": {
			existing: func(e *env) *corev1.Secret {
				s := e.encrypt(e.spec("s", map[string]string{"old": "1"}))
				s.Immutable = &yes
				return s
			},
			want: []string{"the existing Secret is immutable: delete it and create it again, or choose another name"},
		},
		"being deleted": {
			existing: func(e *env) *corev1.Secret {
				s := e.encrypt(e.spec("s", map[string]string{"old": "1"}))
				s.Finalizers = []string{"example.org/stay"}
				return s
			},
			want: []string{"is being deleted"},
		},
		"too large together": {
			existing: func(e *env) *corev1.Secret {
				return e.encrypt(e.spec("s", map[string]string{"old": strings.Repeat("x", 700_000)}))
			},
			change: func(s *secretmanager.Spec) { s.Entries["e"] = make([]byte, 200_000) },
			want:   []string{"the Secret would hold 1200", "use a second Secret"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			old := e.CreateSecret(test.existing(e))
			if name == "being deleted" {
				if err := e.Kube.CoreV1().Secrets(e.Namespace).Delete(t.Context(), "s", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				old = e.get("s")
			}
			spec := e.spec("s", map[string]string{"e": "new"})
			if test.change != nil {
				test.change(&spec)
			}
			_, outcome, err := e.lib.Apply(t.Context(), spec, secretmanager.Options{})
			if len(test.want) == 0 {
				if err != nil || outcome != secretmanager.Updated || e.read("s", "e")["e"] != "new" {
					t.Errorf("%s, %v", outcome, err)
				}
				return
			}
			fixture.CheckError(t, err, append(test.want, "writing Secret "+e.Namespace+"/s")...)
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error("error contains plaintext")
			}
			if e.get("s").ResourceVersion != old.ResourceVersion {
				t.Error("the existing Secret was changed")
			}
		})
	}
}

// TestApplyConcurrentWrites writes to the Secret right before each write of Apply.
func TestApplyConcurrentWrites(t *testing.T) {
	patch := func(e *env, ops ...string) {
		e.T.Helper()
		text := "[" + strings.Join(ops, ",") + "]"
		if _, err := e.Kube.CoreV1().Secrets(e.Namespace).
			Patch(e.T.Context(), "s", types.JSONPatchType, []byte(text), metav1.PatchOptions{}); err != nil {
			e.T.Fatal(err)
		}
	}
	add := func(path string, value any) string {
		text, err := json.Marshal(map[string]any{"op": "add", "path": path, "value": value})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	once := func(f func(e *env)) func(*env, int) {
		return func(e *env, n int) {
			if n == 0 {
				f(e)
			}
		}
	}
	remove := func(e *env) {
		if err := e.Kube.CoreV1().Secrets(e.Namespace).Delete(e.T.Context(), "s", metav1.DeleteOptions{}); err != nil {
			e.T.Fatal(err)
		}
	}
	theirs := func(e *env, entry string) []byte {
		return e.encrypt(e.spec("s", map[string]string{entry: "theirs"})).Data[entry]
	}

	tests := map[string]struct {
		absent  bool // at first
		act     func(e *env, n int)
		outcome secretmanager.Outcome
		want    map[string]string
		writes  int
		err     error
	}{
		"no other write": {act: func(*env, int) {}, outcome: secretmanager.Updated,
			want: map[string]string{"a": "ours", "b": "2"}, writes: 1},
		"same entry": {act: once(func(e *env) { patch(e, add("/data/a", theirs(e, "a"))) }),
			outcome: secretmanager.Updated, want: map[string]string{"a": "ours", "b": "2"}, writes: 2},
		"another entry": {act: once(func(e *env) { patch(e, add("/data/b", theirs(e, "b"))) }),
			outcome: secretmanager.Updated, want: map[string]string{"a": "ours", "b": "theirs"}, writes: 1},
		"deleted": {act: once(remove), outcome: secretmanager.Created, want: map[string]string{"a": "ours"}, writes: 2},
		"created first": {absent: true,
			act:     once(func(e *env) { e.CreateSecret(e.encrypt(e.spec("s", map[string]string{"b": "2"}))) }),
			outcome: secretmanager.Updated, want: map[string]string{"a": "ours", "b": "2"}, writes: 2},
		"created as something else": {absent: true, act: once(func(e *env) {
			e.CreateSecret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: "s"}})
		}), writes: 1, err: secretmanager.ErrExists},
		"replaced by something else": {act: once(func(e *env) {
			remove(e)
			e.CreateSecret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: "s"}})
		}), writes: 1, err: secretmanager.ErrExists},
		"replaced by the same": {act: once(func(e *env) {
			s := e.get("s")
			remove(e)
			s.UID, s.ResourceVersion = "", ""
			e.CreateSecret(s)
		}), outcome: secretmanager.Updated, want: map[string]string{"a": "ours", "b": "2"}, writes: 2},
		"another key": {act: once(func(e *env) {
			patch(e, add("/metadata/labels/secretmanager.io~1transit-key", "other"))
		}), writes: 1, err: secretmanager.ErrExists},
		"another scope": {act: once(func(e *env) {
			patch(e, add("/metadata/annotations/secretmanager.io~1scope", "cluster"))
		}), writes: 1, err: secretmanager.ErrExists},
		"each time": {act: func(e *env, n int) { patch(e, add("/data/a", theirs(e, "a"))) },
			writes: 5, err: secretmanager.ErrConflict},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			if !test.absent {
				e.CreateSecret(e.encrypt(e.spec("s", map[string]string{"a": "1", "b": "2"})))
			}
			writes := 0
			kube := e.clientBefore(func(n int) { test.act(e, n); writes++ })
			_, outcome, err := secretmanager.New(e.Root, kube).
				Apply(t.Context(), e.spec("s", map[string]string{"a": "ours"}), secretmanager.Options{})
			if writes != test.writes {
				t.Errorf("%d writes, want %d", writes, test.writes)
			}
			if test.err != nil {
				if !errors.Is(err, test.err) {
					t.Errorf("got %v, want %v", err, test.err)
				}
				return
			}
			if err != nil || outcome != test.outcome {
				t.Fatalf("%s, %v", outcome, err)
			}
			if diff := cmp.Diff(test.want, e.read("s")); diff != "" {
				t.Errorf("plaintext (-want +got):\n%s", diff)
			}
		})
	}
}

func TestApplyConcurrently(t *testing.T) {
	e := newEnv(t)
	const writers = 4 // each conflicts at most with the others, so five attempts suffice
	var group sync.WaitGroup
	for n := range writers {
		group.Go(func() {
			if _, _, err := e.lib.Apply(t.Context(),
				e.spec("s", map[string]string{fmt.Sprint("e", n): "x", "shared": fmt.Sprint(n)}),
				secretmanager.Options{}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := e.read("s"); len(got) != writers+1 {
		t.Errorf("entries: %v", got)
	}
}

// TestApplyVerifiesStoredSecret stores a Secret with an entry that does not decrypt, as an
// admission webhook may.
func TestApplyVerifiesStoredSecret(t *testing.T) {
	e := newEnv(t)
	s := e.encrypt(e.spec("s", map[string]string{"other": "1", "a": "1"}))
	s.Data["other"] = s.Data["a"]
	e.CreateSecret(s)
	stored, outcome, err := e.lib.Apply(t.Context(), e.spec("s", map[string]string{"a": "2"}), secretmanager.Options{})
	if !errors.Is(err, secretmanager.ErrNotVerified) || outcome != secretmanager.Updated || stored == nil {
		t.Errorf("%s, %v", outcome, err)
	}
	fixture.CheckError(t, err, "the Secret was updated, but", `entry "other"`)
}

func TestApplyErrors(t *testing.T) {
	e := newEnv(t)
	spec := e.spec("s", map[string]string{"a": "1"})
	spec.Settings.Scope, spec.Namespace = ciphertext.Cluster, ""
	_, _, err := e.lib.Apply(t.Context(), spec, secretmanager.Options{})
	if !errors.Is(err, secretmanager.ErrInvalid) {
		t.Errorf("no namespace: %v", err)
	}
	spec.Namespace = "nowhere"
	_, _, err = e.lib.Apply(t.Context(), spec, secretmanager.Options{})
	fixture.CheckError(t, err, `namespaces "nowhere" not found`, "check that the namespace exists")
	if !apierrors.IsNotFound(err) {
		t.Errorf("no such namespace: %v", err)
	}
}

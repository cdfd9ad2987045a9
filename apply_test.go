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
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestApply(t *testing.T) {
	w := newWorld(t)
	lib := secretmanager.New(w.as(author), w.kube)
	s, outcome, err := lib.Apply(t.Context(), w.spec("s", map[string]string{"a": "1", "b": "2"}), secretmanager.Options{})
	if err != nil || outcome != secretmanager.Created {
		t.Fatalf("%s, %v", outcome, err)
	}
	if s.UID == "" || s.Kind != "Secret" || s.Type != ciphertext.Type {
		t.Errorf("not what was stored: %+v", s.ObjectMeta)
	}
	// Somebody else's label and kubectl's copy; then one entry anew and one more,
	// under a newer version of the key.
	s.Labels["team"] = "red"
	s.Annotations[ciphertext.AnnotationLastApplied] = `{"data":"hunter2"}`
	before, err := w.kube.CoreV1().Secrets(w.ns).Update(t.Context(), s, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.write("transit/keys/"+w.key+"/rotate", nil)
	after, outcome, err := lib.Apply(t.Context(), w.spec("s", map[string]string{"b": "two", "c": "3"}),
		secretmanager.Options{})
	if err != nil || outcome != secretmanager.Updated {
		t.Fatalf("%s, %v", outcome, err)
	}
	if diff := cmp.Diff(map[string]string{"a": "1", "b": "two", "c": "3"}, w.read("s")); diff != "" {
		t.Errorf("plaintext (-want +got):\n%s", diff)
	}
	if string(after.Data["a"]) != string(before.Data["a"]) {
		t.Error("an entry that was not named was written")
	}
	wantLabels := map[string]string{ciphertext.LabelTransitKey: w.key, ciphertext.LabelKeyVersion: "1", "team": "red"}
	if diff := cmp.Diff(wantLabels, after.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	wantAnnotations := map[string]string{ciphertext.AnnotationTransitMount: "transit",
		ciphertext.AnnotationScope: "strict"}
	if diff := cmp.Diff(wantAnnotations, after.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	// With the last old entry the hint rises.
	after, _, err = lib.Apply(t.Context(), w.spec("s", map[string]string{"a": "one"}), secretmanager.Options{})
	if err != nil || after.Labels[ciphertext.LabelKeyVersion] != "2" {
		t.Errorf("%v, hint %q", err, after.Labels[ciphertext.LabelKeyVersion])
	}
}

func TestApplyDryRun(t *testing.T) {
	w := newWorld(t)
	dry := secretmanager.Options{DryRun: true}
	if _, outcome, err := w.lib.Apply(t.Context(), w.spec("s", map[string]string{"a": "1"}), dry); err != nil ||
		outcome != secretmanager.Created {
		t.Fatalf("%s, %v", outcome, err)
	}
	if _, err := w.kube.CoreV1().Secrets(w.ns).Get(t.Context(), "s", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a dry run created it: %v", err)
	}
	before := w.store(w.seal(w.spec("s", map[string]string{"a": "1"})))
	if _, outcome, err := w.lib.Apply(t.Context(), w.spec("s", map[string]string{"a": "2"}), dry); err != nil ||
		outcome != secretmanager.Updated {
		t.Fatalf("%s, %v", outcome, err)
	}
	if w.get("s").ResourceVersion != before.ResourceVersion {
		t.Error("a dry run changed it")
	}
}

func TestApplyToExistingSecret(t *testing.T) {
	yes := true
	tests := map[string]struct {
		there  func(w *world) *corev1.Secret
		change func(*secretmanager.Spec)
		want   []string // nothing: it is merged
	}{
		"plaintext": {
			there: func(w *world) *corev1.Secret {
				return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "s"},
					Data: map[string][]byte{"old": []byte("hunter2")}}
			},
			want: []string{"of type Opaque and without the label", "choose another name"},
		},
		"TLS": {
			there: func(w *world) *corev1.Secret {
				return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "s"}, Type: corev1.SecretTypeTLS,
					Data: map[string][]byte{"tls.crt": nil, "tls.key": nil}}
			},
			want: []string{"of type kubernetes.io/tls"},
		},
		"adopted by its label": {
			there: func(w *world) *corev1.Secret {
				s := w.seal(w.spec("s", map[string]string{"old": "1"}))
				s.Type, s.Annotations = corev1.SecretTypeOpaque, nil
				return s
			},
		},
		"other annotations only": {
			there: func(w *world) *corev1.Secret {
				s := w.seal(w.spec("s", map[string]string{"old": "1"}))
				s.Annotations = map[string]string{"note": "x"}
				return s
			},
		},
		"labelled and empty": {
			there: func(w *world) *corev1.Secret {
				s := w.seal(w.spec("s", map[string]string{"old": "1"}))
				s.Data = nil
				return s
			},
		},
		"plaintext in the entry that is replaced": {
			there: func(w *world) *corev1.Secret {
				s := w.seal(w.spec("s", map[string]string{"old": "1"}))
				s.Data["e"] = []byte("hunter2")
				return s
			},
		},
		"plaintext in other entries": {
			there: func(w *world) *corev1.Secret {
				s := w.seal(w.spec("s", map[string]string{"old": "1"}))
				s.Data["x"], s.Data["y"] = []byte("hunter2"), []byte("vault:v1:!")
				return s
			},
			want: []string{`entry "x" is not ciphertext`, `entry "y" is damaged`},
		},
		"no label": {
			there: func(w *world) *corev1.Secret {
				s := w.seal(w.spec("s", map[string]string{"old": "1"}))
				s.Labels = nil
				return s
			},
			want: []string{"label secretmanager.io/transit-key is missing"},
		},
		"another key, mount and scope": {
			there: func(w *world) *corev1.Secret {
				s := w.seal(w.spec("s", map[string]string{"old": "1"}))
				s.Labels[ciphertext.LabelTransitKey], s.Annotations[ciphertext.AnnotationTransitMount],
					s.Annotations[ciphertext.AnnotationScope] = "other", "elsewhere", "cluster"
				return s
			},
			want: []string{"its key is elsewhere/keys/other, not transit/keys/", "its scope is cluster, not strict"},
		},
		"immutable": {
			there: func(w *world) *corev1.Secret {
				s := w.seal(w.spec("s", map[string]string{"old": "1"}))
				s.Immutable = &yes
				return s
			},
			want: []string{"the existing Secret is immutable: delete it and create it again, or choose another name"},
		},
		"being deleted": {
			there: func(w *world) *corev1.Secret {
				s := w.seal(w.spec("s", map[string]string{"old": "1"}))
				s.Finalizers = []string{"example.org/stay"}
				return s
			},
			want: []string{"is being deleted"},
		},
		"too large together": {
			there: func(w *world) *corev1.Secret {
				return w.seal(w.spec("s", map[string]string{"old": strings.Repeat("x", 700_000)}))
			},
			change: func(s *secretmanager.Spec) { s.Entries["e"] = make([]byte, 200_000) },
			want:   []string{"the Secret would hold 1200", "use a second Secret"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			before := w.store(test.there(w))
			if name == "being deleted" {
				if err := w.kube.CoreV1().Secrets(w.ns).Delete(t.Context(), "s", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				before = w.get("s")
			}
			spec := w.spec("s", map[string]string{"e": "new"})
			if test.change != nil {
				test.change(&spec)
			}
			_, outcome, err := w.lib.Apply(t.Context(), spec, secretmanager.Options{})
			if len(test.want) == 0 {
				if err != nil || outcome != secretmanager.Updated || w.read("s", "e")["e"] != "new" {
					t.Errorf("%s, %v", outcome, err)
				}
				return
			}
			says(t, err, append(test.want, "writing Secret "+w.ns+"/s")...)
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error("the error repeats plaintext")
			}
			if w.get("s").ResourceVersion != before.ResourceVersion {
				t.Error("what was there was touched")
			}
		})
	}
}

// TestApplyWhileOthersWrite lets somebody else write in the moment before each
// of our writes.
func TestApplyWhileOthersWrite(t *testing.T) {
	patch := func(w *world, ops ...string) {
		w.t.Helper()
		text := "[" + strings.Join(ops, ",") + "]"
		if _, err := w.kube.CoreV1().Secrets(w.ns).
			Patch(w.t.Context(), "s", types.JSONPatchType, []byte(text), metav1.PatchOptions{}); err != nil {
			w.t.Fatal(err)
		}
	}
	add := func(path string, value any) string {
		text, err := json.Marshal(map[string]any{"op": "add", "path": path, "value": value})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	once := func(f func(w *world)) func(*world, int) {
		return func(w *world, n int) {
			if n == 0 {
				f(w)
			}
		}
	}
	remove := func(w *world) {
		if err := w.kube.CoreV1().Secrets(w.ns).Delete(w.t.Context(), "s", metav1.DeleteOptions{}); err != nil {
			w.t.Fatal(err)
		}
	}
	theirs := func(w *world, entry string) []byte {
		return w.seal(w.spec("s", map[string]string{entry: "theirs"})).Data[entry]
	}

	tests := map[string]struct {
		absent  bool // at first
		act     func(w *world, n int)
		outcome secretmanager.Outcome
		want    map[string]string
		writes  int
		err     error
	}{
		"nobody": {act: func(*world, int) {}, outcome: secretmanager.Updated,
			want: map[string]string{"a": "ours", "b": "2"}, writes: 1},
		"same entry": {act: once(func(w *world) { patch(w, add("/data/a", theirs(w, "a"))) }),
			outcome: secretmanager.Updated, want: map[string]string{"a": "ours", "b": "2"}, writes: 2},
		"another entry": {act: once(func(w *world) { patch(w, add("/data/b", theirs(w, "b"))) }),
			outcome: secretmanager.Updated, want: map[string]string{"a": "ours", "b": "theirs"}, writes: 1},
		"deleted": {act: once(remove), outcome: secretmanager.Created, want: map[string]string{"a": "ours"}, writes: 2},
		"created first": {absent: true,
			act:     once(func(w *world) { w.store(w.seal(w.spec("s", map[string]string{"b": "2"}))) }),
			outcome: secretmanager.Updated, want: map[string]string{"a": "ours", "b": "2"}, writes: 2},
		"created as something else": {absent: true, act: once(func(w *world) {
			w.store(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "s"}})
		}), writes: 1, err: secretmanager.ErrExists},
		"replaced by something else": {act: once(func(w *world) {
			remove(w)
			w.store(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "s"}})
		}), writes: 1, err: secretmanager.ErrExists},
		"replaced by the same": {act: once(func(w *world) {
			s := w.get("s")
			remove(w)
			s.UID, s.ResourceVersion = "", ""
			w.store(s)
		}), outcome: secretmanager.Updated, want: map[string]string{"a": "ours", "b": "2"}, writes: 2},
		"relabelled to another key": {act: once(func(w *world) { patch(w, add("/metadata/labels/secretmanager.io~1transit-key", "other")) }), writes: 1, err: secretmanager.ErrExists},
		"changed to another scope":  {act: once(func(w *world) { patch(w, add("/metadata/annotations/secretmanager.io~1scope", "cluster")) }), writes: 1, err: secretmanager.ErrExists},
		"each time": {act: func(w *world, n int) { patch(w, add("/data/a", theirs(w, "a"))) },
			writes: 5, err: secretmanager.ErrConflict},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if !test.absent {
				w.store(w.seal(w.spec("s", map[string]string{"a": "1", "b": "2"})))
			}
			writes := 0
			kube := w.client(func(n int) { test.act(w, n); writes++ })
			_, outcome, err := secretmanager.New(w.root, kube).
				Apply(t.Context(), w.spec("s", map[string]string{"a": "ours"}), secretmanager.Options{})
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
			if diff := cmp.Diff(test.want, w.read("s")); diff != "" {
				t.Errorf("plaintext (-want +got):\n%s", diff)
			}
		})
	}
}

func TestApplyConcurrently(t *testing.T) {
	w := newWorld(t)
	const writers = 4 // each loses at most to the others, so five tries are enough
	var group sync.WaitGroup
	for n := range writers {
		group.Go(func() {
			if _, _, err := w.lib.Apply(t.Context(),
				w.spec("s", map[string]string{fmt.Sprint("e", n): "x", "shared": fmt.Sprint(n)}),
				secretmanager.Options{}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := w.read("s"); len(got) != writers+1 {
		t.Errorf("entries: %v", got)
	}
}

// TestApplyVerifiesWhatIsStored has somebody in between change the Secret as it
// is stored, as an admission webhook can.
func TestApplyVerifiesWhatIsStored(t *testing.T) {
	w := newWorld(t)
	s := w.seal(w.spec("s", map[string]string{"other": "1", "a": "1"}))
	s.Data["other"] = s.Data["a"]
	w.store(s)
	stored, outcome, err := w.lib.Apply(t.Context(), w.spec("s", map[string]string{"a": "2"}), secretmanager.Options{})
	if !errors.Is(err, secretmanager.ErrNotVerified) || outcome != secretmanager.Updated || stored == nil {
		t.Errorf("%s, %v", outcome, err)
	}
	says(t, err, "the Secret was updated, but", `entry "other"`)
}

func TestApplyErrors(t *testing.T) {
	w := newWorld(t)
	spec := w.spec("s", map[string]string{"a": "1"})
	spec.Settings.Scope, spec.Namespace = ciphertext.Cluster, ""
	_, _, err := w.lib.Apply(t.Context(), spec, secretmanager.Options{})
	if !errors.Is(err, secretmanager.ErrInvalid) {
		t.Errorf("no namespace: %v", err)
	}
	spec.Namespace = "nowhere"
	_, _, err = w.lib.Apply(t.Context(), spec, secretmanager.Options{})
	says(t, err, `namespaces "nowhere" not found`, "check that the namespace exists")
	if !apierrors.IsNotFound(err) {
		t.Errorf("no such namespace: %v", err)
	}
}

func TestRead(t *testing.T) {
	w := newWorld(t)
	s := w.seal(w.spec("s", map[string]string{"a": "1", "b": "2", "moved": "3"}))
	s.Data["moved"], s.Data["plain"] = s.Data["a"], []byte("hunter2")
	w.store(s)
	w.store(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "other"},
		Data: map[string][]byte{"a": []byte("hunter2")}})
	if diff := cmp.Diff(map[string]string{"a": "1", "b": "2"}, w.read("s", "a", "b")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	tests := map[string]struct {
		session func() *transit.Session
		name    string
		entries []string
		want    []string
	}{
		"all, with one that is plaintext": {name: "s", want: []string{`entry "plain": is not ciphertext`}},
		"one that is not there": {name: "s", entries: []string{"a", "x", "y"},
			want: []string{`entry "x" does not exist`, `entry "y" does not exist`, `["a" "b" "moved" "plain"]`}},
		"a moved one": {name: "s", entries: []string{"a", "moved"},
			want: []string{`entry "moved"`, "may have been copied"}},
		"not a ciphertext Secret": {name: "other",
			want: []string{"label secretmanager.io/transit-key is missing", `entry "a": is not ciphertext`}},
		"no such Secret": {name: "nothing", want: []string{"not found: check both names"}},
		"no right": {name: "s", entries: []string{"a"}, session: func() *transit.Session { return w.as(author) },
			want: []string{"check that the policy has update on transit/decrypt/"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			lib := w.lib
			if test.session != nil {
				lib = secretmanager.New(test.session(), w.kube)
			}
			data, err := lib.Read(t.Context(), w.ns, test.name, test.entries...)
			if data != nil {
				t.Error("an error, and data")
			}
			says(t, err, append(test.want, "reading Secret "+w.ns+"/"+test.name)...)
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the error repeats plaintext")
			}
		})
	}
}

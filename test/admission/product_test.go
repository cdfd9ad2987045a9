package admission

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	shared "github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// TestProductWrites: both policies admit what the library and the rotator write, also on a Secret that
// was invalid before. The command line has its own script.
func TestProductWrites(t *testing.T) {
	w := newFixture(t)
	f := shared.NewTransit(t)
	session := f.Root
	client := secretmanager.New(session, w.kube)
	spec := secretmanager.Spec{Namespace: w.ns, Name: "sealed",
		Settings: ciphertext.Settings{Key: ciphertext.Key{Name: f.Key}},
		Entries:  map[string][]byte{"a": []byte("1"), "empty": {}}, AllowEmpty: true}

	// Before: plaintext, with kubectl's copy of it, and a ciphertext Secret with an
	// entry that is none.
	w.must(w.create(plain("plain", applied(`"stringData":{"good":"`+value+`"},`))))
	half := spec
	half.Name = "half"
	_, _, err := client.Apply(t.Context(), half, secretmanager.Options{})
	w.must(err)
	w.must(w.change("half", entry("password", value)))

	w.enforce(Ciphertext)
	w.enforce(ForbidPlaintext)

	stored, outcome, err := client.Apply(t.Context(), spec, secretmanager.Options{})
	if err != nil || outcome != secretmanager.Created {
		t.Fatalf("create: %v %v", outcome, err)
	}
	spec.Entries = map[string][]byte{"b": []byte("2")}
	if _, outcome, err = client.Apply(t.Context(), spec, secretmanager.Options{}); err != nil ||
		outcome != secretmanager.Updated {
		t.Fatalf("merge: %v %v", outcome, err)
	}
	stored, err = w.kube.CoreV1().Secrets(w.ns).Get(t.Context(), stored.Name, metav1.GetOptions{})
	w.must(err)
	change := secretmanager.Spec{Entries: map[string][]byte{"a": []byte("changed")}, Remove: []string{"empty"}}
	if _, err := client.Update(t.Context(), stored, change, secretmanager.Options{}); err != nil {
		t.Errorf("update: %v", err)
	}
	if _, err := client.Convert(t.Context(), w.ns, "plain", ciphertext.Settings{Key: ciphertext.Key{Name: f.Key}},
		secretmanager.Options{}); err != nil {
		t.Errorf("convert: %v", err)
	}

	report, err := rotator.Run(t.Context(), session, w.kube,
		rotator.Options{Keys: []string{f.Key}, Rotate: rotator.Always, Settle: -1, StateNamespace: w.ns})
	if report == nil || len(report.Keys) != 1 {
		t.Fatalf("rotate: %v", err)
	}
	for _, p := range report.Keys[0].Unresolved.Items {
		if p.Name != "half" || p.Entry != "password" {
			t.Errorf("unresolved: %v", p)
		}
	}
	for name, entries := range map[string]string{"sealed": "a b", "plain": "good", "half": "a empty"} {
		s, err := w.kube.CoreV1().Secrets(w.ns).Get(t.Context(), name, metav1.GetOptions{})
		w.must(err)
		for _, e := range strings.Fields(entries) {
			if v, err := ciphertext.Version(s.Data[e]); v != 2 {
				t.Errorf("%s/%s is of version %d: %v", name, e, v, err)
			}
		}
	}
}

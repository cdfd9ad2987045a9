package rotator_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// TestRetireMissing retires nothing when this cluster has no entries of the key, or when most of
// them are gone, until the operator acknowledges it.
func TestRetireMissing(t *testing.T) {
	f := newFixture(t)
	run := func(acknowledge ...string) *rotator.RetireReport {
		t.Helper()
		report, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(retiring(0), func(o *rotator.Options) {
			o.Acknowledge = acknowledge
		}))
		if err != nil {
			t.Fatal(err)
		}
		return onlyKey(t, report).Retire
	}
	f.RotateKey()
	if r := run(); r.Done || r.Blocked != rotator.BlockerMissing {
		t.Errorf("no entries: %+v", r)
	}
	for i := range 10 {
		f.CreateSecret(f.encrypt(f.Namespace, fmt.Sprintf("s%d", i), map[string]string{"e": "x"}))
	}
	if r := run(); !r.Done {
		t.Errorf("ten entries: %+v", r)
	}
	remove := func(from, to int) {
		for i := from; i < to; i++ {
			f.Must(f.Kube.CoreV1().Secrets(f.Namespace).Delete(t.Context(), fmt.Sprintf("s%d", i), metav1.DeleteOptions{}))
		}
		f.RotateKey()
	}
	remove(0, 5)
	if r := run(); !r.Done {
		t.Errorf("half of the entries: %+v", r)
	}
	remove(5, 8)
	if r := run(); r.Done || r.Blocked != rotator.BlockerMissing ||
		!strings.Contains(r.Reason, "only 2 entries decrypt, and 5 did") {
		t.Errorf("two of five entries: %+v", r)
	}
	if r := run(fmt.Sprintf("transit/%s@%d", f.Key, f.KeyInfo().Latest)); !r.Done {
		t.Errorf("acknowledged: %+v", r)
	}
}

// TestOlderReleases has old ciphertext in a revision of a Helm release that nobody rolls back to. It is reported,
// and prevents nothing. In the deployed revision, it does.
func TestOlderReleases(t *testing.T) {
	for deployed, done := range map[int]bool{1: false, 3: true} {
		f := newFixture(t)
		old := f.encrypt(f.Namespace, "s", map[string]string{"e": "x"})
		f.RotateKey()
		f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
		for revision := range deployed {
			manifest := "kind: ConfigMap"
			if revision == 0 {
				manifest = fmt.Sprintf("kind: Secret\nmetadata: {name: s}\nstringData: {e: %q}\n", old.Data["e"])
			}
			f.CreateSecret(helmSecret(f.Namespace, revision+1, revision+1 == deployed, manifest))
		}
		report, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(retiring(0)))
		if err != nil {
			t.Fatal(err)
		}
		if k := onlyKey(t, report); k.Retire.Done != done || (report.OlderReleases.Count == 1) != done {
			t.Errorf("deployed revision %d: %+v, older releases %+v", deployed, k.Retire, report.OlderReleases)
		}
	}
}

// helmSecret returns a Secret in which Helm stores a revision.
func helmSecret(namespace string, revision int, deployed bool, manifest string) *corev1.Secret {
	status := map[bool]string{true: "deployed", false: "superseded"}[deployed]
	release, _ := json.Marshal(map[string]any{"name": "r", "namespace": namespace, "version": revision,
		"info": map[string]any{"status": status}, "manifest": manifest})
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(release)
	_ = w.Close()
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("sh.helm.release.v1.r.v%d", revision),
			Labels: map[string]string{"owner": "helm", "name": "r", "status": status, "version": fmt.Sprint(revision)}},
		Type: "helm.sh/release.v1",
		Data: map[string][]byte{"release": []byte(base64.StdEncoding.EncodeToString(b.Bytes()))},
	}
}

// TestSearchContinues has a namespace with more garbage than a run tries, while the key is rotated
// every night. The search continues in the next runs, and then the version is retired. A key that
// may not be used in that namespace does not wait.
func TestSearchContinues(t *testing.T) {
	f := newFixture(t)
	other := f.Namespace + "-other"
	f.CreateNamespace(other)
	second := f.CreateKey(f.Key+"-second", true)
	garbage := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "garbage"},
		Data:       map[string][]byte{},
	}
	for i := range 40 {
		garbage.Data[fmt.Sprint("e", i)] = fmt.Appendf(
			nil,
			"vault:v1:%s",
			strings.Repeat(string(rune('A'+i%26)), 40+4*(i/26)),
		)
	}
	f.CreateSecret(garbage)
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	f.CreateSecret(
		f.encrypt(other, "s", map[string]string{"e": "x"}, func(s *secretmanager.Spec) { s.Settings.Key = second }),
	)
	for night := 1; ; night++ {
		report, err := rotator.RunInside(t.Context(), f.Root, f.Kube, f.options(retiring(0), func(o *rotator.Options) {
			o.Rotate, o.Keys = rotator.Always, []string{f.Key, second.Name + "=" + other}
		}), rotator.Inside{SearchBudget: 50})
		if err != nil || len(report.Keys) != 2 {
			t.Fatalf("%v, %+v", err, report)
		}
		first, bound := report.Keys[0].Retire, report.Keys[1].Retire
		if !bound.Done || bound.To != night+1 {
			t.Errorf("night %d: the key of another namespace: %+v", night, bound)
		}
		if first.Done {
			if night < 2 || first.To != 2 {
				t.Errorf("night %d: %+v", night, first)
			}
			return
		}
		if first.Blocked != rotator.BlockerSearch || !strings.Contains(first.Reason, f.Namespace) || night > 9 {
			t.Fatalf("night %d: %+v", night, first)
		}
	}
}

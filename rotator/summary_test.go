package rotator_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/rotator"
)

// TestSummaryOfRuns: what real runs write is read back, and when the last one had
// everything at its target is kept over those that did not.
func TestSummaryOfRuns(t *testing.T) {
	w := newWorld(t)
	w.store(w.seal(w.ns, "s", map[string]string{"a": "x", "b": "y"}))
	w.rotateKey()
	summary := func() *rotator.Summary {
		t.Helper()
		m, err := w.kube.CoreV1().ConfigMaps(w.ns).Get(t.Context(), rotator.StateName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := rotator.ReadSummary(m)
		if err != nil || len(s.Keys) != 1 {
			t.Fatalf("%v, %+v", err, s)
		}
		return s
	}
	if _, err := rotator.Run(t.Context(), w.retirer(), w.kube, w.options(retiring(week))); err != nil {
		t.Fatal(err)
	}
	first := summary()
	k := first.Keys[0]
	if first.Result != rotator.ResultDone || !first.LastDone.Equal(first.Finished) ||
		first.Finished.Before(first.Started) || time.Since(first.Finished) > time.Minute {
		t.Errorf("after a run that did all: %+v", first)
	}
	if k.Name != w.key || k.Target != 2 || !k.Verified() || k.Oldest != 2 || k.Versions[2] != 2 || k.Opens() != 1 ||
		time.Since(k.CleanSince) > time.Minute || !k.RetiredSince.IsZero() {
		t.Errorf("its key: %+v", k)
	}

	yes := true
	s := w.seal(w.ns, "fixed", map[string]string{"e": "x"})
	s.Immutable = &yes
	w.store(s)
	w.rotateKey()
	if _, err := rotator.Run(t.Context(), w.minimal(), w.kube, w.options()); !errors.Is(err, rotator.ErrIncomplete) {
		t.Fatal(err)
	}
	if got := summary(); got.Result != rotator.ResultLeft || !got.LastDone.Equal(first.Finished) ||
		got.Finished.Equal(first.Finished) || got.Keys[0].Failed != 1 {
		t.Errorf("after one that left something: %+v", got)
	}

	if err := w.kube.CoreV1().Secrets(w.ns).Delete(t.Context(), "fixed", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := rotator.Run(t.Context(), w.retirer(), w.kube, w.options(retiring(0))); err != nil {
		t.Fatal(err)
	}
	if k := summary().Keys[0]; k.MinDecryption != 1 || k.Opens() != 3 || k.RetiredSince.IsZero() ||
		!k.CleanSince.IsZero() {
		t.Errorf("after a retirement: %+v", k)
	}
}

func TestReadSummary(t *testing.T) {
	const run = `{"started":"2026-01-09T03:00:00Z","finished":"2026-01-09T03:01:00Z","result":"left","lastDone":"2026-01-08T03:01:00Z","leftCount":2}`
	key := func(name, finished string) string {
		return fmt.Sprintf(`{"mount":"transit","name":%q,"target":4,"minDecryption":2,"versions":{"4":1},"finished":%q,
			"noneBelowSince":{"3":"2026-01-02T00:00:00Z","4":"2026-01-03T00:00:00Z"},"refusedBelowSince":{"2":"2026-01-01T00:00:00Z"}}`, name, finished)
	}
	at := func(text string) time.Time {
		moment, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return moment
	}
	s, err := rotator.ReadSummary(&corev1.ConfigMap{Data: map[string]string{
		"run": run, "notes": "mine", "transit__broken": "{", "transit__other": key("app", "2026-01-09T03:01:00Z"),
		"transit__b": key("b", "2026-01-09T03:01:00Z"), "transit__a": key("a", "2026-01-02T03:01:00Z"),
		"transit__unused": key("unused", "2026-01-01T03:00:59Z"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, k := range s.Keys {
		names = append(names, k.Name)
	}
	if got := strings.Join(names, " "); got != "a b" {
		t.Errorf("keys: %s", got)
	}
	if s.Result != rotator.ResultLeft || s.Unassigned != 2 || !s.LastDone.Equal(at("2026-01-08T03:01:00Z")) ||
		s.Finished.Sub(s.Started) != time.Minute {
		t.Errorf("run: %+v", s)
	}
	if k := s.Keys[0]; !k.CleanSince.Equal(at("2026-01-02T00:00:00Z")) ||
		!k.RetiredSince.Equal(at("2026-01-01T00:00:00Z")) {
		t.Errorf("key: %+v", k)
	}

	// As written by a version that noted neither.
	s, err = rotator.ReadSummary(
		&corev1.ConfigMap{
			Data: map[string]string{"run": `{"started":"2026-01-09T03:00:00Z","finished":"2026-01-09T03:01:00Z","keys":null,"leftCount":0}`}})
	if err != nil || s.Result != "" || !s.LastDone.IsZero() || s.Finished.IsZero() {
		t.Errorf("an older one: %v, %+v", err, s)
	}
	if s, err := rotator.ReadSummary(&corev1.ConfigMap{}); err != nil || !s.Finished.IsZero() || len(s.Keys) > 0 {
		t.Errorf("no run yet: %v, %+v", err, s)
	}
	if _, err := rotator.ReadSummary(&corev1.ConfigMap{Data: map[string]string{"run": "["}}); err == nil ||
		!strings.Contains(err.Error(), "the next run writes it anew") {
		t.Errorf("nonsense about the run: %v", err)
	}
}

package rotator_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/rotator"
)

// TestSummaryOfRuns reads the summaries of real runs. LastDone is kept over runs with
// another result.
func TestSummaryOfRuns(t *testing.T) {
	f := newFixture(t)
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"a": "x", "b": "y"}))
	f.RotateKey()
	if _, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(retiring(week))); err != nil {
		t.Fatal(err)
	}
	first := f.summary()
	k := first.Keys[0]
	if first.Result != rotator.ResultDone || !first.LastDone.Equal(first.Finished) ||
		first.Finished.Before(first.Started) || time.Since(first.Finished) > time.Minute {
		t.Errorf("after a complete run: %+v", first)
	}
	if k.Name != f.Key || k.Target != 2 || !k.Counted() || k.Oldest != 2 || k.Versions[2] != 2 ||
		k.OldestDecryptable() != 1 ||
		time.Since(k.CleanSince) > time.Minute {
		t.Errorf("key: %+v", k)
	}

	yes := true
	s := f.encrypt(f.Namespace, "fixed", map[string]string{"e": "x"})
	s.Immutable = &yes
	f.CreateSecret(s)
	f.RotateKey()
	if _, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options()); !errors.Is(err, rotator.ErrIncomplete) {
		t.Fatal(err)
	}
	if got := f.summary(); got.Result != rotator.ResultIncomplete || !got.LastDone.Equal(first.Finished) ||
		got.Finished.Equal(first.Finished) || got.Keys[0].Failed != 1 {
		t.Errorf("after an incomplete run: %+v", got)
	}

	if err := f.Kube.CoreV1().Secrets(f.Namespace).Delete(t.Context(), "fixed", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(retiring(0))); err != nil {
		t.Fatal(err)
	}
	if k := f.summary().Keys[0]; k.MinDecryption != 1 || k.OldestDecryptable() != 3 || !k.CleanSince.IsZero() {
		t.Errorf("after a retirement: %+v", k)
	}
}

func TestReadSummary(t *testing.T) {
	const run = `{"started":"2026-01-09T03:00:00Z","finished":"2026-01-09T03:01:00Z","result":"incomplete",
		"lastDone":"2026-01-08T03:01:00Z","unassigned":{"count":2}}`
	key := func(name, finished string) string {
		return fmt.Sprintf(
			`{"mount":"transit","name":%q,"target":4,"minDecryption":2,"versions":{"4":1},"finished":%q}`,
			name,
			finished,
		)
	}
	at := func(text string) time.Time {
		moment, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return moment
	}
	s, err := rotator.ReadSummary(&corev1.ConfigMap{Data: map[string]string{
		"run": run, "notes": "text", "transit__broken": "{", "transit__broken_report": "{",
		"transit__other_report": key("app", "2026-01-09T03:01:00Z"),
		"transit__b_report":     key("b", "2026-01-09T03:01:00Z"), "transit__a_report": key("a", "2026-01-02T03:01:00Z"),
		"transit__a": "c=2@" + strconv.FormatInt(
			at("2026-01-01T00:00:00Z").Unix(),
			36,
		) + ",4@" + strconv.FormatInt(
			at("2026-01-02T00:00:00Z").Unix(),
			36,
		),
		"transit__unused_report": key("unused", "2026-01-01T03:00:59Z"),
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
	if s.Result != rotator.ResultIncomplete || s.Unassigned != 2 || !s.LastDone.Equal(at("2026-01-08T03:01:00Z")) ||
		s.Finished.Sub(s.Started) != time.Minute {
		t.Errorf("run: %+v", s)
	}
	if k := s.Keys[0]; !k.CleanSince.Equal(at("2026-01-02T00:00:00Z")) {
		t.Errorf("key: %+v", k)
	}

	// An older version wrote neither result nor lastDone.
	s, err = rotator.ReadSummary(
		&corev1.ConfigMap{
			Data: map[string]string{"run": `{"started":"2026-01-09T03:00:00Z","finished":"2026-01-09T03:01:00Z","keys":null}`}})
	if err != nil || s.Result != "" || !s.LastDone.IsZero() || s.Finished.IsZero() {
		t.Errorf("older version: %v, %+v", err, s)
	}
	if s, err := rotator.ReadSummary(&corev1.ConfigMap{}); err != nil || !s.Finished.IsZero() || len(s.Keys) > 0 {
		t.Errorf("no run yet: %v, %+v", err, s)
	}
	if _, err := rotator.ReadSummary(&corev1.ConfigMap{Data: map[string]string{"run": "["}}); err == nil ||
		!strings.Contains(err.Error(), "the next run writes it again") {
		t.Errorf("invalid JSON of the run: %v", err)
	}
}

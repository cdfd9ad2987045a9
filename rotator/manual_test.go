package rotator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

func manual(o *rotator.Options) { o.Scheduled = false }

// record returns what alerts read: the state without evidence, and without the last manual run.
func (f *testFixture) record() map[string]string {
	f.T.Helper()
	record := map[string]string{}
	for _, name := range rotator.StateNames() {
		m, err := f.Kube.CoreV1().ConfigMaps(f.Namespace).Get(f.T.Context(), name, metav1.GetOptions{})
		f.Must(err)
		for entry, text := range m.Data {
			if entry == "run" || entry == "search" || strings.HasSuffix(entry, "_report") {
				record[name+"/"+entry] = text
			}
		}
	}
	return record
}

// TestManualRunsKeepRecord makes runs that are limited, interrupted, incomplete, or for a key that does not exist,
// after a scheduled one. What alerts read stays as it was, and the state has the last manual run.
func TestManualRunsKeepRecord(t *testing.T) {
	f := newFixture(t)
	empty := f.Namespace + "-empty"
	f.CreateNamespace(empty)
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	fixed := f.encrypt(f.Namespace, "fixed", map[string]string{"e": "x"})
	yes := true
	fixed.Immutable = &yes
	f.CreateSecret(fixed)
	f.RotateKey()
	if _, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options()); err == nil {
		t.Fatal("the scheduled run has an unresolved entry, and returned no error")
	}
	before := f.record()
	if len(before) != 2 {
		t.Fatalf("the record: %v", before)
	}
	for name, test := range map[string]struct {
		change func(*rotator.Options)
		want   rotator.ManualRun // without times
		text   string            // in Error
	}{
		"unknown key": {func(o *rotator.Options) { o.Keys = []string{"nosuch"} },
			rotator.ManualRun{Result: rotator.ResultFailed, Scope: "--transit-key nosuch -A"}, "transit/nosuch: KeyNotFound: "},
		"empty namespace": {func(o *rotator.Options) { o.Namespaces = []string{empty} },
			rotator.ManualRun{Result: rotator.ResultDone, Scope: "--transit-key " + f.Key + " -n " + empty}, ""},
		"selector": {func(o *rotator.Options) { o.Selector = "app=none" },
			rotator.ManualRun{Result: rotator.ResultDone, Scope: "--transit-key " + f.Key + " -A -l app=none"}, ""},
		"incomplete": {func(*rotator.Options) {},
			rotator.ManualRun{Result: rotator.ResultIncomplete, Scope: "--transit-key " + f.Key + " -A", Unresolved: 1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, _ = rotator.Run(t.Context(), f.minimal(), f.Kube, f.options(manual, test.change))
			if diff := cmp.Diff(before, f.record()); diff != "" {
				t.Errorf("the record (-before +after):\n%s", diff)
			}
			got := f.summary().Manual
			if got == nil || time.Since(got.Finished) > time.Minute || got.Finished.Before(got.Started) {
				t.Fatalf("the manual run: %+v", got)
			}
			if (test.text == "") != (got.Error == "") || !strings.Contains(got.Error, test.text) {
				t.Errorf("error %q, want %q", got.Error, test.text)
			}
			if len(got.Problems) != test.want.Unresolved {
				t.Errorf("problems %v, want %d", got.Problems, test.want.Unresolved)
			}
			test.want.Started, test.want.Finished = got.Started, got.Finished
			test.want.Error, test.want.Problems = got.Error, got.Problems
			if diff := cmp.Diff(test.want, *got); diff != "" {
				t.Errorf("the manual run (-want +got):\n%s", diff)
			}
		})
	}
	if f.stateOf().Data["transit__nosuch"] != "" {
		t.Error("the state has a key that does not exist")
	}
}

// TestManualRunInterrupted interrupts a run as it writes its first Secret, as Ctrl-C does. The evidence is saved.
func TestManualRunInterrupted(t *testing.T) {
	f := newFixture(t)
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	if _, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options()); err != nil {
		t.Fatal(err)
	}
	before := f.record()
	f.RotateKey()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	kube := f.Client(func(next http.RoundTripper) http.RoundTripper {
		return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPatch {
				interrupt()
			}
			return next.RoundTrip(r)
		})
	})
	if _, err := rotator.Run(ctx, f.minimal(), kube, f.options(manual)); err == nil {
		t.Error("no error")
	}
	if diff := cmp.Diff(before, f.record()); diff != "" {
		t.Errorf("the record (-before +after):\n%s", diff)
	}
	if m := f.summary().Manual; m == nil || m.Result != rotator.ResultStopped {
		t.Errorf("the manual run: %+v", m)
	}
	if l := f.lease(); l.Spec.HolderIdentity != nil {
		t.Errorf("the Lease is held: %+v", l.Spec)
	}
}

// TestManualRunSavesEvidence lets a manual run rewrap ciphertext that came back. The next scheduled run does not retire
// its version before the waiting time, which begins again.
func TestManualRunSavesEvidence(t *testing.T) {
	f := newFixture(t)
	old := f.encrypt(f.Namespace, "back", map[string]string{"e": "x"})
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	f.RotateKey()
	run := func(after time.Duration, change ...func(*rotator.Options)) *rotator.RetireReport {
		t.Helper()
		now := time.Now().Add(after)
		clock := func() time.Time { return now }
		report, err := rotator.RunInside(t.Context(), f.retirer(), f.Kube, f.options(change...),
			rotator.Inside{VaultClock: clock, KubeClock: clock})
		if err != nil {
			t.Fatal(err)
		}
		return onlyKey(t, report).Retire
	}
	run(0, retiring(week))
	f.CreateSecret(old)
	run(week-time.Hour, manual)
	if r := run(week+time.Hour, retiring(week)); r.Done {
		t.Errorf("retired two hours after a manual run rewrapped ciphertext of that version: %+v", r)
	}
	if r := run(3*week, retiring(week)); !r.Done {
		t.Errorf("never retired: %+v", r)
	}
}

// TestManualRunKeepsSearch makes manual runs while a search for old ciphertext is not finished. The next scheduled run
// continues it. Without scheduled runs, manual ones continue their own.
func TestManualRunKeepsSearch(t *testing.T) {
	f := newFixture(t)
	other := f.CreateKey(f.Key+"-other", true)
	garbage := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: "garbage"},
		Data: map[string][]byte{}}
	for i := range 40 {
		garbage.Data[fmt.Sprint("e", i)] = fmt.Appendf(nil, "vault:v1:%s",
			strings.Repeat(string(rune('A'+i%26)), 40+4*(i/26)))
	}
	f.CreateSecret(garbage)
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	f.RotateKey()
	run := func(change ...func(*rotator.Options)) *rotator.RetireReport {
		t.Helper()
		report, err := rotator.RunInside(t.Context(), f.Root, f.Kube, f.options(change...), rotator.Inside{SearchBudget: 50})
		if err != nil {
			t.Fatal(err)
		}
		return onlyKey(t, report).Retire
	}
	if r := run(retiring(0)); r.Blocked != rotator.BlockerSearch {
		t.Fatalf("the search is finished: %+v", r)
	}
	saved := f.record()[rotator.StateName+"/search"]
	run(manual)
	run(manual, retiring(0), func(o *rotator.Options) { o.Keys = []string{other.Name} })
	if after := f.record()[rotator.StateName+"/search"]; saved == "" || after != saved {
		t.Errorf("the search was %s, and is %s", saved, after)
	}
	for n := 1; ; n++ {
		if run(manual, retiring(0)).Done {
			break
		}
		if n > 9 {
			t.Fatal("manual runs do not continue the search")
		}
	}
	if after := f.record()[rotator.StateName+"/search"]; after != "" {
		t.Errorf("a finished search remains: %s", after)
	}
}

// TestUnknownKeyForgotten corrects the name of a key in the options of the schedule. The next run forgets the wrong
// one.
func TestUnknownKeyForgotten(t *testing.T) {
	f := newFixture(t)
	wrong := func(o *rotator.Options) { o.Keys = []string{"nosuch"} }
	if _, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options(wrong)); err == nil {
		t.Fatal("no error")
	}
	if keys := f.summary().Keys; len(keys) != 1 || keys[0].Error == "" {
		t.Fatalf("the record of a scheduled run: %+v", keys)
	}
	if _, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options()); err != nil {
		t.Fatal(err)
	}
	if keys := f.summary().Keys; len(keys) != 1 || keys[0].Name != f.Key || keys[0].Error != "" {
		t.Errorf("after the correction: %+v", keys)
	}
}

// TestDryRunWithoutState asks what a run would do, without a state or the right to read it.
func TestDryRunWithoutState(t *testing.T) {
	f := newFixture(t)
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	f.RotateKey()
	forbidden := f.Client(func(next http.RoundTripper) http.RoundTripper {
		return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
			if strings.Contains(r.URL.Path, "/configmaps/") {
				return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
			}
			return next.RoundTrip(r)
		})
	})
	dry := func(o *rotator.Options) { o.DryRun = true }
	elsewhere := func(o *rotator.Options) { o.DryRun, o.StateNamespace = true, "nowhere" }
	for name, run := range map[string]func() (*rotator.Report, error){
		"forbidden": func() (*rotator.Report, error) {
			return rotator.Run(t.Context(), f.minimal(), forbidden, f.options(dry))
		},
		"not installed": func() (*rotator.Report, error) {
			return rotator.Run(t.Context(), f.minimal(), f.Kube, f.options(elsewhere))
		},
	} {
		t.Run(name, func(t *testing.T) {
			report, err := run()
			if err != nil {
				t.Fatal(err)
			}
			if k := onlyKey(t, report); k.Pending != 1 || k.Target != 2 {
				t.Errorf("the key: %+v", k)
			}
			if !strings.HasPrefix(report.StateUnread, "ConfigMap ") {
				t.Errorf("the report does not say that the state is missing: %q", report.StateUnread)
			}
		})
	}
	var stored struct{ Result rotator.Result }
	if err := json.Unmarshal([]byte(f.record()["secretmanager-rotation/run"]), &stored); err == nil {
		t.Errorf("a dry run left a record: %+v", stored)
	}
}

package rotator_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

const week = 7 * 24 * time.Hour

// retirer returns a session that may also retire.
func (f *testFixture) retirer() *transit.Session {
	f.T.Helper()
	return f.Session(f.Vault.Address, f.token(append(f.rotatorPaths(), "transit/keys/"+f.Key+"/config")...))
}

func retiring(after time.Duration) func(*rotator.Options) {
	return func(o *rotator.Options) { o.Retire, o.RetireAfter = true, after }
}

func at(later time.Duration) func(*rotator.Options) {
	return func(o *rotator.Options) { o.Now = func() time.Time { return time.Now().Add(later) } }
}

func TestRetire(t *testing.T) {
	f := newFixture(t)
	old := f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	f.RotateKey()
	run := func(change ...func(*rotator.Options)) *rotator.RetireReport {
		t.Helper()
		report, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(change...))
		if err != nil {
			t.Fatal(err)
		}
		return onlyKey(t, report).Retire
	}
	if r := run(); r != nil {
		t.Errorf("retired without Retire: %+v", r)
	}
	r := run(retiring(week), at(week-time.Hour))
	if r.Done || r.Blocked != "" || f.KeyInfo().MinDecryptionVersion != 1 ||
		!strings.Contains(r.Reason, "no entry below version 2 has been seen since") {
		t.Errorf("before RetireAfter: %+v", r)
	}
	r = run(retiring(week), at(week+time.Hour), func(o *rotator.Options) { o.DryRun = true })
	if r.Done || f.KeyInfo().MinDecryptionVersion != 1 || r.Reason != "would be raised from 1 to 2" {
		t.Errorf("dry run: %+v", r)
	}
	r = run(retiring(week), at(week+time.Hour))
	if !r.Done || r.From != 1 || r.To != 2 || f.KeyInfo().MinDecryptionVersion != 2 {
		t.Errorf("after RetireAfter: %+v", r)
	}
	if got := f.plain(f.Namespace, "s")["e"]; got != "x" {
		t.Errorf("the entry is %q", got)
	}
	results, err := f.Root.Decrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: f.Key},
		[]transit.Item{{Data: old.Data["e"], Context: ciphertext.Strict.Context(f.Namespace, "s", "e")}})
	if err != nil || !errors.Is(results[0].Err, transit.ErrTooOld) {
		t.Errorf("the old ciphertext still decrypts: %v, %v", err, results)
	}
	r = run(retiring(0))
	if r.Done || !strings.Contains(r.Reason, "retired already") {
		t.Errorf("again: %+v", r)
	}

	// If the old ciphertext is applied again, it is reported, and nothing is retired.
	s := f.GetSecret(f.Namespace, "s")
	s.Data["e"] = old.Data["e"]
	if _, err := f.Kube.CoreV1().Secrets(f.Namespace).Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	f.RotateKey()
	report, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(retiring(0)))
	k := onlyKey(t, report)
	if !errors.Is(err, rotator.ErrIncomplete) || k.Unresolved.Count != 1 ||
		!strings.Contains(k.Unresolved.Items[0].Reason, "comes from before the last retirement") {
		t.Errorf("%v, unresolved: %v", err, k.Unresolved.Items)
	}
	if k.Retire.Done || !strings.Contains(k.Retire.Reason, "1 entries are unresolved") {
		t.Errorf("retire: %+v", k.Retire)
	}
}

// Trimming sets min_encryption_version, which the next retirement raises.
func TestRetireAfterTrim(t *testing.T) {
	f := newFixture(t)
	f.RotateKey()
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	f.Write("transit/keys/"+f.Key+"/config", map[string]any{"min_decryption_version": 2, "min_encryption_version": 2})
	f.Write("transit/keys/"+f.Key+"/trim", map[string]any{"min_available_version": 2})
	f.RotateKey()
	report, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(retiring(0)))
	if err != nil || !onlyKey(t, report).Retire.Done || f.KeyInfo().MinDecryptionVersion != 3 ||
		f.KeyInfo().MinAvailableVersion != 2 {
		t.Errorf("%v, %+v, %+v", err, onlyKey(t, report).Retire, f.KeyInfo())
	}
}

// The versions of a key that is rotated every day are retired one by one, each after
// RetireAfter.
func TestRetireWithDailyRotation(t *testing.T) {
	f := newFixture(t)
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	const day = 24 * time.Hour
	want := []int{1, 1, 1, 2, 3, 4}
	for n, minDecryption := range want {
		report, err := rotator.Run(t.Context(), f.retirer(), f.Kube,
			f.options(retiring(3*day), at(time.Duration(n)*(day+time.Minute)), func(o *rotator.Options) {
				o.Rotate = rotator.Always
			}))
		if err != nil {
			t.Fatal(err)
		}
		if got := f.KeyInfo(); got.Latest != n+2 || got.MinDecryptionVersion != minDecryption {
			t.Errorf("day %d: newest %d, min_decryption_version %d, want %d and %d: %+v", n, got.Latest,
				got.MinDecryptionVersion, n+2, minDecryption, onlyKey(t, report).Retire)
		}
	}
}

// The wait for retirement restarts after a run has seen an old entry, even if the run
// listed only one namespace and the entry was deleted soon.
func TestRetireWaitRestarts(t *testing.T) {
	f := newFixture(t)
	old := f.encrypt(f.Namespace, "restored", map[string]string{"e": "x"})
	f.RotateKey()
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	run := func(later time.Duration, change ...func(*rotator.Options)) *rotator.KeyReport {
		t.Helper()
		report, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(append(change, retiring(week), at(later))...))
		if err != nil {
			t.Fatal(err)
		}
		return onlyKey(t, report)
	}
	run(0)
	f.CreateSecret(old)
	dry, err := rotator.Run(t.Context(), f.retirer(), f.Kube,
		f.options(retiring(week), at(week+time.Hour), func(o *rotator.Options) { o.DryRun = true }))
	if err != nil || !strings.Contains(onlyKey(t, dry).Retire.Reason, "1 entries are still below version 2") {
		t.Errorf("dry run: %v, %+v", err, onlyKey(t, dry).Retire)
	}
	broken := func(o *rotator.Options) { o.Namespaces = []string{f.Namespace}; o.Retire = false }
	yes := true
	s := f.GetSecret(f.Namespace, "restored")
	s.Immutable = &yes
	if s, err = f.Kube.CoreV1().Secrets(f.Namespace).Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(at(week+time.Hour), broken)); !errors.Is(err,
		rotator.ErrIncomplete) {
		t.Fatal(err)
	}
	if err := f.Kube.CoreV1().Secrets(f.Namespace).Delete(t.Context(), s.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if k := run(week + 2*time.Hour); k.Retire.Done {
		t.Errorf("retired an hour after an old entry was seen: %+v", k.Retire)
	}
	if k := run(2*week + 3*time.Hour); !k.Retire.Done {
		t.Errorf("not retired a week later: %+v", k.Retire)
	}
}

func TestRetireBlocked(t *testing.T) {
	yes := true
	tests := map[string]struct {
		arrange func(f *testFixture, other string)
		change  func(o *rotator.Options, f *testFixture)
		want    string
		blocked rotator.Blocker
		broken  bool // the run is incomplete
	}{
		"an entry is immutable": {
			arrange: func(f *testFixture, other string) {
				s := f.encrypt(f.Namespace, "fixed", map[string]string{"e": "x"})
				s.Immutable = &yes
				f.CreateSecret(s)
			},
			want: "1 entries are unresolved", blocked: rotator.BlockerUnresolved, broken: true,
		},
		"an old entry is in another namespace": {
			arrange: func(f *testFixture, other string) {
				f.CreateSecret(f.encrypt(other, "old", map[string]string{"e": "x"}))
			},
			change: func(o *rotator.Options, f *testFixture) { o.Namespaces = []string{f.Namespace} },
			want: "1 entries are unresolved and could never be decrypted again, for example NS-other/old/e: " +
				"SecretModified: has key version 1 " +
				"instead of 2", blocked: rotator.BlockerUnresolved,
		},
		"the selector excludes an old entry": {
			arrange: func(f *testFixture, other string) {
				f.CreateSecret(f.encrypt(f.Namespace, "old", map[string]string{"e": "x"}))
			},
			change: func(o *rotator.Options, f *testFixture) { o.Selector = "team=red" },
			want:   "1 entries are unresolved", blocked: rotator.BlockerUnresolved,
		},
		"a Secret has an invalid mount": {
			arrange: func(f *testFixture, other string) {
				s := f.encrypt(f.Namespace, "odd", map[string]string{"e": "x"})
				s.Annotations[ciphertext.AnnotationTransitMount] = "/"
				f.CreateSecret(s)
			},
			want: "1 Secrets do not name their key", blocked: rotator.BlockerUnassigned, broken: true,
		},
		"a ciphertext Secret lost its label": {
			arrange: func(f *testFixture, other string) {
				s := f.encrypt(f.Namespace, "lost", map[string]string{"e": "x"})
				s.Labels = nil
				f.CreateSecret(s)
			},
			want:    "1 ciphertext Secrets do not name their key, for example NS/lost",
			blocked: rotator.BlockerUnassigned,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			other := f.Namespace + "-other"
			f.CreateNamespace(other)
			test.arrange(f, other)
			// It would prevent retirement in other tests.
			defer f.Kube.CoreV1().Secrets(f.Namespace).Delete(t.Context(), "lost", metav1.DeleteOptions{})
			f.RotateKey()
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
			opts := f.options(retiring(0))
			if test.change != nil {
				test.change(&opts, f)
			}
			report, err := rotator.Run(t.Context(), f.retirer(), f.Kube, opts)
			if errors.Is(err, rotator.ErrIncomplete) != test.broken || !test.broken && err != nil {
				t.Errorf("error: %v", err)
			}
			r := onlyKey(t, report).Retire
			if r.Done || r.Blocked != test.blocked ||
				!strings.Contains(r.Reason, strings.ReplaceAll(test.want, "NS", f.Namespace)) {
				t.Errorf("retire: %+v, want %q (%s)", r, test.want, test.blocked)
			}
			if got := f.KeyInfo().MinDecryptionVersion; got != 1 {
				t.Errorf("min_decryption_version is %d", got)
			}
		})
	}
}

func TestRetireWithNamespaces(t *testing.T) {
	f := newFixture(t)
	f.RotateKey()
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	report, err := rotator.Run(t.Context(), f.retirer(), f.Kube,
		f.options(retiring(0), func(o *rotator.Options) { o.Namespaces = []string{f.Namespace} }))
	if err != nil || !onlyKey(t, report).Retire.Done {
		t.Errorf("%v, %+v", err, onlyKey(t, report).Retire)
	}
}

// A run that lists part of the cluster does not start the wait for retirement.
func TestRetireAfterPartialRun(t *testing.T) {
	f := newFixture(t)
	f.RotateKey()
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	partial := func(o *rotator.Options) { o.Namespaces = []string{f.Namespace} }
	if _, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(partial)); err != nil {
		t.Fatal(err)
	}
	report, err := rotator.Run(t.Context(), f.retirer(), f.Kube, f.options(retiring(time.Hour), at(2*time.Hour)))
	if err != nil || onlyKey(t, report).Retire.Done {
		t.Errorf("%v, %+v", err, onlyKey(t, report).Retire)
	}
}

func TestRetireDenied(t *testing.T) {
	f := newFixture(t)
	f.RotateKey()
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	report, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options(retiring(0)))
	if !errors.Is(err, rotator.ErrIncomplete) || onlyKey(t, report).Retire.Blocked != rotator.BlockerError ||
		report.Result != rotator.ResultFailed || !strings.Contains(onlyKey(t, report).Retire.Reason,
		"retiring needs update on transit/keys/"+f.Key+"/config") {
		t.Errorf("%v, %+v", err, onlyKey(t, report).Retire)
	}
}

func TestSummary(t *testing.T) {
	f := newFixture(t)
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	f.RotateKey()
	if _, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options()); err != nil {
		t.Fatal(err)
	}
	m, err := f.Kube.CoreV1().ConfigMaps(f.Namespace).Get(t.Context(), rotator.StateName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Mount, Name       string
		Target, Rewrapped int
		Finished          time.Time
		Versions          map[int]int
		CleanSince        map[int]time.Time
	}
	if err := json.Unmarshal([]byte(m.Data["transit__"+f.Key]), &got); err != nil {
		t.Fatalf("%v in %v", err, m.Data)
	}
	if got.Mount != "transit" || got.Name != f.Key || got.Target != 2 || got.Rewrapped != 1 || got.Versions[2] != 1 ||
		got.CleanSince[2].IsZero() || time.Since(got.Finished) > time.Minute {
		t.Errorf("summary: %+v", got)
	}
	if !strings.Contains(m.Data["run"], `"finished"`) {
		t.Errorf("the run: %s", m.Data["run"])
	}
	// A run skips what it cannot parse, and keeps keys of others.
	m.Data["transit__"+f.Key], m.Data["notes"] = "{", "other"
	if _, err := f.Kube.CoreV1().ConfigMaps(f.Namespace).Update(t.Context(), m, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options()); err != nil {
		t.Fatal(err)
	}
	m, err = f.Kube.CoreV1().ConfigMaps(f.Namespace).Get(t.Context(), rotator.StateName, metav1.GetOptions{})
	if err != nil || m.Data["notes"] != "other" || json.Unmarshal([]byte(m.Data["transit__"+f.Key]), &got) != nil {
		t.Errorf("%v, %v", err, m.Data)
	}
}

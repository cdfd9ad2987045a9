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

// retirer is a session that may also retire.
func (w *world) retirer() *transit.Session {
	w.t.Helper()
	return w.session(w.vault.Address, w.token(append(w.rotatorPaths(), "transit/keys/"+w.key+"/config")...))
}

func retiring(after time.Duration) func(*rotator.Options) {
	return func(o *rotator.Options) { o.Retire, o.RetireAfter = true, after }
}

func at(later time.Duration) func(*rotator.Options) {
	return func(o *rotator.Options) { o.Now = func() time.Time { return time.Now().Add(later) } }
}

func TestRetire(t *testing.T) {
	w := newWorld(t)
	old := w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	w.rotateKey()
	run := func(change ...func(*rotator.Options)) *rotator.RetireReport {
		t.Helper()
		report, err := rotator.Run(t.Context(), w.retirer(), w.kube, w.options(change...))
		if err != nil {
			t.Fatal(err)
		}
		return only(t, report).Retire
	}
	if r := run(); r != nil {
		t.Errorf("retired without being asked to: %+v", r)
	}
	r := run(retiring(week), at(week-time.Hour))
	if r.Done || r.Blocked != "" || w.keyInfo().MinDecryptionVersion != 1 ||
		!strings.Contains(r.Reason, "no entry below version 2 has been seen since") {
		t.Errorf("before its time: %+v", r)
	}
	r = run(retiring(week), at(week+time.Hour), func(o *rotator.Options) { o.DryRun = true })
	if r.Done || w.keyInfo().MinDecryptionVersion != 1 || r.Reason != "would be raised from 1 to 2" {
		t.Errorf("dry run: %+v", r)
	}
	r = run(retiring(week), at(week+time.Hour))
	if !r.Done || r.From != 1 || r.To != 2 || w.keyInfo().MinDecryptionVersion != 2 {
		t.Errorf("when it is time: %+v", r)
	}
	if got := w.plain(w.ns, "s")["e"]; got != "x" {
		t.Errorf("the entry holds %q", got)
	}
	results, err := w.root.Decrypt(t.Context(), ciphertext.Key{Mount: "transit", Name: w.key},
		[]transit.Item{{Data: old.Data["e"], Context: ciphertext.Strict.Context(w.ns, "s", "e")}})
	if err != nil || !errors.Is(results[0].Err, transit.ErrTooOld) {
		t.Errorf("the old ciphertext still opens: %v, %v", err, results)
	}
	r = run(retiring(0))
	if r.Done || !strings.Contains(r.Reason, "retired already") {
		t.Errorf("again: %+v", r)
	}

	// The old ciphertext comes back, as from Git: it is named, and nothing is retired.
	s := w.get(w.ns, "s")
	s.Data["e"] = old.Data["e"]
	if _, err := w.kube.CoreV1().Secrets(w.ns).Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.rotateKey()
	report, err := rotator.Run(t.Context(), w.retirer(), w.kube, w.options(retiring(0)))
	k := only(t, report)
	if !errors.Is(err, rotator.ErrIncomplete) || k.LeftCount != 1 ||
		!strings.Contains(k.Left[0].Reason, "comes from before the last retirement") {
		t.Errorf("%v, left %v", err, k.Left)
	}
	if k.Retire.Done || !strings.Contains(k.Retire.Reason, "1 entries are left") {
		t.Errorf("retire: %+v", k.Retire)
	}
}

// A key that is rotated every day is retired all the same: version by version,
// each when its time has come.
func TestRetireWithDailyRotation(t *testing.T) {
	w := newWorld(t)
	w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	const day = 24 * time.Hour
	want := []int{1, 1, 1, 2, 3, 4}
	for n, min := range want {
		report, err := rotator.Run(t.Context(), w.retirer(), w.kube,
			w.options(retiring(3*day), at(time.Duration(n)*(day+time.Minute)), func(o *rotator.Options) {
				o.Rotate = rotator.Always
			}))
		if err != nil {
			t.Fatal(err)
		}
		if got := w.keyInfo(); got.Latest != n+2 || got.MinDecryptionVersion != min {
			t.Errorf("day %d: newest %d, oldest that opens %d, want %d and %d: %+v", n, got.Latest,
				got.MinDecryptionVersion, n+2, min, only(t, report).Retire)
		}
	}
}

func TestRetireClockStartsAgain(t *testing.T) {
	w := newWorld(t)
	old := w.seal(w.ns, "back", map[string]string{"e": "x"})
	w.rotateKey()
	w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	run := func(later time.Duration, change ...func(*rotator.Options)) *rotator.KeyReport {
		t.Helper()
		report, err := rotator.Run(t.Context(), w.retirer(), w.kube, w.options(append(change, retiring(week), at(later))...))
		if err != nil {
			t.Fatal(err)
		}
		return only(t, report)
	}
	run(0)
	// In a week's time an old entry is there, and gone again at once. A run that
	// only looks at its namespace is enough to see it.
	w.store(old)
	dry, err := rotator.Run(t.Context(), w.retirer(), w.kube,
		w.options(retiring(week), at(week+time.Hour), func(o *rotator.Options) { o.DryRun = true }))
	if err != nil || !strings.Contains(only(t, dry).Retire.Reason, "1 entries are still below version 2") {
		t.Errorf("dry run: %v, %+v", err, only(t, dry).Retire)
	}
	broken := func(o *rotator.Options) { o.Namespaces = []string{w.ns}; o.Retire = false }
	yes := true
	s := w.get(w.ns, "back")
	s.Immutable = &yes
	if s, err = w.kube.CoreV1().Secrets(w.ns).Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := rotator.Run(t.Context(), w.retirer(), w.kube, w.options(at(week+time.Hour), broken)); !errors.Is(err,
		rotator.ErrIncomplete) {
		t.Fatal(err)
	}
	if err := w.kube.CoreV1().Secrets(w.ns).Delete(t.Context(), s.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if k := run(week + 2*time.Hour); k.Retire.Done {
		t.Errorf("retired although an old entry was seen an hour ago: %+v", k.Retire)
	}
	if k := run(2*week + 3*time.Hour); !k.Retire.Done {
		t.Errorf("not retired a week later: %+v", k.Retire)
	}
}

func TestRetireIsRefused(t *testing.T) {
	yes := true
	tests := map[string]struct {
		arrange func(w *world, other string)
		change  func(o *rotator.Options, w *world)
		want    string
		blocked rotator.Obstacle
		broken  bool // the run itself is not complete
	}{
		"an entry is left": {
			arrange: func(w *world, other string) {
				s := w.seal(w.ns, "fixed", map[string]string{"e": "x"})
				s.Immutable = &yes
				w.store(s)
			},
			want: "1 entries are left", blocked: rotator.ObstacleLeft, broken: true,
		},
		"an old entry is in another namespace": {
			arrange: func(w *world, other string) { w.store(w.seal(other, "old", map[string]string{"e": "x"})) },
			change:  func(o *rotator.Options, w *world) { o.Namespaces = []string{w.ns} },
			want: "1 entries are left and would never open again, such as NS-other/old/e: has key version 1 " +
				"instead of 2", blocked: rotator.ObstacleLeft,
		},
		"the selector passes over an old entry": {
			arrange: func(w *world, other string) { w.store(w.seal(w.ns, "old", map[string]string{"e": "x"})) },
			change:  func(o *rotator.Options, w *world) { o.Selector = "team=red" },
			want:    "1 entries are left", blocked: rotator.ObstacleLeft,
		},
		"a Secret does not say its mount": {
			arrange: func(w *world, other string) {
				s := w.seal(w.ns, "odd", map[string]string{"e": "x"})
				s.Annotations[ciphertext.AnnotationTransitMount] = "/"
				w.store(s)
			},
			want: "1 Secrets do not say what key they belong to", blocked: rotator.ObstacleUnlabelled, broken: true,
		},
		"a ciphertext Secret lost its label": {
			arrange: func(w *world, other string) {
				s := w.seal(w.ns, "lost", map[string]string{"e": "x"})
				s.Labels = nil
				w.store(s)
			},
			want:    "1 ciphertext Secrets do not say what key they belong to, such as NS/lost",
			blocked: rotator.ObstacleUnlabelled,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			other := w.ns + "-other"
			w.namespace(other)
			test.arrange(w, other)
			// Or it would be in the way of other tests' retirement.
			defer w.kube.CoreV1().Secrets(w.ns).Delete(t.Context(), "lost", metav1.DeleteOptions{})
			w.rotateKey()
			w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
			opts := w.options(retiring(0))
			if test.change != nil {
				test.change(&opts, w)
			}
			report, err := rotator.Run(t.Context(), w.retirer(), w.kube, opts)
			if errors.Is(err, rotator.ErrIncomplete) != test.broken || !test.broken && err != nil {
				t.Errorf("error: %v", err)
			}
			r := only(t, report).Retire
			if r.Done || r.Blocked != test.blocked || !strings.Contains(r.Reason, strings.ReplaceAll(test.want, "NS", w.ns)) {
				t.Errorf("retire: %+v, want %q (%s)", r, test.want, test.blocked)
			}
			if got := w.keyInfo().MinDecryptionVersion; got != 1 {
				t.Errorf("min_decryption_version is %d", got)
			}
		})
	}
}

func TestRetireNarrowedAndNothingLeft(t *testing.T) {
	w := newWorld(t)
	w.rotateKey()
	w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	report, err := rotator.Run(t.Context(), w.retirer(), w.kube,
		w.options(retiring(0), func(o *rotator.Options) { o.Namespaces = []string{w.ns} }))
	if err != nil || !only(t, report).Retire.Done {
		t.Errorf("%v, %+v", err, only(t, report).Retire)
	}
}

// A run that looked at a part of the cluster does not start the clock.
func TestRetireAfterNarrowedRun(t *testing.T) {
	w := newWorld(t)
	w.rotateKey()
	w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	narrow := func(o *rotator.Options) { o.Namespaces = []string{w.ns} }
	if _, err := rotator.Run(t.Context(), w.retirer(), w.kube, w.options(narrow)); err != nil {
		t.Fatal(err)
	}
	report, err := rotator.Run(t.Context(), w.retirer(), w.kube, w.options(retiring(time.Hour), at(2*time.Hour)))
	if err != nil || only(t, report).Retire.Done {
		t.Errorf("%v, %+v", err, only(t, report).Retire)
	}
}

func TestRetireWithoutTheRight(t *testing.T) {
	w := newWorld(t)
	w.rotateKey()
	w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	report, err := rotator.Run(t.Context(), w.minimal(), w.kube, w.options(retiring(0)))
	if !errors.Is(err, rotator.ErrIncomplete) || only(t, report).Retire.Blocked != rotator.ObstacleError ||
		report.Result != rotator.ResultFailed || !strings.Contains(only(t, report).Retire.Reason,
		"retiring needs update on transit/keys/"+w.key+"/config") {
		t.Errorf("%v, %+v", err, only(t, report).Retire)
	}
}

func TestSummary(t *testing.T) {
	w := newWorld(t)
	w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	w.rotateKey()
	if _, err := rotator.Run(t.Context(), w.minimal(), w.kube, w.options()); err != nil {
		t.Fatal(err)
	}
	m, err := w.kube.CoreV1().ConfigMaps(w.ns).Get(t.Context(), rotator.StateName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Mount, Name       string
		Target, Rewrapped int
		Finished          time.Time
		Versions          map[int]int
		NoneBelowSince    map[int]time.Time
	}
	if err := json.Unmarshal([]byte(m.Data["transit__"+w.key]), &got); err != nil {
		t.Fatalf("%v in %v", err, m.Data)
	}
	if got.Mount != "transit" || got.Name != w.key || got.Target != 2 || got.Rewrapped != 1 || got.Versions[2] != 1 ||
		got.NoneBelowSince[2].IsZero() || time.Since(got.Finished) > time.Minute {
		t.Errorf("summary: %+v", got)
	}
	if !strings.Contains(m.Data["run"], `"finished"`) {
		t.Errorf("about the run: %s", m.Data["run"])
	}
	// Nonsense in it is passed over, and what belongs to others stays.
	m.Data["transit__"+w.key], m.Data["notes"] = "{", "mine"
	if _, err := w.kube.CoreV1().ConfigMaps(w.ns).Update(t.Context(), m, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := rotator.Run(t.Context(), w.minimal(), w.kube, w.options()); err != nil {
		t.Fatal(err)
	}
	m, err = w.kube.CoreV1().ConfigMaps(w.ns).Get(t.Context(), rotator.StateName, metav1.GetOptions{})
	if err != nil || m.Data["notes"] != "mine" || json.Unmarshal([]byte(m.Data["transit__"+w.key]), &got) != nil {
		t.Errorf("%v, %v", err, m.Data)
	}
}

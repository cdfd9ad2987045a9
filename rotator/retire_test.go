package rotator_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

const week = 7 * 24 * time.Hour

// retirer returns a session that may also retire.
func (f *testFixture) retirer() vaultClient {
	f.T.Helper()
	if f.memory != nil {
		return f.memory
	}
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

	// If the old ciphertext is applied again, it is reported. It does not decrypt any more, and
	// a key without an entry that decrypts is not retired.
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
	if k.Retire.Done || k.Retire.Blocked != rotator.BlockerMissing ||
		!strings.Contains(k.Retire.Reason, "has no entry that decrypts") {
		t.Errorf("retire: %+v", k.Retire)
	}
}

// Trimming sets min_encryption_version, which the next retirement raises.
func TestRetireAfterTrim(t *testing.T) {
	f := newServerFixture(t)
	f.RotateKey()
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	f.configure(func(k *transit.KeyInfo) { k.MinDecryptionVersion, k.MinEncryptionVersion = 2, 2 })
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
	if err != nil || !strings.Contains(onlyKey(t, dry).Retire.Reason, "ciphertext of version 1 that decrypts") {
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
	old := func(name string, change func(*corev1.Secret)) func(*testFixture) {
		return func(f *testFixture) {
			s := f.encrypt(f.Namespace, name, map[string]string{"e": "x"})
			change(s)
			f.CreateSecret(s)
			f.T.Cleanup(func() { // it would be found by other tests
				_ = f.Kube.CoreV1().Secrets(f.Namespace).Delete(context.Background(), name, metav1.DeleteOptions{})
			})
		}
	}
	immutable := old("fixed", func(s *corev1.Secret) { s.Immutable = new(true) })
	for name, c := range map[string]struct {
		arrange  func(f *testFixture)
		change   func(o *rotator.Options, f *testFixture)
		want     string // reason
		blocked  rotator.Blocker
		released int
		broken   bool // the run is incomplete
	}{
		"nothing": {},
		"an entry is immutable": {
			arrange: immutable, want: "1 texts of versions below 2 still decrypt, for example NS/fixed/e: CiphertextInUse: ",
			blocked: rotator.BlockerInUse, broken: true,
		},
		"an immutable entry is released": {
			arrange:  immutable,
			change:   func(o *rotator.Options, f *testFixture) { o.Release = []string{f.Namespace + "/fixed"} },
			released: 1, broken: true,
		},
		"another Secret is released": {
			arrange: immutable,
			change:  func(o *rotator.Options, f *testFixture) { o.Release = []string{f.Namespace + "/s"} },
			want:    "still decrypt", blocked: rotator.BlockerInUse, broken: true,
		},
		"the run is limited to a namespace": {
			change: func(o *rotator.Options, f *testFixture) { o.Namespaces = []string{f.Namespace} },
			want:   "the run excludes Secrets of the key", blocked: rotator.BlockerUnlisted,
		},
		"the run is limited to the namespace of the key": {
			change: func(o *rotator.Options, f *testFixture) {
				o.Keys, o.Namespaces = []string{f.Key + "=" + f.Namespace}, []string{f.Namespace}
			},
		},
		"the run has a selector": {
			change: func(o *rotator.Options, _ *testFixture) { o.Selector = "team=red" },
			want:   "the run excludes Secrets", blocked: rotator.BlockerUnlisted,
		},
		"a Secret has an invalid mount": {
			arrange: old("odd", func(s *corev1.Secret) { s.Annotations[ciphertext.AnnotationTransitMount] = "/" }),
			want:    "for example NS/odd/e", blocked: rotator.BlockerInUse, broken: true,
		},
		"a Secret has the label of another key": {
			arrange: old("strange", func(s *corev1.Secret) { s.Labels[ciphertext.LabelTransitKey] = "another" }),
			want:    "for example NS/strange/e: CiphertextInUse: has ciphertext of version 1 that decrypts, without the label",
			blocked: rotator.BlockerInUse,
		},
		"a ciphertext Secret lost its label": {
			arrange: old("lost", func(s *corev1.Secret) { s.Labels = nil }),
			want:    "for example NS/lost/e", blocked: rotator.BlockerInUse,
		},
		"a Secret outside of the namespaces of the key": {
			arrange: old("foreign", func(*corev1.Secret) {}),
			change:  func(o *rotator.Options, f *testFixture) { o.Keys = []string{f.Key + "=elsewhere"} },
			want:    "this cluster has no entry", blocked: rotator.BlockerMissing,
		},
		"text that does not decrypt": {
			arrange: old("garbage", func(s *corev1.Secret) {
				s.Data["e"] = []byte("vault:v1:" + strings.Repeat("A", 64))
				s.Annotations["note"] = "vault:v1:" + strings.Repeat("B", 64)
			}),
			broken: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			if c.arrange != nil {
				c.arrange(f)
			}
			f.RotateKey()
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
			opts := f.options(retiring(0))
			if c.change != nil {
				c.change(&opts, f)
			}
			report, err := rotator.Run(t.Context(), f.retirer(), f.Kube, opts)
			if errors.Is(err, rotator.ErrIncomplete) != c.broken || !c.broken && err != nil {
				t.Errorf("error: %v", err)
			}
			mine := func(p rotator.Problem) bool { return p.Namespace == f.Namespace && p.Name == "garbage" }
			if slices.ContainsFunc(report.Undecryptable.Items, mine) != (name == "text that does not decrypt") {
				t.Errorf("texts that do not decrypt: %v", report.Undecryptable.Items)
			}
			r := onlyKey(t, report).Retire
			if r.Done != (c.blocked == "") || r.Blocked != c.blocked || len(r.Released) != c.released ||
				!strings.Contains(r.Reason, strings.ReplaceAll(c.want, "NS", f.Namespace)) {
				t.Errorf("retire: %+v, want %q (%s)", r, c.want, c.blocked)
			}
			if got := f.KeyInfo().MinDecryptionVersion > 1; got != (c.blocked == "") {
				t.Errorf("retired: %v", got)
			}
		})
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
	f := newServerFixture(t)
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
	run := func() *rotator.KeySummary {
		t.Helper()
		if _, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options()); err != nil {
			t.Fatal(err)
		}
		summary := f.summary()
		if len(summary.Keys) != 1 || time.Since(summary.Finished) > time.Minute {
			t.Fatalf("%+v", summary)
		}
		return &summary.Keys[0]
	}
	if k := run(); k.Mount != "transit" || k.Name != f.Key || k.Target != 2 || k.Rewrapped != 1 || k.Versions[2] != 1 ||
		k.CleanSince.IsZero() || time.Since(k.Finished) > time.Minute {
		t.Errorf("summary: %+v", k)
	}
	// A run skips what it cannot parse, and keeps entries of others.
	m := f.stateOf()
	m.Data["transit__"+f.Key], m.Data["notes"] = "{", "other"
	if _, err := f.Kube.CoreV1().ConfigMaps(f.Namespace).Update(t.Context(), m, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if k := run(); k.CleanSince.IsZero() || f.stateOf().Data["notes"] != "other" {
		t.Errorf("%+v, %v", k, f.stateOf().Data)
	}
}

package rotator_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/secretmanager-io/secretmanager/rotator"
)

// TestKilledAtEveryRequest has old ciphertext come back from Git when its version is due to be
// retired, and kills the run before and after each of its requests, or cuts it off from then on.
// The run before had seen no old ciphertext for longer than the waiting time. An undisturbed
// run sees it, and the waiting time begins again; so the run after the killed one must not
// retire the version either.
func TestKilledAtEveryRequest(t *testing.T) {
	parallel(t)
	f := newFixture(t)
	if long() {
		f = newServerFixture(t)
	}
	old := f.encrypt(f.Namespace, "s", map[string]string{"e": "x"})
	f.CreateSecret(old)
	f.RotateKey()
	v := f.killable(kill{})
	v.Retire, v.Wait = true, week
	run := func(later time.Duration) *rotator.KeyReport {
		t.Helper()
		now := v
		now.Later = later
		report, err := rotator.Run(t.Context(), f.session(v), f.Kube, now.options())
		if err != nil {
			t.Fatal(err)
		}
		return onlyKey(t, report)
	}
	if k := run(0); k.Rewrapped != 1 || k.Retire.Done {
		t.Fatalf("%+v", k)
	}
	before := f.saveState()
	v.Later = week + time.Hour
	for _, step := range []step{beforeRequest, afterRequest} {
		for _, cutOff := range []bool{false, true} {
			v.Kill = kill{Step: slices.Index(steps, step), Continue: cutOff}
			for killed := true; killed; {
				v.Kill.Nth++
				f.restoreState(before)
				f.mergeEntry("s", old.Data["e"])
				killRun := f.killInside
				if long() && !cutOff {
					killRun = f.killProcess
				}
				killed = killRun(v)
				k := run(week + 2*time.Hour)
				if k.Retire.Done || f.KeyInfo().MinDecryptionVersion != 1 {
					t.Fatalf("%s: the version was retired: %+v", v.Kill, k.Retire)
				}
				if got := f.plain(f.Namespace, "s")["e"]; got != "x" {
					t.Fatalf("%s: the entry is %q", v.Kill, got)
				}
			}
			if v.Kill.Nth < 20 {
				t.Errorf("the run has %d requests", v.Kill.Nth)
			}
		}
	}
	f.restoreState(before)
	if k := run(week + time.Hour); !k.Retire.Done {
		t.Errorf("without old ciphertext nothing is retired: %+v", k.Retire)
	}
}

// saveState returns the ConfigMaps of the state.
func (f *testFixture) saveState() (state []corev1.ConfigMap) {
	f.T.Helper()
	for _, name := range rotator.StateNames() {
		m, err := f.Kube.CoreV1().ConfigMaps(f.Namespace).Get(f.T.Context(), name, metav1.GetOptions{})
		f.Must(err)
		state = append(state, *m)
	}
	return state
}

func (f *testFixture) restoreState(state []corev1.ConfigMap) {
	f.T.Helper()
	for _, m := range state {
		m.ResourceVersion = ""
		_, err := f.Kube.CoreV1().ConfigMaps(f.Namespace).Update(f.T.Context(), &m, metav1.UpdateOptions{})
		f.Must(err)
	}
}

// mergeEntry applies an entry, as Git does.
func (f *testFixture) mergeEntry(name string, text []byte) {
	f.T.Helper()
	_, err := f.Kube.CoreV1().Secrets(f.Namespace).Patch(f.T.Context(), name, types.MergePatchType,
		fmt.Appendf(nil, `{"stringData":{"e":%q}}`, text), metav1.PatchOptions{})
	f.Must(err)
}

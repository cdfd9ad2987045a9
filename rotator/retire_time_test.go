package rotator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/rotator"
)

// TestRetireTime retires nothing when the time is not certain.
func TestRetireTime(t *testing.T) {
	const day = 24 * time.Hour
	clock := func(d time.Duration) func() time.Time {
		return func() time.Time { return time.Now().Add(d) }
	}
	for name, c := range map[string]struct {
		runs    []time.Duration // of Vault and of the API server
		kube    time.Duration   // difference of the API server in the last run
		want    string
		blocked rotator.Blocker
	}{
		"every day":                  {runs: []time.Duration{0, day, 2*day + time.Hour}},
		"with a night without a run": {runs: []time.Duration{0, day, 3*day - time.Hour}},
		"both clocks 40 days ahead": {
			runs: []time.Duration{0, 40 * day}, want: "longer than 48h0m0s", blocked: rotator.BlockerGap,
		},
		"both clocks 40 days behind": {runs: []time.Duration{0, day, 2*day - 40*day}, want: "must pass"},
		"Vault 40 days ahead": {
			runs: []time.Duration{0, day, 40 * day}, kube: -38 * day, want: "check the clocks", blocked: rotator.BlockerClock,
		},
		"Vault six minutes ahead": {
			runs: []time.Duration{0, day, 3 * day}, kube: -6 * time.Minute, want: "check the clocks",
			blocked: rotator.BlockerClock,
		},
		"the API server 40 days ahead": {
			runs: []time.Duration{0, day, 2*day + time.Hour}, kube: 40 * day, want: "check the clocks",
			blocked: rotator.BlockerClock,
		},
		"suspended for 30 days": {
			runs: []time.Duration{0, day, 31 * day}, want: "longer than 48h0m0s", blocked: rotator.BlockerGap,
		},
		"every week": {
			runs:    []time.Duration{0, 7 * day, 14 * day, 21 * day},
			want:    "3 times in a row: with this schedule nothing is ever retired",
			blocked: rotator.BlockerGap,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.RotateKey()
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
			var r *rotator.RetireReport
			for i, now := range c.runs {
				in := rotator.Inside{VaultClock: clock(now), KubeClock: clock(now)}
				if i == len(c.runs)-1 {
					in.KubeClock = clock(now + c.kube)
				}
				report, err := rotator.RunInside(t.Context(), f.retirer(), f.Kube, f.options(retiring(2*day),
					func(o *rotator.Options) { o.MaxGap = 2 * day }), in)
				if err != nil {
					t.Fatal(err)
				}
				if r != nil && r.Done {
					t.Fatalf("run %d came after the retirement: %+v", i, r)
				}
				r = onlyKey(t, report).Retire
			}
			if r.Done != (c.want == "") || r.Blocked != c.blocked || !strings.Contains(r.Reason, c.want) {
				t.Errorf("%+v, want %q (%s)", r, c.want, c.blocked)
			}
		})
	}
}

// TestSuspendedDuringRun suspends the machine between the listing and the retirement. The key is
// restored from a backup meanwhile, or not.
func TestSuspendedDuringRun(t *testing.T) {
	for name, restored := range map[string]bool{"suspended": false, "suspended and restored": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			backup := f.backup()
			f.RotateKey()
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
			var later time.Duration
			clock := func() time.Time { return time.Now().Add(later) }
			opts := f.options(retiring(0), func(o *rotator.Options) {
				o.MaxGap = 48 * time.Hour
				o.Progress = func(p rotator.Progress) {
					if p.Phase != "search" || later > 0 {
						return
					}
					if later = 30 * 24 * time.Hour; restored {
						later = time.Minute
						f.restore(backup)
					}
				}
			})
			report, err := rotator.RunInside(t.Context(), f.retirer(), f.Kube, opts,
				rotator.Inside{VaultClock: clock, KubeClock: clock})
			r := onlyKey(t, report).Retire
			if restored {
				if r.Done || f.KeyInfo().MinDecryptionVersion != 1 {
					t.Errorf("%v, %+v", err, r)
				}
				return
			}
			if err != nil || r.Done || r.Blocked != rotator.BlockerClock || !strings.Contains(r.Reason, "during the run") {
				t.Errorf("%v, %+v", err, r)
			}
		})
	}
}

// TestClockOfAPIServer reads the real one.
func TestClockOfAPIServer(t *testing.T) {
	f := newFixture(t)
	f.RotateKey()
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	hour := func() time.Time { return time.Now().Add(time.Hour) }
	for in, want := range map[*rotator.Inside]rotator.Blocker{{}: "", {VaultClock: hour}: rotator.BlockerClock} {
		f.RotateKey()
		report, err := rotator.RunInside(t.Context(), f.retirer(), f.Kube, f.options(retiring(0)), *in)
		if err != nil || onlyKey(t, report).Retire.Blocked != want {
			t.Errorf("%v, %+v, want %q", err, onlyKey(t, report).Retire, want)
		}
	}
}

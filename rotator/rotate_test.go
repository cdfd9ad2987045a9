package rotator_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestRotateOnlyWhenDue(t *testing.T) {
	tests := map[string]struct {
		mode    rotator.Mode
		later   time.Duration // how old the key is
		age     time.Duration // MaxKeyAge
		below   bool          // an entry is below the newest version
		period  time.Duration // auto_rotate_period
		rotated bool
		reason  string
	}{
		"auto, Vault rotates": {later: 25 * time.Hour, period: 720 * time.Hour,
			reason: "Vault rotates it every 720h0m0s"},
		"always, Vault rotates": {mode: rotator.Always, period: 720 * time.Hour, rotated: true,
			reason: "mode is always"},
		"auto, young":                {later: 23 * time.Hour, reason: "due after 24h0m0s"},
		"auto, old":                  {later: 25 * time.Hour, rotated: true, reason: "more than 24h0m0s"},
		"auto, older than MaxKeyAge": {later: 2 * time.Hour, age: time.Hour, rotated: true, reason: "more than 1h0m0s"},
		"auto, old, entries below":   {later: 25 * time.Hour, below: true, rotated: true, reason: "more than 24h0m0s"},
		"always, young":              {mode: rotator.Always, rotated: true, reason: "mode is always"},
		"always, entries below":      {mode: rotator.Always, below: true, rotated: true, reason: "mode is always"},
		"never, old":                 {mode: rotator.Never, later: 25 * time.Hour, reason: "mode is never"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
			if test.below {
				f.RotateKey()
			}
			if test.period > 0 {
				f.configure(func(k *transit.KeyInfo) { k.AutoRotatePeriod = test.period })
			}
			before := f.KeyInfo().Latest
			report, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options(func(o *rotator.Options) {
				o.Rotate, o.MaxKeyAge = test.mode, test.age
				o.Now = func() time.Time { return time.Now().Add(test.later) }
			}))
			if err != nil {
				t.Fatal(err)
			}
			k := onlyKey(t, report)
			after := f.KeyInfo().Latest
			if k.Rotated != test.rotated || !strings.Contains(k.RotateReason, test.reason) {
				t.Errorf("rotated %t: %s", k.Rotated, k.RotateReason)
			}
			if want := before + map[bool]int{true: 1}[test.rotated]; after != want || k.After != want || k.Target != want {
				t.Errorf("version %d, reported %d with target %d, want %d", after, k.After, k.Target, want)
			}
			// The entry is rewrapped in any case.
			if got := versions(t, f.GetSecret(f.Namespace, "s"))["e"]; got != after {
				t.Errorf("the entry is at %d, want %d", got, after)
			}
		})
	}
}

// TestRotateNotRepeated responds to the request to rotate with an error after which other
// requests are repeated.
func TestRotateNotRepeated(t *testing.T) {
	tests := map[string]struct {
		succeeds bool
		latest   int
		rotated  bool
	}{
		"succeeded": {succeeds: true, latest: 2, rotated: true},
		"failed":    {succeeds: false, latest: 1, rotated: false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newServerFixture(t)
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
			requests := 0
			address := f.VaultProxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
				if !strings.HasSuffix(r.URL.Path, "/rotate") {
					vault.ServeHTTP(rw, r)
					return
				}
				requests++
				if test.succeeds {
					f.RotateKey()
				}
				http.Error(rw, `{"errors":["internal error"]}`, http.StatusInternalServerError)
			})
			report, err := rotator.Run(t.Context(), f.Session(address, f.token(f.rotatorPaths()...)), f.Kube,
				f.options(func(o *rotator.Options) {
					o.Rotate = rotator.Always
				}))
			k := onlyKey(t, report)
			if requests != 1 || f.KeyInfo().Latest != test.latest {
				t.Errorf("%d requests to rotate, version %d, want 1 and %d", requests, f.KeyInfo().Latest, test.latest)
			}
			if k.Rotated != test.rotated || k.Target != test.latest {
				t.Errorf("report: %+v", k)
			}
			if test.succeeds != (err == nil) || !test.succeeds && !errors.Is(err, rotator.ErrIncomplete) {
				t.Errorf("error: %v", err)
			}
		})
	}
}

func TestUnusableKey(t *testing.T) {
	tests := map[string]struct {
		paths func(f *testFixture) []string
		want  string
	}{
		"no policy": {func(f *testFixture) []string { return []string{"transit/keys/other"} },
			"check the names of key and mount, and that the policy has read on transit/keys/"},
		"no rewrap": {func(f *testFixture) []string { return f.rotatorPaths()[:2] },
			"check that the policy has update on transit/rewrap/"},
		"no rotate": {func(f *testFixture) []string { p := f.rotatorPaths(); return []string{p[0], p[2]} },
			"check that the policy has update on transit/keys/"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newServerFixture(t)
			good := newServerFixture(t) // a second key, which is not affected
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
			good.CreateSecret(good.encrypt(good.Namespace, "s", map[string]string{"e": "x"}))
			f.RotateKey()
			good.RotateKey()
			session := f.Session(f.Vault.Address, f.token(append(test.paths(f), good.rotatorPaths()...)...))
			report, err := rotator.Run(t.Context(), session, f.Kube, f.options(func(o *rotator.Options) {
				o.Rotate, o.Keys = rotator.Always, []string{f.Key, good.Key}
			}))
			if !errors.Is(err, rotator.ErrIncomplete) || len(report.Keys) != 2 {
				t.Fatalf("got %v, %+v", err, report)
			}
			for _, k := range report.Keys {
				if k.Name == good.Key && (!k.Rotated || k.Rewrapped != 1 || k.Error != "") {
					t.Errorf("the other key: %+v", k)
				}
				if k.Name == f.Key && !strings.Contains(k.Error, test.want) {
					t.Errorf("error %q, want %q", k.Error, test.want)
				}
				if name == "no rotate" && k.Name == f.Key && k.Rewrapped != 1 {
					t.Error("the entry was not rewrapped")
				}
			}
		})
	}
	t.Run("misspelled", func(t *testing.T) {
		f := newServerFixture(t)
		report, err := rotator.Run(t.Context(), f.Root, f.Kube,
			f.options(func(o *rotator.Options) { o.Keys = []string{f.Key + "x"} }))
		if !errors.Is(err, rotator.ErrIncomplete) || !strings.Contains(onlyKey(t, report).Error, "check the names") {
			t.Errorf("got %v, %+v", err, report)
		}
	})
}

package rotator_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/rotator"
)

func TestRotateOnlyWhenDue(t *testing.T) {
	tests := map[string]struct {
		mode    rotator.Mode
		later   time.Duration // how old the key is
		age     time.Duration // MaxKeyAge
		below   bool          // an entry is below the newest version
		period  string        // auto_rotate_period
		rotated bool
		reason  string
	}{
		"auto, Vault does it": {later: 25 * time.Hour, period: "720h",
			reason: "Vault rotates it by itself every 720h0m0s"},
		"always, also Vault":      {mode: rotator.Always, period: "720h", rotated: true, reason: "asked for"},
		"auto, young":             {later: 23 * time.Hour, reason: "due after 24h0m0s"},
		"auto, old":               {later: 25 * time.Hour, rotated: true, reason: "more than 24h0m0s"},
		"auto, older than wanted": {later: 2 * time.Hour, age: time.Hour, rotated: true, reason: "more than 1h0m0s"},
		"auto, old, work left": {later: 25 * time.Hour, below: true,
			reason: "1 entries are still below version 2 and come first"},
		"always, young":     {mode: rotator.Always, rotated: true, reason: "asked for"},
		"always, work left": {mode: rotator.Always, below: true, rotated: true, reason: "asked for"},
		"never, old":        {mode: rotator.Never, later: 25 * time.Hour, reason: "asked not to"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
			if test.below {
				w.rotateKey()
			}
			if test.period != "" {
				w.write("transit/keys/"+w.key+"/config", map[string]any{"auto_rotate_period": test.period})
			}
			before := w.keyInfo().Latest
			report, err := rotator.Run(t.Context(), w.minimal(), w.kube, w.options(func(o *rotator.Options) {
				o.Rotate, o.MaxKeyAge = test.mode, test.age
				o.Now = func() time.Time { return time.Now().Add(test.later) }
			}))
			if err != nil {
				t.Fatal(err)
			}
			k := only(t, report)
			after := w.keyInfo().Latest
			if k.Rotated != test.rotated || !strings.Contains(k.RotateReason, test.reason) {
				t.Errorf("rotated %t: %s", k.Rotated, k.RotateReason)
			}
			if want := before + map[bool]int{true: 1}[test.rotated]; after != want || k.After != want || k.Target != want {
				t.Errorf("version %d, reported %d with target %d, want %d", after, k.After, k.Target, want)
			}
			// In any case the entry ends at the newest.
			if got := versions(t, w.get(w.ns, "s"))["e"]; got != after {
				t.Errorf("the entry is at %d, want %d", got, after)
			}
		})
	}
}

// TestRotateIsNotRepeated answers the request to rotate with an error that
// other requests are repeated for.
func TestRotateIsNotRepeated(t *testing.T) {
	tests := map[string]struct {
		took    bool
		latest  int
		rotated bool
	}{
		"it took":    {took: true, latest: 2, rotated: true},
		"it did not": {took: false, latest: 1, rotated: false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
			asked := 0
			address := w.proxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
				if !strings.HasSuffix(r.URL.Path, "/rotate") {
					vault.ServeHTTP(rw, r)
					return
				}
				asked++
				if test.took {
					w.rotateKey()
				}
				http.Error(rw, `{"errors":["internal error"]}`, http.StatusInternalServerError)
			})
			report, err := rotator.Run(t.Context(), w.session(address, w.token(w.rotatorPaths()...)), w.kube,
				w.options(func(o *rotator.Options) {
					o.Rotate = rotator.Always
				}))
			k := only(t, report)
			if asked != 1 || w.keyInfo().Latest != test.latest {
				t.Errorf("asked to rotate %d times, now at version %d, want 1 and %d", asked, w.keyInfo().Latest, test.latest)
			}
			if k.Rotated != test.rotated || k.Target != test.latest {
				t.Errorf("report: %+v", k)
			}
			if test.took != (err == nil) || !test.took && !errors.Is(err, rotator.ErrIncomplete) {
				t.Errorf("error: %v", err)
			}
		})
	}
}

func TestKeyThatCannotBeUsed(t *testing.T) {
	tests := map[string]struct {
		paths func(w *world) []string
		want  string
	}{
		"no policy": {func(w *world) []string { return []string{"transit/keys/other"} },
			"check the names of key and mount, and that the policy has read on transit/keys/"},
		"no rewrap": {func(w *world) []string { return w.rotatorPaths()[:2] },
			"check that the policy has update on transit/rewrap/"},
		"no rotate": {func(w *world) []string { p := w.rotatorPaths(); return []string{p[0], p[2]} },
			"check that the policy has update on transit/keys/"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			good := newWorld(t) // a second key, which is to be done all the same
			w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
			good.store(good.seal(good.ns, "s", map[string]string{"e": "x"}))
			w.rotateKey()
			good.rotateKey()
			session := w.session(w.vault.Address, w.token(append(test.paths(w), good.rotatorPaths()...)...))
			report, err := rotator.Run(t.Context(), session, w.kube, w.options(func(o *rotator.Options) {
				o.Rotate, o.Keys = rotator.Always, []string{w.key, good.key}
			}))
			if !errors.Is(err, rotator.ErrIncomplete) || len(report.Keys) != 2 {
				t.Fatalf("got %v, %+v", err, report)
			}
			for _, k := range report.Keys {
				if k.Name == good.key && (!k.Rotated || k.Rewrapped != 1 || k.Error != "") {
					t.Errorf("the other key: %+v", k)
				}
				if k.Name == w.key && !strings.Contains(k.Error, test.want) {
					t.Errorf("error %q, want it to say %q", k.Error, test.want)
				}
				if name == "no rotate" && k.Name == w.key && k.Rewrapped != 1 {
					t.Error("what could not be rotated was not rewrapped either")
				}
			}
		})
	}
	t.Run("misspelt", func(t *testing.T) {
		w := newWorld(t)
		report, err := rotator.Run(t.Context(), w.root, w.kube,
			w.options(func(o *rotator.Options) { o.Keys = []string{w.key + "x"} }))
		if !errors.Is(err, rotator.ErrIncomplete) || !strings.Contains(only(t, report).Error, "check the names") {
			t.Errorf("got %v, %+v", err, report)
		}
	})
}

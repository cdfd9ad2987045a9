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

const week = 7 * 24 * time.Hour

// trimmer is a session that may also retire and trim.
func (w *world) trimmer() *transit.Session {
	w.t.Helper()
	return w.session(w.vault.Address,
		w.token(append(w.rotatorPaths(), "transit/keys/"+w.key+"/config", "transit/keys/"+w.key+"/trim")...))
}

func trimming(o *rotator.Options) { o.Trim, o.RetireAfter = true, week }

// retiredWorld has a key of three versions of which the first two are retired.
func retiredWorld(t *testing.T) *world {
	w := newWorld(t)
	w.rotateKey()
	w.rotateKey()
	w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	w.write("transit/keys/"+w.key+"/config", map[string]any{"min_decryption_version": 3})
	return w
}

func (w *world) trim(change ...func(*rotator.Options)) *rotator.TrimReport {
	w.t.Helper()
	report, err := rotator.Run(w.t.Context(), w.trimmer(), w.kube,
		w.options(append([]func(*rotator.Options){trimming}, change...)...))
	if err != nil {
		w.t.Fatal(err)
	}
	return only(w.t, report).Trim
}

func TestTrim(t *testing.T) {
	w := retiredWorld(t)
	if report, err := rotator.Run(t.Context(), w.trimmer(), w.kube, w.options(at(-week))); err != nil ||
		only(t, report).Trim != nil {
		t.Errorf("trimmed without being asked to: %v, %+v", err, only(t, report).Trim)
	}
	// That run has seen what is retired, a week ago.
	r := w.trim(at(-time.Hour))
	if r.Done || !strings.Contains(r.Reason, "all below version 2 has been retired since") {
		t.Errorf("before its time: %+v", r)
	}
	r = w.trim(at(time.Hour), func(o *rotator.Options) { o.DryRun = true })
	if r.Done || r.Reason != "all below version 3 would be deleted for good" || w.keyInfo().MinAvailableVersion != 0 {
		t.Errorf("dry run: %+v", r)
	}
	r = w.trim(at(time.Hour))
	if !r.Done || r.From != 0 || r.To != 3 || w.keyInfo().MinAvailableVersion != 3 {
		t.Errorf("when it is time: %+v, %+v", r, w.keyInfo())
	}
	if got := w.plain(w.ns, "s")["e"]; got != "x" {
		t.Errorf("the entry holds %q", got)
	}
	if r := w.trim(at(2 * time.Hour)); r.Done || r.Reason != "no version is retired that is not trimmed already" {
		t.Errorf("and again: %+v", r)
	}

	// Trimming has set min_encryption_version, which the next retirement takes along.
	w.rotateKey()
	always := func(o *rotator.Options) { o.Retire, o.RetireAfter = true, 0 }
	report, err := rotator.Run(t.Context(), w.trimmer(), w.kube, w.options(always))
	if err != nil || !only(t, report).Retire.Done || w.keyInfo().MinDecryptionVersion != 4 {
		t.Errorf("retiring after a trim: %v, %+v", err, only(t, report).Retire)
	}
}

// What a run retires waits as long again before it is trimmed, and what was
// lowered meanwhile, to rescue something, has its time begin anew.
func TestTrimWaits(t *testing.T) {
	w := newWorld(t)
	w.rotateKey()
	w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	both := func(o *rotator.Options) { o.Retire = true }
	w.trim(at(-3 * week))
	report, err := rotator.Run(t.Context(), w.trimmer(), w.kube, w.options(trimming, both, at(-2*week)))
	if err != nil {
		t.Fatal(err)
	}
	if k := only(t, report); !k.Retire.Done || k.Trim.Done {
		t.Fatalf("retired and trimmed in one: %+v, %+v", k.Retire, k.Trim)
	}
	w.write("transit/keys/"+w.key+"/config", map[string]any{"min_decryption_version": 1})
	if r := w.trim(at(-week)); r.Done || r.Reason != "no version is retired that is not trimmed already" {
		t.Errorf("lowered: %+v", r)
	}
	w.write("transit/keys/"+w.key+"/config", map[string]any{"min_decryption_version": 2})
	if r := w.trim(at(-time.Hour)); r.Done {
		t.Errorf("raised again an hour ago: %+v", r)
	}
	if r := w.trim(at(week)); !r.Done {
		t.Errorf("a week later: %+v", r)
	}
}

func TestTrimIsRefused(t *testing.T) {
	tests := map[string]struct {
		arrange func(w *world)
		change  func(o *rotator.Options)
		want    string
	}{
		"an entry is of a retired version": {
			arrange: func(w *world) {
				w.write("transit/keys/"+w.key+"/config", map[string]any{"min_decryption_version": 1})
				old := w.seal(w.ns, "old", map[string]string{"e": "x"})
				old.Data["e"] = []byte("vault:v1:" + strings.SplitN(string(old.Data["e"]), ":", 3)[2])
				w.store(old)
				w.write("transit/keys/"+w.key+"/config", map[string]any{"min_decryption_version": 3})
			},
			want: "1 entries are left",
		},
		"and it is in another namespace than asked for": {
			arrange: func(w *world) {
				w.namespace(w.ns + "-other")
				old := w.seal(w.ns+"-other", "old", map[string]string{"e": "x"})
				old.Data["e"] = []byte("vault:v1:" + strings.SplitN(string(old.Data["e"]), ":", 3)[2])
				w.store(old)
			},
			change: func(o *rotator.Options) { o.Namespaces = []string{"default"} },
			want:   "1 entries are left",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := retiredWorld(t)
			if _, err := rotator.Run(t.Context(), w.trimmer(), w.kube, w.options(at(-2*week))); err != nil {
				t.Fatal(err)
			}
			test.arrange(w)
			opts := w.options(trimming)
			if test.change != nil {
				test.change(&opts)
			}
			report, err := rotator.Run(t.Context(), w.trimmer(), w.kube, opts)
			if err != nil && !errors.Is(err, rotator.ErrIncomplete) {
				t.Fatal(err)
			}
			if r := only(t, report).Trim; r.Done || !strings.Contains(r.Reason, test.want) {
				t.Errorf("trim: %+v, want %q", r, test.want)
			}
			if got := w.keyInfo().MinAvailableVersion; got != 0 {
				t.Errorf("min_available_version is %d", got)
			}
		})
	}
	t.Run("without a time", func(t *testing.T) {
		if err := (rotator.Options{Trim: true}).Validate(); err == nil || !strings.Contains(err.Error(), "cannot be undone") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("without the right", func(t *testing.T) {
		w := retiredWorld(t)
		for _, when := range []time.Duration{-2 * week, 0} {
			report, err := rotator.Run(t.Context(), w.minimal(), w.kube, w.options(trimming, at(when)))
			if when < 0 {
				continue
			}
			if !errors.Is(err, rotator.ErrIncomplete) ||
				!strings.Contains(only(t, report).Trim.Reason, "trimming needs update on transit/keys/"+w.key+"/config and /trim") {
				t.Errorf("%v, %+v", err, only(t, report).Trim)
			}
		}
	})
}

// The answer to a trim is lost, and it is not sent again.
func TestTrimWithoutAnAnswer(t *testing.T) {
	w := retiredWorld(t)
	if _, err := rotator.Run(t.Context(), w.trimmer(), w.kube, w.options(at(-2*week))); err != nil {
		t.Fatal(err)
	}
	sent := 0
	address := w.proxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
		if !strings.HasSuffix(r.URL.Path, "/trim") {
			vault.ServeHTTP(rw, r)
			return
		}
		sent++
		vault.ServeHTTP(discard{}, r)
		panic(http.ErrAbortHandler)
	})
	token := w.token(append(w.rotatorPaths(), "transit/keys/"+w.key+"/config", "transit/keys/"+w.key+"/trim")...)
	report, err := rotator.Run(t.Context(), w.session(address, token), w.kube, w.options(trimming))
	if err != nil || sent != 1 || !only(t, report).Trim.Done || w.keyInfo().MinAvailableVersion != 3 {
		t.Errorf("%v, sent %d times, %+v", err, sent, only(t, report).Trim)
	}
}

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

// trimmer returns a session that may also retire and trim.
func (f *testFixture) trimmer() *transit.Session {
	f.T.Helper()
	return f.Session(f.Vault.Address,
		f.token(append(f.rotatorPaths(), "transit/keys/"+f.Key+"/config", "transit/keys/"+f.Key+"/trim")...))
}

func trimming(o *rotator.Options) { o.Trim, o.RetireAfter = true, week }

// newRetiredFixture has a key with three versions, of which two are retired.
func newRetiredFixture(t *testing.T) *testFixture {
	f := newFixture(t)
	f.RotateKey()
	f.RotateKey()
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	f.Write("transit/keys/"+f.Key+"/config", map[string]any{"min_decryption_version": 3})
	return f
}

func (f *testFixture) trim(change ...func(*rotator.Options)) *rotator.TrimReport {
	f.T.Helper()
	report, err := rotator.Run(f.T.Context(), f.trimmer(), f.Kube,
		f.options(append([]func(*rotator.Options){trimming}, change...)...))
	if err != nil {
		f.T.Fatal(err)
	}
	return onlyKey(f.T, report).Trim
}

func TestTrim(t *testing.T) {
	f := newRetiredFixture(t)
	if report, err := rotator.Run(t.Context(), f.trimmer(), f.Kube, f.options(at(-week))); err != nil ||
		onlyKey(t, report).Trim != nil {
		t.Errorf("trimmed without Trim: %v, %+v", err, onlyKey(t, report).Trim)
	}
	// That run saw the retired versions, a week ago.
	r := f.trim(at(-time.Hour))
	if r.Done || !strings.Contains(r.Reason, "all below version 2 has been retired since") {
		t.Errorf("before RetireAfter: %+v", r)
	}
	r = f.trim(at(time.Hour), func(o *rotator.Options) { o.DryRun = true })
	if r.Done || r.Reason != "all below version 3 would be deleted permanently" || f.KeyInfo().MinAvailableVersion != 0 {
		t.Errorf("dry run: %+v", r)
	}
	r = f.trim(at(time.Hour))
	if !r.Done || r.From != 0 || r.To != 3 || f.KeyInfo().MinAvailableVersion != 3 {
		t.Errorf("after RetireAfter: %+v, %+v", r, f.KeyInfo())
	}
	if got := f.plain(f.Namespace, "s")["e"]; got != "x" {
		t.Errorf("the entry is %q", got)
	}
	if r := f.trim(at(2 * time.Hour)); r.Done || r.Reason != "every retired version is trimmed already" {
		t.Errorf("second trim: %+v", r)
	}

	// Trimming set min_encryption_version, which the next retirement raises.
	f.RotateKey()
	always := func(o *rotator.Options) { o.Retire, o.RetireAfter = true, 0 }
	report, err := rotator.Run(t.Context(), f.trimmer(), f.Kube, f.options(always))
	if err != nil || !onlyKey(t, report).Retire.Done || f.KeyInfo().MinDecryptionVersion != 4 {
		t.Errorf("retiring after a trim: %v, %+v", err, onlyKey(t, report).Retire)
	}
}

// A version is trimmed RetireAfter after its retirement. If min_decryption_version is
// lowered meanwhile, the wait restarts.
func TestTrimWaits(t *testing.T) {
	f := newFixture(t)
	f.RotateKey()
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	both := func(o *rotator.Options) { o.Retire = true }
	f.trim(at(-3 * week))
	report, err := rotator.Run(t.Context(), f.trimmer(), f.Kube, f.options(trimming, both, at(-2*week)))
	if err != nil {
		t.Fatal(err)
	}
	if k := onlyKey(t, report); !k.Retire.Done || k.Trim.Done {
		t.Fatalf("retired and trimmed in one run: %+v, %+v", k.Retire, k.Trim)
	}
	f.Write("transit/keys/"+f.Key+"/config", map[string]any{"min_decryption_version": 1})
	if r := f.trim(at(-week)); r.Done || r.Reason != "every retired version is trimmed already" {
		t.Errorf("lowered: %+v", r)
	}
	f.Write("transit/keys/"+f.Key+"/config", map[string]any{"min_decryption_version": 2})
	if r := f.trim(at(-time.Hour)); r.Done {
		t.Errorf("raised again an hour ago: %+v", r)
	}
	if r := f.trim(at(week)); !r.Done {
		t.Errorf("a week later: %+v", r)
	}
}

func TestTrimBlocked(t *testing.T) {
	tests := map[string]struct {
		arrange func(f *testFixture)
		change  func(o *rotator.Options)
		want    string
	}{
		"an entry has a retired version": {
			arrange: func(f *testFixture) {
				f.Write("transit/keys/"+f.Key+"/config", map[string]any{"min_decryption_version": 1})
				old := f.encrypt(f.Namespace, "old", map[string]string{"e": "x"})
				old.Data["e"] = []byte("vault:v1:" + strings.SplitN(string(old.Data["e"]), ":", 3)[2])
				f.CreateSecret(old)
				f.Write("transit/keys/"+f.Key+"/config", map[string]any{"min_decryption_version": 3})
			},
			want: "1 entries are unresolved",
		},
		"the entry is in a namespace that is not selected": {
			arrange: func(f *testFixture) {
				f.CreateNamespace(f.Namespace + "-other")
				old := f.encrypt(f.Namespace+"-other", "old", map[string]string{"e": "x"})
				old.Data["e"] = []byte("vault:v1:" + strings.SplitN(string(old.Data["e"]), ":", 3)[2])
				f.CreateSecret(old)
			},
			change: func(o *rotator.Options) { o.Namespaces = []string{"default"} },
			want:   "1 entries are unresolved",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newRetiredFixture(t)
			if _, err := rotator.Run(t.Context(), f.trimmer(), f.Kube, f.options(at(-2*week))); err != nil {
				t.Fatal(err)
			}
			test.arrange(f)
			opts := f.options(trimming)
			if test.change != nil {
				test.change(&opts)
			}
			report, err := rotator.Run(t.Context(), f.trimmer(), f.Kube, opts)
			if err != nil && !errors.Is(err, rotator.ErrIncomplete) {
				t.Fatal(err)
			}
			if r := onlyKey(t, report).Trim; r.Done || !strings.Contains(r.Reason, test.want) {
				t.Errorf("trim: %+v, want %q", r, test.want)
			}
			if got := f.KeyInfo().MinAvailableVersion; got != 0 {
				t.Errorf("min_available_version is %d", got)
			}
		})
	}
	t.Run("without RetireAfter", func(t *testing.T) {
		if err := (rotator.Options{Trim: true}).Validate(); err == nil || !strings.Contains(err.Error(), "cannot be undone") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("denied", func(t *testing.T) {
		f := newRetiredFixture(t)
		for _, when := range []time.Duration{-2 * week, 0} {
			report, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options(trimming, at(when)))
			if when < 0 {
				continue
			}
			if !errors.Is(err, rotator.ErrIncomplete) ||
				!strings.Contains(onlyKey(t, report).Trim.Reason,
					"trimming needs update on transit/keys/"+f.Key+"/config and /trim") {
				t.Errorf("%v, %+v", err, onlyKey(t, report).Trim)
			}
		}
	})
}

// If the response to a trim is lost, the run does not repeat it.
func TestTrimResponseLost(t *testing.T) {
	f := newRetiredFixture(t)
	if _, err := rotator.Run(t.Context(), f.trimmer(), f.Kube, f.options(at(-2*week))); err != nil {
		t.Fatal(err)
	}
	sent := 0
	address := f.VaultProxy(func(rw http.ResponseWriter, r *http.Request, vault http.Handler) {
		if !strings.HasSuffix(r.URL.Path, "/trim") {
			vault.ServeHTTP(rw, r)
			return
		}
		sent++
		vault.ServeHTTP(discard{}, r)
		panic(http.ErrAbortHandler)
	})
	token := f.token(append(f.rotatorPaths(), "transit/keys/"+f.Key+"/config", "transit/keys/"+f.Key+"/trim")...)
	report, err := rotator.Run(t.Context(), f.Session(address, token), f.Kube, f.options(trimming))
	if err != nil || sent != 1 || !onlyKey(t, report).Trim.Done || f.KeyInfo().MinAvailableVersion != 3 {
		t.Errorf("%v, sent %d times, %+v", err, sent, onlyKey(t, report).Trim)
	}
}

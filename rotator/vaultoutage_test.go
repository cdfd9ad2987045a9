package rotator_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// TestVaultOutageIsWaitedForOnce has a Vault that drops connections. The number of requests does
// not depend on the number of keys, and the Lease is free afterwards.
func TestVaultOutageIsWaitedForOnce(t *testing.T) {
	f := newServerFixture(t)
	var requests atomic.Int64
	address := f.VaultProxy(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		if strings.Contains(r.URL.Path, "/keys/") {
			requests.Add(1)
		}
		panic(http.ErrAbortHandler)
	})
	report, err := rotator.Run(t.Context(), f.Session(address, f.Vault.RootToken), f.Kube,
		f.options(func(o *rotator.Options) {
			o.Keys = nil
			for i := range 20 {
				o.Keys = append(o.Keys, fmt.Sprintf("%s-%d", f.Key, i))
			}
		}))
	if !errors.Is(err, rotator.ErrIncomplete) || len(report.Keys) != 20 {
		t.Fatalf("%v, %+v", err, report)
	}
	for _, k := range report.Keys {
		if !strings.HasPrefix(k.Error, "VaultUnreachable: ") {
			t.Errorf("%s: %s", k.Name, k.Error)
		}
	}
	if n := requests.Load(); n < 2 || n > 4 {
		t.Errorf("%d requests for 20 keys", n)
	}
	if l := f.lease(); l.Spec.HolderIdentity != nil {
		t.Errorf("the Lease is held: %+v", l)
	}
}

// TestVaultStopsDuringRun has a Vault that drops connections after the keys are rotated, and so
// while they are rewrapped, observed and retired. The number of requests that it then gets does
// not depend on the number of keys.
func TestVaultStopsDuringRun(t *testing.T) {
	f := newServerFixture(t)
	var keys []string
	for i := range 12 {
		key := f.CreateKey(fmt.Sprintf("%s-%d", f.Key, i), true)
		keys = append(keys, key.Name)
		f.CreateSecret(f.encrypt(f.Namespace, key.Name, map[string]string{"e": "x"}, func(s *secretmanager.Spec) {
			s.Settings.Key = key
		}))
	}
	var down atomic.Bool
	var requests atomic.Int64
	address := f.VaultProxy(func(w http.ResponseWriter, r *http.Request, vault http.Handler) {
		if strings.Contains(r.URL.Path, "/rewrap/") {
			down.Store(true)
		}
		if down.Load() {
			requests.Add(1)
			panic(http.ErrAbortHandler)
		}
		vault.ServeHTTP(w, r)
	})
	report, err := rotator.Run(t.Context(), f.Session(address, f.Vault.RootToken), f.Kube,
		f.options(retiring(0), func(o *rotator.Options) { o.Keys, o.Rotate = keys, rotator.Always }))
	if !errors.Is(err, rotator.ErrIncomplete) || report.Result != rotator.ResultFailed {
		t.Fatalf("%v, %+v", err, report)
	}
	for _, k := range report.Keys {
		if !strings.HasPrefix(k.Error, "VaultUnreachable: ") || k.Retire.Done {
			t.Errorf("%s: %s, %+v", k.Name, k.Error, k.Retire)
		}
	}
	if n := requests.Load(); n < 2 || n > 6 { // two workers, each with requests in flight
		t.Errorf("%d requests for 12 keys", n)
	}
}

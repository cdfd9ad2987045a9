package retirescan

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// TestNoEvidence has a Vault that gives no evidence about texts, for a while or forever.
func TestNoEvidence(t *testing.T) {
	app, other := transitKey("app"), transitKey("other")
	item := func(err error) func([]transit.Result) ([]transit.Result, error) {
		return func(results []transit.Result) ([]transit.Result, error) {
			results[0] = transit.Result{Err: err}
			return results, nil
		}
	}
	for name, change := range map[string]func([]transit.Result) ([]transit.Result, error){
		"lagging": item(fmt.Errorf("item: %w", transit.ErrTooNew)),
		"retired": item(transit.ErrTooOld),
		"busy":    item(transit.ErrBusy),
		"unknown": item(errors.New("internal error")),
		"another server": func(results []transit.Result) ([]transit.Result, error) {
			for i := range results {
				results[i] = transit.Result{Err: transit.ErrMismatch}
			}
			return results, nil
		},
	} {
		for _, duration := range []time.Duration{5 * time.Second, time.Hour} {
			t.Run(fmt.Sprint(name, " for ", duration), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					v := newVault("app", "other")
					secrets := []*corev1.Secret{
						labeled(newSecret("shop", "a", map[string]string{"x": v.strict("app", 9, "shop", "a", "x")}), "app"),
						newSecret("shop", "b", map[string]string{"x": v.strict("app", 2, "shop", "b", "x")}),
						newSecret("shop", "c", map[string]string{"x": v.strict("other", 2, "shop", "c", "x")}),
					}
					began, requests := time.Now(), 0
					v.change = func(key ciphertext.Key, results []transit.Result) ([]transit.Result, error) {
						if requests++; requests == 1 || key == other || time.Since(began) > duration {
							return results, nil // the first request is the one that verifies entries
						}
						return change(results)
					}
					r := scan(t, &Scanner{Vault: v, Keys: v.retiring(nil)}, secrets...)
					if lasts := duration > time.Minute; (r.Errors[app] != nil) != lasts || r.InUse[app].Count == 1 == lasts {
						t.Errorf("in use: %+v, errors: %v", r.InUse[app], r.Errors)
					}
					if r.MayRetire(app) || r.MayRetire(other) || r.InUse[other].Count != 1 || r.Errors[other] != nil {
						t.Errorf("may be retired: %t, %t: %+v", r.MayRetire(app), r.MayRetire(other), r)
					}
					if r.Undecryptable.Count > 0 {
						t.Errorf("undecryptable without evidence: %+v", r.Undecryptable)
					}
					if time.Since(began) > 2*retryFor {
						t.Errorf("it took %s", time.Since(began))
					}
				})
			})
		}
	}
}

// TestRefused has a Vault that refuses requests for one key.
func TestRefused(t *testing.T) {
	v := newVault("app", "other")
	keys := append(v.retiring(nil), Key{Key: transitKey("missing"), From: 1, To: 5, Derived: true})
	for name, secret := range map[string]*corev1.Secret{
		"text":  newSecret("shop", "b", map[string]string{"x": v.strict("app", 2, "shop", "b", "x")}),
		"entry": labeled(newSecret("shop", "b", map[string]string{"x": v.strict("app", 9, "shop", "b", "x")}), "missing"),
	} {
		t.Run(name, func(t *testing.T) {
			labeled(secret, "missing")
			r := scan(t, &Scanner{Vault: v, Keys: keys}, secret)
			if !errors.Is(r.Errors[transitKey("missing")], transit.ErrNotFound) || r.MayRetire(transitKey("missing")) {
				t.Errorf("errors: %v", r.Errors)
			}
			if !r.MayRetire(transitKey("other")) || len(r.Errors) != 1 {
				t.Errorf("another key is blocked: %+v", r)
			}
		})
	}
}

// TestRefusedOnce makes no more attempts with a key that Vault refuses.
func TestRefusedOnce(t *testing.T) {
	v := newVault()
	s := &Scanner{Vault: v, Keys: []Key{{Key: transitKey("missing"), From: 1, To: 5, Derived: true}}}
	data := map[string]string{}
	for i := range 1000 {
		data[fmt.Sprint(i)] = "vault:v1:" + encode(fmt.Sprintf("%040d", i))
	}
	r := scan(t, s, newSecret("shop", "b", data))
	if v.requests != 1 || r.Attempts != maxBatchItems || r.Undecryptable.Count > 0 {
		t.Errorf("%d requests, %d attempts, %d undecryptable", v.requests, r.Attempts, r.Undecryptable.Count)
	}
}

func TestCanceled(t *testing.T) {
	v := newVault("app")
	ctx, cancel := context.WithCancel(t.Context())
	s := &Scanner{Vault: v, Keys: v.retiring(nil)}
	secret := newSecret("shop", "b", map[string]string{"x": v.strict("app", 2, "shop", "b", "x")})
	if err := s.Add(ctx, secret); err != nil {
		t.Fatal(err)
	}
	cancel()
	r, err := s.Finish(ctx)
	if !errors.Is(err, context.Canceled) || r.MayRetire(transitKey("app")) {
		t.Errorf("%v: %+v", err, r)
	}
}

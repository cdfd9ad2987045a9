package rotator_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"

	"github.com/secretmanager-io/secretmanager/test/memoryvault"
	"github.com/secretmanager-io/secretmanager/test/relay"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// A step is a request of a run, before it is sent or after its response.
type step struct {
	method, path string // path is a part of the URL
	after        bool
}

func (s step) String() string {
	when := "before"
	if s.after {
		when = "after"
	}
	return fmt.Sprintf("%s %s %s", when, s.method, strings.ReplaceAll(strings.Trim(s.path, "/"), "/", " "))
}

var (
	afterLease      = step{http.MethodPut, "/leases/", true}
	afterPage       = step{http.MethodGet, "/secrets?", true}
	beforeReadKey   = step{http.MethodGet, "/transit/keys/", false}
	beforeRotate    = step{http.MethodPost, "/rotate", false}
	afterRotate     = step{http.MethodPost, "/rotate", true}
	beforeRewrap    = step{http.MethodPost, "/rewrap/", false}
	afterRewrap     = step{http.MethodPost, "/rewrap/", true}
	beforePatchStep = step{http.MethodPatch, "/secrets/", false}
	afterPatch      = step{http.MethodPatch, "/secrets/", true}
	beforeConfig    = step{http.MethodPost, "/config", false}
	afterConfig     = step{http.MethodPost, "/config", true}
	beforeSummary   = step{http.MethodPut, "/configmaps/", false}
	afterSummary    = step{http.MethodPut, "/configmaps/", true}
	beforeRequest   = step{"", "", false}
	afterRequest    = step{"", "", true}
)

// steps lists all steps at which a run is killed, roughly in their order.
var steps = []step{
	afterLease, afterPage, beforeReadKey, beforeRotate, afterRotate, beforeRewrap, afterRewrap, beforePatchStep,
	afterPatch,
	beforeConfig, afterConfig, beforeSummary, afterSummary,
	beforeRequest, afterRequest,
}

// A trigger calls do at the nth request of a step. All requests fail once it is dead.
type trigger struct {
	step step
	nth  int64
	do   func()

	times atomic.Int64
	dead  atomic.Bool
}

// reached is called before and after each request.
func (g *trigger) reached(method, path string, after bool) error {
	match := (g.step.method == "" || method == g.step.method) && strings.Contains(path, g.step.path)
	if match && g.step.after == after && g.times.Add(1) == g.nth {
		g.do()
	}
	if g.dead.Load() {
		return errKilled
	}
	return nil
}

func (g *trigger) wrap(next http.RoundTripper) http.RoundTripper {
	return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
		path := r.URL.Path + "?" + r.URL.RawQuery
		if err := g.reached(r.Method, path, false); err != nil {
			return nil, err
		}
		resp, err := next.RoundTrip(r)
		if killed := g.reached(r.Method, path, true); err == nil && killed != nil {
			resp.Body.Close()
			return nil, killed
		}
		return resp, err
	})
}

// watch makes the requests to a Vault in memory pass through the trigger, until the returned function is called.
func (g *trigger) watch(v *memoryvault.Vault) func() {
	hook := func(after bool) func(context.Context, string) error {
		return func(_ context.Context, operation string) error {
			request := map[string][2]string{
				"key": {http.MethodGet, "/transit/keys/"}, "rotate": {http.MethodPost, "/rotate"},
				"rewrap": {http.MethodPost, "/rewrap/"}, "config": {http.MethodPost, "/config"},
			}[operation]
			return g.reached(request[0], request[1], after)
		}
	}
	v.Before, v.After = hook(false), hook(true)
	return func() { v.Before, v.After = nil, nil }
}

// vault starts a relay to Vault whose requests pass through the trigger.
func (g *trigger) vault(address string) (*httptest.Server, error) {
	vault, err := relay.New(address, g.wrap(&http.Transport{}))
	if err != nil {
		return nil, err
	}
	return httptest.NewServer(vault), nil
}

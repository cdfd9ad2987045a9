package rotator_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

func (f *testFixture) lease() *coordinationv1.Lease {
	f.T.Helper()
	l, err := f.Kube.CoordinationV1().Leases(f.Namespace).
		Get(context.WithoutCancel(f.T.Context()), rotator.StateName, metav1.GetOptions{})
	if err != nil {
		f.T.Fatal(err)
	}
	return l
}

// storeLease gives the Lease to a holder that does not renew it.
func (f *testFixture) storeLease(holder string, seconds int32) {
	f.T.Helper()
	// The clock of the holder is far ahead.
	now := metav1.NewMicroTime(time.Now().Add(100 * time.Hour))
	l := f.lease()
	l.Spec = coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &now,
		AcquireTime: &now}
	_, err := f.Kube.CoordinationV1().Leases(f.Namespace).Update(f.T.Context(), l, metav1.UpdateOptions{})
	if err != nil {
		f.T.Fatal(err)
	}
}

func always(o *rotator.Options) { o.Rotate = rotator.Always }

// pausedRun is a run that waits before its first write, after it rotated the key.
type pausedRun struct {
	resume  func()
	done    chan struct{}
	report  *rotator.Report
	err     error
	started chan struct{}
}

func (f *testFixture) startPausedRun(ctx context.Context, duration time.Duration) *pausedRun {
	f.T.Helper()
	p := &pausedRun{done: make(chan struct{}), started: make(chan struct{})}
	wait := make(chan struct{})
	p.resume = sync.OnceFunc(func() { close(wait) })
	kube := f.Client(fixture.BeforeEach(http.MethodPatch, func(n int) {
		if n == 0 {
			close(p.started)
			<-wait
		}
	}))
	session := f.minimal()
	go func() {
		defer close(p.done)
		p.report, p.err = rotator.RunLeased(ctx, session, kube, f.options(always), duration)
	}()
	f.T.Cleanup(func() { p.resume(); <-p.done })
	select {
	case <-p.started:
	case <-p.done:
		f.T.Fatalf("the run ended early: %v", p.err)
	}
	return p
}

// While one run holds the Lease, another one changes nothing and names the holder.
func TestTwoRuns(t *testing.T) {
	parallel(t)
	f := newFixture(t)
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	first := f.startPausedRun(t.Context(), 3*time.Second)
	holder := *f.lease().Spec.HolderIdentity
	report, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options(always))
	if !errors.Is(err, rotator.ErrRunning) || report != nil || !strings.Contains(err.Error(), "is held by "+holder) {
		t.Errorf("the second run: %v, %v", report, err)
	}
	if got := f.KeyInfo().Latest; got != 2 {
		t.Errorf("the key is at version %d, want 2", got)
	}
	// A dry run needs no Lease.
	if _, err := rotator.Run(t.Context(), f.minimal(), f.Kube,
		f.options(always, func(o *rotator.Options) { o.DryRun = true })); err != nil {
		t.Errorf("concurrent dry run: %v", err)
	}
	first.resume()
	<-first.done
	if first.err != nil || onlyKey(t, first.report).Rewrapped != 1 {
		t.Errorf("the first run: %v, %+v", first.err, first.report)
	}
	// The Lease was released, so the next run need not wait.
	if l := f.lease(); l.Spec.HolderIdentity != nil {
		t.Errorf("after the run the Lease is held by %s", *l.Spec.HolderIdentity)
	}
	if _, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options()); err != nil {
		t.Errorf("the next run: %v", err)
	}
}

// An outage that requests outlast does not cost the Lease.
func TestLeaseOutlastsRetries(t *testing.T) {
	renewed := rotator.LeaseDuration / 6 // at most so long before the outage
	if kept := rotator.LeaseDuration*3/4 - renewed; kept < rotator.RetryKube {
		t.Errorf("the Lease is lost after an outage of %s, and requests are repeated for %s", kept,
			rotator.RetryKube)
	}
}

// The Lease of a dead holder expires by the clock of the waiting run, whatever the
// holder's clock.
func TestLeaseOfDeadHolder(t *testing.T) {
	parallel(t)
	f := newFixture(t)
	f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
	f.storeLease("dead-holder", 1)
	began, waits := time.Now(), []string{}
	report, err := rotator.Run(t.Context(), f.minimal(), f.Kube, f.options(always, func(o *rotator.Options) {
		o.Waiting = func(what string) (done func()) {
			waits = append(waits, what)
			return func() { waits = append(waits, "done") }
		}
	}))
	if len(waits) != 2 || !strings.Contains(waits[0], "dead-holder holds it") || waits[1] != "done" {
		t.Errorf("it reported the waits %q", waits)
	}
	if err != nil || !onlyKey(t, report).Rotated {
		t.Fatalf("%v, %+v", err, report)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("taken over after %s, before the Lease could expire", took)
	}
	// A run waits for a holder that may be alive, until its context is canceled.
	f = newFixture(t)
	f.storeLease("silent-holder", 3600)
	ctx, cancel := context.WithCancel(t.Context())
	reads := 0
	kube := f.Client(func(next http.RoundTripper) http.RoundTripper {
		return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
			if reads++; reads == 4 {
				cancel()
			}
			return next.RoundTrip(r)
		})
	})
	_, err = rotator.RunLeased(ctx, f.minimal(), kube, f.options(always), time.Second)
	if !errors.Is(err, context.Canceled) || f.KeyInfo().Latest != 1 {
		t.Errorf("%v, version %d", err, f.KeyInfo().Latest)
	}
	if got := f.lease().Spec; got.HolderIdentity == nil || *got.HolderIdentity != "silent-holder" {
		t.Error("the Lease was taken over before it expired")
	}
}

// A run that loses its Lease stops with an error.
func TestLeaseLost(t *testing.T) {
	parallel(t)
	tests := map[string]struct {
		lose func(f *testFixture)
		want string
	}{
		"to another": {func(f *testFixture) {
			l, other := f.lease(), "somebody"
			l.Spec.HolderIdentity = &other
			// Repeat it after a conflict with a renewal.
			f.wait(func() bool {
				_, err := f.Kube.CoordinationV1().Leases(f.Namespace).Update(f.T.Context(), l, metav1.UpdateOptions{})
				if apierrors.IsConflict(err) {
					l = f.lease()
					l.Spec.HolderIdentity = &other
				}
				return err == nil
			})
		}, `another run has taken it: it is held by "somebody"`},
		"deleted": {func(f *testFixture) {
			if err := f.Kube.CoordinationV1().Leases(f.Namespace).
				Delete(f.T.Context(), rotator.StateName, metav1.DeleteOptions{}); err != nil {
				f.T.Fatal(err)
			}
		}, "another run has taken it: it was deleted"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
			stopped := make(chan struct{})
			var once sync.Once
			kube := f.Client(func(next http.RoundTripper) http.RoundTripper {
				return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
					if r.Method != http.MethodPatch {
						return next.RoundTrip(r)
					}
					once.Do(func() { test.lose(f) })
					<-r.Context().Done() // only the loss of the Lease cancels it
					close(stopped)
					return nil, r.Context().Err()
				})
			})
			report, err := rotator.RunLeased(t.Context(), f.minimal(), kube, f.options(always), time.Second)
			if err == nil || report == nil || !strings.Contains(err.Error(), "stopped early") ||
				!strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			<-stopped
			// The run did not release a Lease that it did not hold.
			if name == "to another" && *f.lease().Spec.HolderIdentity != "somebody" {
				t.Error("the run wrote the Lease of the other holder")
			}
		})
	}
}

// A run that cannot renew the Lease stops before the Lease expires. A single lost response
// has no effect.
func TestLeaseNotRenewed(t *testing.T) {
	parallel(t)
	for name, lasting := range map[string]bool{"permanent": true, "one lost response": false} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
			patching := make(chan struct{})
			var mu sync.Mutex
			writes, lost := 0, 0
			kube := f.Client(func(next http.RoundTripper) http.RoundTripper {
				return fixture.RoundTripper(func(r *http.Request) (*http.Response, error) {
					if r.Method == http.MethodPatch && lasting {
						<-r.Context().Done()
						return nil, r.Context().Err()
					}
					if r.Method == http.MethodPatch {
						<-patching
					}
					resp, err := next.RoundTrip(r)
					if !strings.Contains(r.URL.Path, "/leases") || r.Method != http.MethodPut {
						return resp, err
					}
					mu.Lock()
					defer mu.Unlock()
					if writes++; writes == 1 { // takes the Lease
						return resp, err
					}
					if lasting || writes == 2 {
						lost++
						if err == nil {
							resp.Body.Close()
						}
						return nil, errors.New("the response is lost")
					}
					if writes == 5 { // the second renewal after the lost one
						close(patching)
					}
					return resp, err
				})
			})
			report, err := rotator.RunLeased(t.Context(), f.minimal(), kube, f.options(always), 2*time.Second)
			if lasting && (err == nil || !strings.Contains(err.Error(), "losing Lease "+f.Namespace+"/"+rotator.StateName)) {
				t.Errorf("error %v", err)
			}
			if !lasting && (err != nil || onlyKey(t, report).Rewrapped != 1) {
				t.Errorf("%v, %+v", err, report)
			}
			if lost == 0 {
				t.Error("no response was lost")
			}
		})
	}
}

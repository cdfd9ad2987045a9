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
)

func (w *world) lease() *coordinationv1.Lease {
	w.t.Helper()
	l, err := w.kube.CoordinationV1().Leases(w.ns).
		Get(context.WithoutCancel(w.t.Context()), rotator.StateName, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// storeLease gives the Lease to a holder who says nothing more.
func (w *world) storeLease(holder string, seconds int32) {
	w.t.Helper()
	// As of a machine whose clock is far ahead.
	now := metav1.NewMicroTime(time.Now().Add(100 * time.Hour))
	l := w.lease()
	l.Spec = coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &now,
		AcquireTime: &now}
	_, err := w.kube.CoordinationV1().Leases(w.ns).Update(w.t.Context(), l, metav1.UpdateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
}

func always(o *rotator.Options) { o.Rotate = rotator.Always }

// paused is a run that has rotated the key and waits before its first write.
type paused struct {
	goOn    func()
	done    chan struct{}
	report  *rotator.Report
	err     error
	started chan struct{}
}

func (w *world) pausedRun(ctx context.Context, duration time.Duration) *paused {
	w.t.Helper()
	p := &paused{done: make(chan struct{}), started: make(chan struct{})}
	wait := make(chan struct{})
	p.goOn = sync.OnceFunc(func() { close(wait) })
	kube := w.client(beforePatch(func(n int) {
		if n == 0 {
			close(p.started)
			<-wait
		}
	}))
	session := w.minimal()
	go func() {
		defer close(p.done)
		p.report, p.err = rotator.RunLeased(ctx, session, kube, w.options(always), duration)
	}()
	w.t.Cleanup(func() { p.goOn(); <-p.done })
	select {
	case <-p.started:
	case <-p.done:
		w.t.Fatalf("the run ended early: %v", p.err)
	}
	return p
}

// Two runs that would both rotate: while one is at it the other does nothing, and
// names it.
func TestTwoRuns(t *testing.T) {
	w := newWorld(t)
	w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	first := w.pausedRun(t.Context(), 3*time.Second)
	holder := *w.lease().Spec.HolderIdentity
	report, err := rotator.Run(t.Context(), w.minimal(), w.kube, w.options(always))
	if !errors.Is(err, rotator.ErrRunning) || report != nil || !strings.Contains(err.Error(), "is held by "+holder) {
		t.Errorf("the second run: %v, %v", report, err)
	}
	if got := w.keyInfo().Latest; got != 2 {
		t.Errorf("the key is at version %d, want 2", got)
	}
	// A dry run needs no Lease.
	if _, err := rotator.Run(t.Context(), w.minimal(), w.kube,
		w.options(always, func(o *rotator.Options) { o.DryRun = true })); err != nil {
		t.Errorf("a dry run meanwhile: %v", err)
	}
	first.goOn()
	<-first.done
	if first.err != nil || only(t, first.report).Rewrapped != 1 {
		t.Errorf("the first run: %v, %+v", first.err, first.report)
	}
	// It was released, so the next run has not to wait until it has run out.
	if l := w.lease(); l.Spec.HolderIdentity != nil {
		t.Errorf("after the run the Lease is held by %s", *l.Spec.HolderIdentity)
	}
	if _, err := rotator.Run(t.Context(), w.minimal(), w.kube, w.options()); err != nil {
		t.Errorf("the next run: %v", err)
	}
}

// A holder that died is taken over when its Lease has run out by the clock of
// whoever watches, whatever its own clock said.
// An outage that everything else outlasts does not cost the Lease.
func TestLeaseOutlastsPatience(t *testing.T) {
	renewed := rotator.LeaseDuration / 6 // before the outage began, at most
	if kept := rotator.LeaseDuration*3/4 - renewed; kept < rotator.RetryKube {
		t.Errorf("the Lease is given up after %s without the API server, which everything else waits %s for", kept,
			rotator.RetryKube)
	}
}

func TestDeadHolderIsTakenOver(t *testing.T) {
	w := newWorld(t)
	w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
	w.storeLease("the dead", 1)
	began := time.Now()
	report, err := rotator.Run(t.Context(), w.minimal(), w.kube, w.options(always))
	if err != nil || !only(t, report).Rotated {
		t.Fatalf("%v, %+v", err, report)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("taken over after %s, before the Lease could have run out", took)
	}
	// One that may be alive yet is waited for, until the run is told to stop.
	w = newWorld(t)
	w.storeLease("the silent", 3600)
	ctx, cancel := context.WithCancel(t.Context())
	reads := 0
	kube := w.client(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			if reads++; reads == 4 {
				cancel()
			}
			return next.RoundTrip(r)
		})
	})
	_, err = rotator.RunLeased(ctx, w.minimal(), kube, w.options(always), time.Second)
	if !errors.Is(err, context.Canceled) || w.keyInfo().Latest != 1 {
		t.Errorf("%v, version %d", err, w.keyInfo().Latest)
	}
	if got := w.lease().Spec; got.HolderIdentity == nil || *got.HolderIdentity != "the silent" {
		t.Error("it was taken over before it had run out")
	}
}

// A run that loses its Lease stops, and says so.
func TestLeaseIsLost(t *testing.T) {
	tests := map[string]struct {
		lose func(w *world)
		want string
	}{
		"to another": {func(w *world) {
			l, other := w.lease(), "somebody"
			l.Spec.HolderIdentity = &other
			// Until a renewal did not come in between.
			w.wait(func() bool {
				_, err := w.kube.CoordinationV1().Leases(w.ns).Update(w.t.Context(), l, metav1.UpdateOptions{})
				if apierrors.IsConflict(err) {
					l = w.lease()
					l.Spec.HolderIdentity = &other
				}
				return err == nil
			})
		}, `somebody else has taken it: it is held by "somebody"`},
		"deleted": {func(w *world) {
			if err := w.kube.CoordinationV1().Leases(w.ns).
				Delete(w.t.Context(), rotator.StateName, metav1.DeleteOptions{}); err != nil {
				w.t.Fatal(err)
			}
		}, "somebody else has taken it: it was deleted"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
			stopped := make(chan struct{})
			var once sync.Once
			kube := w.client(func(next http.RoundTripper) http.RoundTripper {
				return roundTrip(func(r *http.Request) (*http.Response, error) {
					if r.Method != http.MethodPatch {
						return next.RoundTrip(r)
					}
					once.Do(func() { test.lose(w) })
					<-r.Context().Done() // nothing but the loss ends this request
					close(stopped)
					return nil, r.Context().Err()
				})
			})
			report, err := rotator.RunLeased(t.Context(), w.minimal(), kube, w.options(always), time.Second)
			if err == nil || report == nil || !strings.Contains(err.Error(), "stopped before the end") ||
				!strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			<-stopped
			// What it did not hold any more it has not released.
			if name == "to another" && *w.lease().Spec.HolderIdentity != "somebody" {
				t.Error("the Lease of the other was written")
			}
		})
	}
}

// The Lease cannot be renewed: the run stops before others may take it over. An
// answer that is lost costs nothing.
func TestLeaseCannotBeRenewed(t *testing.T) {
	for name, lasting := range map[string]bool{"for good": true, "an answer is lost": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
			patching := make(chan struct{})
			var mu sync.Mutex
			writes, lost := 0, 0
			kube := w.client(func(next http.RoundTripper) http.RoundTripper {
				return roundTrip(func(r *http.Request) (*http.Response, error) {
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
					if writes++; writes == 1 { // which takes it
						return resp, err
					}
					if lasting || writes == 2 {
						lost++
						if err == nil {
							resp.Body.Close()
						}
						return nil, errors.New("the answer is lost")
					}
					if writes == 5 { // a renewal after the one that was lost, and another
						close(patching)
					}
					return resp, err
				})
			})
			report, err := rotator.RunLeased(t.Context(), w.minimal(), kube, w.options(always), 2*time.Second)
			if lasting && (err == nil || !strings.Contains(err.Error(), "losing Lease "+w.ns+"/"+rotator.StateName)) {
				t.Errorf("error %v", err)
			}
			if !lasting && (err != nil || only(t, report).Rewrapped != 1) {
				t.Errorf("%v, %+v", err, report)
			}
			if lost == 0 {
				t.Error("no answer was lost")
			}
		})
	}
}

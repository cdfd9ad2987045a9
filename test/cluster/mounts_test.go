package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/provider"
	"github.com/secretmanager-io/secretmanager/test/async"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	// workers mount with the addresses of all members, and standbyWorkers with the address of one that is not killed.
	workers, standbyWorkers = 8, 2
	// enough mounts of each worker before and after the failure.
	enough = 5
)

// testMounts kills the leader while workers mount volumes of ever new pods. Each mount succeeds, at the latest when the
// kubelet tries again, and each file is right.
func (e *env) testMounts(t *testing.T) {
	all := e.provider(t, e.cluster.Address())
	for round := range repetitions(1, 10) {
		leader := e.cluster.Leader(t)
		standby := all
		for _, member := range e.cluster.Members {
			if member != leader {
				standby = e.provider(t, member.Address)
			}
		}
		l := &load{t: t, env: e, stop: make(chan struct{})}
		for i := range workers + standbyWorkers {
			p := all
			if i >= workers {
				p = standby
			}
			l.start(p, fmt.Sprintf("w-%d-%d", round, i))
		}
		l.await("mounts before the failure", time.Time{})
		f := e.killLeader(t)
		l.await("mounts after the failure", f.elected)
		e.restart(t, f)
		close(l.stop)
		l.running.Wait()
		l.report(f)
	}
}

func (e *env) provider(t *testing.T, addresses string) *provider.Provider {
	t.Helper()
	p, err := provider.New(provider.Config{
		Vault: transit.Config{Address: addresses}, AuthMount: "jwt", Audience: provider.DefaultAudience,
		VersionKey: make([]byte, 32), Log: slog.New(slog.DiscardHandler), BuildVersion: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// load is the mounts of the workers.
type load struct {
	t       *testing.T
	env     *env
	stop    chan struct{}
	running sync.WaitGroup

	mu     sync.Mutex
	mounts []mounted
	active int // workers
}

// mounted is a mount that succeeded, at the latest after some failures.
type mounted struct {
	worker       string
	began, ended time.Time
	failures     []error
}

// start starts a worker, which mounts a Secret of its own until the load stops.
func (l *load) start(p *provider.Provider, worker string) {
	l.active++
	want := "plaintext of " + worker
	stored := l.env.secret(l.t, l.env.Key, worker, map[string]string{"password": want})
	entries := map[string]string{"password": string(stored.Data["password"])}
	l.running.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-l.stop:
				return
			case <-l.t.Context().Done():
				return
			default:
			}
			request := l.env.mountRequest(fmt.Sprintf("%s-%d", worker, n), worker, entries)
			m := mounted{worker: worker, began: time.Now()}
			m.failures = kubelet(l.t.Context(), func(ctx context.Context) error {
				response, err := p.Mount(ctx, request)
				if err == nil {
					l.check(response, want)
				}
				return err
			})
			m.ended = time.Now()
			l.mu.Lock()
			l.mounts = append(l.mounts, m)
			l.mu.Unlock()
		}
	})
}

// check reports a volume that does not have exactly the right file.
func (l *load) check(response *v1alpha1.MountResponse, want string) {
	files := response.GetFiles()
	if len(files) != 1 || files[0].Path != "password" || string(files[0].Contents) != want {
		l.t.Errorf("the volume has %v, want %q", files, want)
	}
}

// mountRequest returns the driver's request for a new pod.
func (e *env) mountRequest(pod, secret string, entries map[string]string) *v1alpha1.MountRequest {
	token := fixture.Issuer().PodToken(e.Key, pod, "uid-"+pod, "app", "vault", time.Hour)
	attributes := map[string]string{
		"roleName": e.Key, "secretName": secret, "transitKey": e.Key,
		class.AttributePodNamespace: e.Key, class.AttributePodName: pod, class.AttributePodUID: "uid-" + pod,
		class.AttributeAccount: "app", class.AttributeEphemeral: "true", class.AttributeClass: "matrix",
		class.AttributeTokens: toJSON(map[string]any{"vault": map[string]any{
			"token": token, "expirationTimestamp": time.Now().Add(time.Hour)}}),
	}
	return &v1alpha1.MountRequest{Attributes: toJSON(attributes), Secrets: toJSON(entries),
		TargetPath: "/var/lib/kubelet/pods/" + pod, Permission: "420"}
}

// await waits until each worker has made enough mounts that began after a time.
func (l *load) await(what string, after time.Time) {
	l.t.Helper()
	async.Wait(l.t, what, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		counts := map[string]int{}
		for _, m := range l.mounts {
			if m.began.After(after) {
				counts[m.worker]++
			}
		}
		least := enough
		for _, count := range counts {
			least = min(least, count)
		}
		return len(counts) == l.active && least == enough
	})
}

// report logs the failures, and checks that the kubelet learns of each.
func (l *load) report(f failover) {
	var slowest time.Duration
	failed, disturbed := 0, 0
	for _, m := range l.mounts {
		slowest = max(slowest, m.ended.Sub(m.began))
		if m.began.Before(f.elected) && m.ended.After(f.killed) {
			disturbed++
		}
		if len(m.failures) > 0 {
			failed++
		}
		for _, err := range m.failures {
			l.t.Logf("a mount of %s failed: %v", m.worker, err)
			if !failure.IsFinal(status.Code(err)) {
				l.t.Errorf("the kubelet would take this failure for a success: %v", err)
			}
		}
	}
	l.t.Logf("%d mounts, %d of them during the failover of %s; %d failed and were repeated; the slowest took %s",
		len(l.mounts), disturbed, f.elected.Sub(f.killed).Round(time.Millisecond), failed, slowest.Round(time.Millisecond))
	if disturbed == 0 {
		l.t.Error("no mount was disturbed")
	}
}
